"""Calls of the model for some of the images, for tiles of one, or for a crop."""
