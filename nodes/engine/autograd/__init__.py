"""What autograd needs of the host's model."""
