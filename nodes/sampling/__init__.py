"""One guided run on the host's model."""
from .guidance import Guidance, Trace, guided

__all__ = ["Guidance", "Trace", "guided"]
