"""What the pack sets up in ComfyUI when it is loaded."""
