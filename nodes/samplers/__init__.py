"""Nodes that sample under guidance, or have others do so."""
