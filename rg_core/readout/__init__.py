"""Heads, and what they read."""
