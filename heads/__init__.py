"""Head files: reading and writing them, the list of published ones, and the bundled demo."""
from .config import KINDS, kind_of
from .files import HeadFileError, load_head, load_training, save_head

__all__ = ["KINDS", "HeadFileError", "kind_of", "load_head", "load_training", "save_head"]
