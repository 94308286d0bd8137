"""One guided run on the host's model."""
from .guidance import guided, unguide
from .trace import Trace

__all__ = ["Trace", "guided", "unguide"]
