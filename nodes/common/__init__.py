"""What every room stands on: socket types, checks of inputs, latents, drawing, the log. It knows no node."""
