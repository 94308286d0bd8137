"""What a guided run leaves behind."""
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from ...rg_core.guidance.targets import Target
from ...rg_core.readout.views import View

MOST = 50  # moves that views are kept of


@dataclass
class Trace:
    """A row for each target at each move of a guided prediction, and what there was to look at of the first image: `latest`, at the last move, and
    `samples`, with the move's number, at some of them, evenly.

    While it samples, the run is shown on the node with the id `shown_on`; None: on the one that samples. What there was to look at is kept if it is
    `sampled`, and made at every move while somebody is `watching`."""
    shown_on: str | None = None
    sampled: bool = True
    watching: bool = False
    rows: list[dict] = field(default_factory=list)
    latest: list[View] = field(default_factory=list)
    samples: list[tuple[int, list[View]]] = field(default_factory=list)
    count: int = 0
    interval: int = 1

    def clear(self) -> None:
        self.rows, self.latest, self.samples, self.count, self.interval = [], [], [], 0, 1

    @property
    def wants_views(self) -> bool:
        """Whether somebody will look at what the next move sees."""
        return self.watching or self.sampled and (self.count + 1) % self.interval == 0

    def add(self, sigma: float, move: int, targets: list[Target], values: list[Tensor], views: list[View] | None) -> None:
        """Energies and views stay where they are, for to bring them to the CPU makes a card wait; see `settle`."""
        for target, value in zip(targets, values):
            self.rows.append({"sigma": sigma, "move": move, "target": target.name, "energy": value})
        self.latest, self.count = [first(view) for view in views or ()], self.count + 1
        if self.sampled and self.count % self.interval == 0:
            self.samples.append((self.count, self.latest))
        if len(self.samples) > MOST:
            self.samples, self.interval = self.samples[1::2], 2 * self.interval


    def settle(self) -> None:
        """At the end of a run: brings everything to the CPU."""
        for row in self.rows:
            if isinstance(row["energy"], Tensor):
                row["energy"] = row["energy"].tolist()
        self.samples = [(number, [brought(view, lambda x: x.cpu()) for view in views]) for number, views in self.samples]
        self.latest = [brought(view, lambda x: x.cpu()) for view in self.latest]


def first(view: View) -> View:
    """Of the first image alone, in little memory."""
    return replace(brought(view, lambda x: x[:1].detach().half()), energy=view.energy[:1])


def brought(view: View, way: Callable[[Tensor], Tensor]) -> View:
    return replace(view, **{name: way(x) for name in ("energy", "wanted", "read", "pull") if (x := getattr(view, name)) is not None})
