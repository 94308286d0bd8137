"""Signs that a MODEL is sampled for a part of the picture that its targets are of: a tile or a crop, as upscalers and detailers
make them. Nobody says so, but they do it again and again within one node, or smaller than before, from a given picture."""
import math
from dataclasses import dataclass, field

from comfy_execution.utils import get_executing_context
from torch import Tensor

from .log import Log


@dataclass(frozen=True, eq=False)
class Samplings:
    """Those of one guided MODEL so far, in one run of the workflow: which node's execution, and the latents' size (H, W)."""
    log: Log
    seen: list[tuple[object, tuple[int, int]]] = field(default_factory=list)

    def add(self, latents: Tensor) -> None:
        """Warns, once, if these look like a part of what was sampled before."""
        size, where = tuple(latents.shape[-2:]), get_executing_context()
        if self.seen and prompt(self.seen[-1][0]) != prompt(where):
            self.seen.clear()  # the same workflow run again is no second sampling in it
        if latents.any():
            if any(where is not None and where == before for before, _ in self.seen):
                self.warn("one node samples it more than once, from given pictures")
            elif any(math.prod(size) < 0.9 * math.prod(before) for _, before in self.seen):
                self.warn(f"it is sampled at {size[1]}x{size[0]} latents, smaller than before, from a given picture")
        self.seen[:] = [*self.seen[-15:], (where, size)]

    def warn(self, sign: str) -> None:
        self.log.warn(f"{sign}. If those are parts of the picture (tiles, a detailer's crops), each is steered towards the whole target, which is "
                      "wrong: give that node the MODEL from before guidance, or one that is guided by targets cut likewise.", "part")


def prompt(where) -> str | None:
    """The run of the workflow that this node's execution is of; None outside of any."""
    return where and where.prompt_id
