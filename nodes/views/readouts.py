"""What a guided run read, as a batch of images."""
from torch import Tensor

from ..common import drawing
from ..engine.trace import Trace


def readouts(trace: Trace, rgb) -> Tensor:
    """An IMAGE for each prediction that `trace` has views of, or one that says that there is none; `rgb` as in seeing.sheet."""
    seen = [drawing.sheet(views, rgb, caption=f"move {number} of {trace.count}") for number, views in trace.samples]
    return drawing.batch(seen or [drawing.words("nothing was guided")])
