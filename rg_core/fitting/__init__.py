"""Heads fitted in closed form."""
