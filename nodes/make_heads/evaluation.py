"""How well a new head reads what is held out."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...rg_core.images.resize import resize
from .examples import Example

# Shares of what differs between images that a head must read to guide at a noise level, to be of use at all, and to be good. Even one that reads
# worse than the mean image there is better begun with than not: docs/measurements/fitting.md.
ACTS, USEFUL, GOOD = -0.3, 0.3, 0.6
TURNS, RIDGE = 5, 0.1  # how images with something and without it are told, each by the others


@dataclass
class Quality:
    percents: list[float]  # the middles of the bands
    shares: list[float]    # of the variance of what should be read, around its mean image, that is read there; at most 1
    start: float           # from which on the head should act
    seen: list[tuple[Example, Tensor, list[Tensor]]]  # held-out images, what was wanted and what is read in each band

    def explained(self) -> dict[str, float]:
        """The shares by percent, for a head's file."""
        return {f"{p:.1f}": round(share, 3) for p, share in zip(self.percents, self.shares)}


class Judge:
    """Compares what several trial heads read of held-out images with what was wanted, by band."""

    def __init__(self, bands: int, mean: Tensor):
        self.mean, self.errors, self.spread = mean, [[] for _ in range(bands)], [0.0] * bands
        self.seen: dict[int, tuple] = {}

    def add(self, band: int, example: Example, wanted: Tensor, readouts: list[Tensor]) -> None:
        """`wanted` and each trial's readout are [1, 3, H, W]."""
        self.errors[band].append([(x - wanted).square().mean().item() for x in readouts])
        self.spread[band] += (resize(self.mean, wanted.shape[-2:]) - wanted).square().mean().item()
        self.seen.setdefault(id(example), (example, wanted, []))[2].append(readouts)

    def best(self) -> list[int]:
        """The trial with the least error, for each band."""
        return [int(np.argmin(np.sum(errors, 0))) for errors in self.errors]

    def quality(self, chosen: list[int]) -> Quality:
        bands = len(self.errors)
        shares = [1 - sum(e[k] for e in errors) / max(spread, 1e-12) for errors, spread, k in zip(self.errors, self.spread, chosen)]
        acting = next((band for band, share in enumerate(shares) if share >= ACTS), bands - 1)
        seen = [(example, wanted, [trials[k] for trials, k in zip(read, chosen)]) for example, wanted, read in self.seen.values()]
        return Quality([(band + 0.5) / bands for band in range(bands)], shares, acting / bands, seen)


def cross_validate(sides: Sequence[Tensor]) -> Tensor:
    """What ridge regression reads of each image, in each band, from the features [N, bands, F] of those with something and those without it:
    [N of both, bands], above 0 where rightly. A fifth of each side is read at a time, by what the rest tell."""
    sign = torch.cat([torch.full((len(side),), value, dtype=torch.float64) for side, value in zip(sides, (1, -1))])
    turns = torch.cat([torch.arange(len(side)) % TURNS for side in sides])
    x = torch.cat(list(sides)).double().movedim(1, 0)  # [bands, N, F]
    x = F.normalize(x - x.mean(1, keepdim=True), dim=1)
    gram, readouts = x @ x.mT, torch.zeros(len(sign), len(x), dtype=torch.float64)
    for turn in range(TURNS):
        held, rest = (turns == turn).nonzero()[:, 0], (turns != turn).nonzero()[:, 0]
        mean, known = sign[rest].mean(), gram[:, rest]
        wanted = (sign[rest] - mean).expand(len(x), -1)[..., None]
        found = torch.linalg.solve(known[..., rest] + RIDGE * torch.eye(len(rest), dtype=torch.float64), wanted)
        readouts[held] = mean + (known[..., held].mT @ found)[..., 0].mT
    return readouts * sign[:, None]


def accuracy(sides: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Which images are, of those with features [N, bands, F] with something and without it, and what share of them; each side counts alike, however
    many it has."""
    rights = cross_validate(sides) > 0
    return rights, sum(side.double().mean().item() for side in rights.split([len(side) for side in sides])) / 2
