"""Nodes that show what guidance did."""
