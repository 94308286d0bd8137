"""One guided run on the host's model."""
from .guidance import Trace, guided, unguide

__all__ = ["Trace", "guided", "unguide"]
