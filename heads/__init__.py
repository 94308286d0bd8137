"""Head files: reading and writing them, the list of published ones, and the bundled demo."""
from .files import HeadFileError, kind_of, load_head, save_head

__all__ = ["HeadFileError", "kind_of", "load_head", "save_head"]
