"""Images, masks and maps."""
