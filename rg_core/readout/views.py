"""What targets want, what is read, and where they pull, as images to look at."""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.resize import resize


@dataclass(frozen=True)
class View:
    """What one target saw of B images in one step. `wanted` and `read` are [B or 1, 1 or 3, h, w] in 0 to 1, or latents [B or 1, C, h, w] if they
    are `latent`; None where the target has nothing to show. `pull` [B, 1, h, w] is how hard it pulled at each place, 0 or more, over its mean."""
    name: str
    energy: Tensor  # [B]
    wanted: Tensor | None
    read: Tensor | None
    pull: Tensor
    latent: bool = False


def pull(gradient: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """How hard a `gradient`, of each tap [B, C_l, h_l, w_l], pulls at each place: [B, 1, *size], its norm over all channels of all taps, over
    the mean of that over the image."""
    squares = reduce(add, (resize(g.float().square().sum(1, keepdim=True), size) for g in gradient))
    strength = squares.clamp(min=0).sqrt()
    return strength / strength.mean((2, 3), keepdim=True).clamp(min=1e-30)


def agreement(one: Tensor, other: Tensor) -> Tensor:
    """The cosine between `one` [B, C, h, w] and `other`, of the same shape or that of one place, moved to 0 to 1: [B, 1, h, w]."""
    return (1 + torch.cosine_similarity(one, other.expand_as(one))[:, None]) / 2


def found(readout: Tensor, wanted: Tensor) -> Tensor:
    """Where in `readout` [B, C, h, w] what is most like each of `wanted` [B, K, C] is: (x, y) in shares of the image, [B, K, 2]."""
    height, width = readout.shape[-2:]
    likeness = F.normalize(wanted, dim=-1) @ F.normalize(readout.flatten(2), dim=1)
    at = likeness.argmax(-1)
    return torch.stack([(at % width + 0.5) / width, (at // width + 0.5) / height], -1)


def dots(points: Tensor, counts: Tensor, size: tuple[int, int]) -> Tensor:
    """The `points` [B, K, 2] (x, y), shares of the image, that count (`counts` [B, K] is 1): white dots on black, [B, 1, *size]."""
    height, width = size
    x = torch.arange(width, device=points.device) + 0.5 - points[..., 0, None] * width
    y = torch.arange(height, device=points.device) + 0.5 - points[..., 1, None] * height
    near = torch.hypot(x[..., None, :], y[..., None]) < max(0.75, 0.03 * min(size))
    return (near & (counts > 0)[..., None, None]).any(1, keepdim=True).float()
