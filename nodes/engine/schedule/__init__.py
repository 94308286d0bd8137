"""Noise levels, what a sampler makes of predictions, and the moves that follow from both."""
