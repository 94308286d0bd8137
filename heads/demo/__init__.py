"""The demo world and what was trained on it."""
