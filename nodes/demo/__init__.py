"""The demo model and its scenes as nodes."""
