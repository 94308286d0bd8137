"""Checkpoints in published layouts with random weights."""
