"""Nodes that make references, and what a reference keeps."""
