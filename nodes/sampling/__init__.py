"""One guided run on the host's model."""
from .guidance import Trace, guided

__all__ = ["Trace", "guided"]
