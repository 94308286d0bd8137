"""Heads fitted in closed form: ridge regression from the taps of pictures to what should be read of them.

Only sums over pixels are kept, so memory does not grow with the number of pictures.
"""
from collections.abc import Sequence

import torch
from torch import Tensor

from .features import normed
from .head import resize


def rows(features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The taps [B, C_l, h_l, w_l] as a linear head sees them at `size` (H, W): [B * H * W, sum of C_l], float64."""
    maps = torch.cat([resize(normed(x.float()), size) for x in features], 1)
    return maps.movedim(1, -1).flatten(0, 2).double()


class Sums:
    """What ridge regression needs of all pixels seen so far, for each band of noise: products of features with each other and
    with the targets, sums of both, and how many there were."""

    def __init__(self, bands: int, features: int, outputs: int):
        self.gram = torch.zeros(bands, features, features, dtype=torch.float64)
        self.cross = torch.zeros(bands, features, outputs, dtype=torch.float64)
        self.feature = torch.zeros(bands, features, dtype=torch.float64)
        self.target = torch.zeros(bands, outputs, dtype=torch.float64)
        self.count = torch.zeros(bands, dtype=torch.float64)

    def add(self, band: int, x: Tensor, y: Tensor) -> None:
        """Features [P, F] and targets [P, O] of some pixels."""
        y = y.double()
        self.gram[band].addmm_(x.mT, x)
        self.cross[band].addmm_(x.mT, y)
        self.feature[band] += x.sum(0)
        self.target[band] += y.sum(0)
        self.count[band] += len(x)

    def solve(self, ridge: float, shared: float = 0.0) -> tuple[Tensor, Tensor]:
        """The maps [bands, F, O] and biases [bands, O] with the least squared error over each band, in which pixels of the bands n
        places away count `shared`^n, and with `ridge` times the mean square of the features on the maps' squares."""
        bands = len(self.count)
        places = torch.arange(bands, dtype=torch.float64)
        kernel = torch.full((bands, bands), float(shared), dtype=torch.float64) ** (places[:, None] - places).abs()
        maps = []
        for weights in kernel:
            gram, cross, feature, target, count = (torch.tensordot(weights, x, 1) for x in
                                                   (self.gram, self.cross, self.feature, self.target, self.count))
            gram.addr_(feature, feature, alpha=-1 / count.item())  # about the means
            cross.addr_(feature, target, alpha=-1 / count.item())
            gram.diagonal().add_(ridge * gram.diagonal().mean())
            found = torch.linalg.solve(gram, cross)
            maps.append((found, (target - feature @ found) / count))
        return torch.stack([m for m, _ in maps]), torch.stack([b for _, b in maps])
