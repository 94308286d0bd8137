"""Heads trained step by step."""
