"""What a guided run leaves behind."""
from dataclasses import dataclass, field, replace

from torch import Tensor

from ...rg_core.guidance.targets import Target
from ...rg_core.readout.views import View

MOST = 50  # moves that views are kept of


@dataclass
class Trace:
    """A row for each target at each move of a guided prediction, and what there was to look at of the first image: `latest`, at the last move, and
    `samples`, with the move's number, at some of them, evenly.

    While it samples, the run is shown on the node with the id `shown_on`; None: on the one that samples."""
    shown_on: str | None = None
    rows: list[dict] = field(default_factory=list)
    latest: list[View] = field(default_factory=list)
    samples: list[tuple[int, list[View]]] = field(default_factory=list)
    count: int = 0
    interval: int = 1

    def clear(self) -> None:
        self.rows, self.latest, self.samples, self.count, self.interval = [], [], [], 0, 1

    def add(self, sigma: float, move: int, targets: list[Target], values: list[Tensor], views: list[View]) -> None:
        for target, value in zip(targets, values):
            self.rows.append({"sigma": sigma, "move": move, "target": target.name, "energy": value.tolist()})
        self.latest, self.count = [first(view) for view in views], self.count + 1
        if self.count % self.interval == 0:
            self.samples.append((self.count, self.latest))
        if len(self.samples) > MOST:
            self.samples, self.interval = self.samples[1::2], 2 * self.interval


def first(view: View) -> View:
    """Of the first image alone, in little memory, on the CPU."""
    def own(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[:1].detach().half().cpu()
    return replace(view, energy=view.energy[:1].cpu(), wanted=own(view.wanted), read=own(view.read), pull=own(view.pull))
