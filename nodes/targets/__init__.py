"""Nodes that make targets, and what other packs make theirs with."""
