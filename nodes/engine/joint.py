"""All branches of a guided step in one call of the model: the conditional one is differentiated, the others go forward beside it. The arithmetic of
the backward pass is then that of all branches, but a card that waits for Python is called half as often."""
from math import prod

from . import memory

# Up to how many latent pixels, those of a batch together, by the device's type. On CPUs it was slower at every size (docs/measurements/speed.md), and
# no card has measured it yet: `python run.py gpu --only cost` does.
MOST_PIXELS: dict[str, int] = {}


def pays(step, branches: list, read_by: list) -> bool:
    """Whether a step for `branches`, read by these heads, is faster in one call than in several, and fits the memory."""
    if len(step.x) * prod(step.size) > MOST_PIXELS.get(step.x.device.type, 0):
        return False
    acting = [conds for conds in branches if conds and step.active_areas(conds)]
    rows, asked = len(acting) * len(step.x), [c for conds in acting for c in conds]
    return len(acting) > 1 and not memory.is_short(step.model, (rows, *step.x.shape[1:]), asked, read_by, step.x.device)
