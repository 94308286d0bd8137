"""Nodes that fit, train, judge, load and save heads."""
