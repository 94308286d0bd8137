"""A model's features: where each architecture is tapped, how they are read, and how blocks are recomputed."""
