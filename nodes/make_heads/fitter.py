"""Heads fitted in closed form to images as the host's model reads them."""
from collections.abc import Sequence

import comfy.utils
import torch
from torch import Tensor

from ...rg_core.features import taps
from ...rg_core.fitting import ridge
from ...rg_core.readout.linear_head import LinearHead, from_maps
from ..engine.read_features import levels
from .evaluation import Judge, Quality
from .examples import Example
from .training_set import BANDS, TrainingSet, check_finite, single, solving_device

# docs/measurements/fitting.md has the measurements that chose these.
SHARED = 0.3
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
LEVELS = 64       # noise levels that a head can tell apart
PIXELS = 1024     # of each image at each band, at random where it has more


class Fitter:
    """Reads images in each band of noise, and fits heads to what should be read of them."""

    def __init__(self, data: TrainingSet, seed: int):
        self.data = data
        self.sums = ridge.Sums(BANDS, sum(data.channels), data.outputs * data.fold**2)
        self.levels: Tensor | None = None
        self.rng = torch.Generator().manual_seed(seed)
        self.progress = comfy.utils.ProgressBar(BANDS * len(data.given))

    def look(self, places: list[int], use) -> None:
        """Calls `use(band, example, reading)` for each of the images at `places` in each band, at a level in it at random."""
        def seen(base_model, reading: taps.Reading) -> taps.Reading:
            if self.levels is None:
                self.levels = levels(self.data.model, base_model, reading, LEVELS)
            return reading

        for band in range(BANDS):
            for some, reading in self.data.read(places, self.rng, seen, band, BANDS):
                for i, example in enumerate(some):
                    use(band, example, single(reading, i))
                self.progress.update(len(some))

    def add(self, band: int, example: Example, reading: taps.Reading) -> None:
        x, y = self.data.pairs(example, reading)
        check_finite(self.data.node, band, x)
        some = torch.randperm(len(x), generator=self.rng)[:PIXELS]
        self.sums.add(band, x[some.to(x.device)], y[some].to(x.device))

    def solve(self, band: int, ridges: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
        """See Sums.solve."""
        return self.sums.solve(band, ridges, SHARED, solving_device(self.data.model, sum(self.data.channels)))

    def head(self, maps: list[tuple[Tensor, Tensor]], start: float = 0.0, **about) -> LinearHead:
        data, known = self.data, self.data.about()
        return from_maps(data.kind, data.channels, maps, self.levels, pooled=data.pooled, fold=data.fold, start=start,
                         **known | {"config": known["config"] | about})


def fit_head(data: TrainingSet, seed: int) -> tuple[LinearHead, Quality]:
    """A head, and how well one of the same ridges but without the held-out images reads those."""
    fitter = Fitter(data, seed)
    rest, held = data.split(fitter.rng)
    fitter.look(rest, fitter.add)
    solved = [fitter.solve(band, RIDGES) for band in range(BANDS)]
    device = data.model.load_device
    trials = [fitter.head([band[k] for band in solved]).to(device) for k in range(len(RIDGES))]
    judge = Judge(BANDS, data.mean(rest))

    def judged(band: int, example: Example, reading: taps.Reading) -> None:
        judge.add(band, example, data.wanted(example), [data.readout(trial, example, reading).cpu() for trial in trials])
        fitter.add(band, example, reading)

    fitter.look(held, judged)
    best = judge.best()
    found = judge.quality(best)
    maps = [fitter.solve(band, [RIDGES[k]])[0] for band, k in enumerate(best)]
    fitted_on = {"pictures": len(data.given), "held_out": len(held), "seed": seed}
    return fitter.head(maps, found.start, fitted_on=fitted_on, explained=found.explained()), found
