"""Heads fitted in closed form: ridge regression from the taps of images to what should be read of them.

Only sums over pixels are kept, so memory does not grow with the number of images.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.resize import resize
from .banded import Banded


def rows(features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The taps [B, C_l, h_l, w_l] as a linear head sees them at `size` (H, W): [B, H * W, sum of C_l], float32."""
    return torch.cat([resize(x.float(), size) for x in features], 1).flatten(2).mT


def folded(features: Sequence[Tensor], wanted: Tensor, fold: int) -> tuple[Tensor, Tensor]:
    """`rows` [B, P, sum of C_l] of taps of one size, and what a head with this `fold` should read of them, [B, P, outputs * fold * fold], by the
    maps `wanted` [B, outputs, H, W]; of those places that are within the image as a whole."""
    height, width = (n // fold for n in wanted.shape[-2:])
    targets = F.pixel_unshuffle(wanted[..., :height * fold, :width * fold], fold).flatten(2).mT
    return rows([x[..., :height, :width] for x in features], (height, width)), targets


class Sums:
    """What ridge regression needs of all pixels seen so far, for each band of noise: the products of their features, and a one,
    with each other, `gram` [bands, F + 1, F + 1], and with the targets, `cross` [bands, F + 1, O]."""

    def __init__(self, bands: int, features: int, outputs: int, dtype: torch.dtype = torch.float32):
        self.gram = Banded(bands, (features + 1, features + 1), dtype)
        self.cross = Banded(bands, (features + 1, outputs), dtype)
        self.origin: Tensor | None = None  # [F], taken from features before they are multiplied, which costs large means less precision

    def add(self, band: int, x: Tensor, y: Tensor) -> None:
        """Features [P, F] and targets [P, O] of some pixels."""
        if self.origin is None:
            self.origin = x.mean(0)
        x = F.pad(x - self.origin.to(x), (0, 1), value=1.0)
        self.gram.add(band, x, x)
        self.cross.add(band, x, y)

    def solve(self, band: int, ridges: Sequence[float], shared: float = 0.0,
              device: torch.device = torch.device("cpu")) -> list[tuple[Tensor, Tensor]]:
        """For each of `ridges`, computed on `device`, the map [F, O] and bias [O], float64, with the least squared error over a band, in which
        pixels of the bands n places away count `shared`^n, and with `ridge` on the squares of what each feature, brought to deviation
        1, counts."""
        if self.origin is None:
            raise ValueError("nothing was added that a map could be solved for")
        gram, cross = (sums.blend(band, shared, device) for sums in (self.gram, self.cross))
        count, feature, target = gram[-1, -1].item(), gram[-1, :-1] / gram[-1, -1], cross[-1] / gram[-1, -1]
        gram = gram[:-1, :-1].addr_(feature, feature, alpha=-count)  # about the means
        cross = cross[:-1].addr_(feature, target, alpha=-count)
        own, found = gram.diagonal().clone(), []
        for ridge in ridges:
            gram.diagonal().copy_(own * (1 + ridge) + own.mean() * 1e-9)  # some features may be the same everywhere
            whole = torch.cholesky_solve(cross, torch.linalg.cholesky(gram))
            found.append((whole.cpu(), (target - (feature + self.origin.to(feature)) @ whole).cpu()))
        return found
