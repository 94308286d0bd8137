"""What trains the demo models."""
