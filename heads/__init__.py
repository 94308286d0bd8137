"""Head files: reading and writing them, and the bundled demo."""
from .files import HeadFileError, load_head, save_head

__all__ = ["HeadFileError", "load_head", "save_head"]
