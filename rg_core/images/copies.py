"""Copies of images, changed in ways that are known: turned, scaled, shifted, mirrored, in other colors."""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .resize import size_of


@dataclass(frozen=True, eq=False)
class Similarity:
    """Where things of an image are in its copy: turned, scaled and mirrored by `matrix` [2, 2] about the middle, then shifted by
    `shift` [2] (x, y). Both are in units of the image's shorter side."""
    matrix: Tensor
    shift: Tensor

    def of(self, points: Tensor, size: tuple[int, int]) -> Tensor:
        """Where `points` [P, 2] (x, y) of an image of `size` (H, W) are, both in shares of the image."""
        unit = units(size)
        return ((points - 0.5) * unit @ self.matrix.mT + self.shift) / unit + 0.5

    def copy(self, image: Tensor) -> Tensor:
        """The copy of `image` [1, C, H, W]; what lies beyond the image's edges is mirrored."""
        size = size_of(image)
        unit, back = units(size), torch.linalg.inv(self.matrix)
        places = ((centres(size) - 0.5) * unit - self.shift) @ back.mT / unit + 0.5
        return F.grid_sample(image, (places * 2 - 1).view(1, *size, 2), padding_mode="reflection", align_corners=False)


def similarity(rng: torch.Generator, turn: float, scale: float, shift: float, flip: bool) -> Similarity:
    """One at random: turned by up to `turn` degrees, scaled by up to `scale` or its inverse, shifted by up to `shift` of the shorter
    side each way, and mirrored half of the time where it may `flip`."""
    angle, size, x, y = (2 * torch.rand(4, generator=rng) - 1).tolist()
    mirror = -1.0 if flip and torch.rand((), generator=rng) < 0.5 else 1.0
    sine, cosine = math.sin(math.radians(turn * angle)), math.cos(math.radians(turn * angle))
    return Similarity(torch.tensor([[mirror * cosine, -sine], [mirror * sine, cosine]]) * scale**size, torch.tensor([x, y]) * shift)


def recolored(image: Tensor, rng: torch.Generator, least: float, most: float, gain: float) -> Tensor:
    """`image` [B, 3, H, W], 0 to 1, in other colors: turned about the grey axis by `least` to `most` degrees either way, and each
    channel times up to `gain` or its inverse."""
    share, way = torch.rand(2, generator=rng).tolist()
    angle = math.radians(least + (most - least) * share) * (1 if way < 0.5 else -1)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turn = torch.eye(3) * math.cos(angle) + (1 - math.cos(angle)) / 3 + math.sin(angle) * cross  # Rodrigues' formula
    gains = gain ** (2 * torch.rand(3, 1, generator=rng) - 1)
    return torch.einsum("oc,bchw->bohw", gains * turn, image).clamp(0, 1)


def units(size: tuple[int, int]) -> Tensor:
    """(width, height) of an image in units of its shorter side."""
    return torch.tensor([size[1], size[0]]) / min(size)


def centres(size: tuple[int, int]) -> Tensor:
    """The pixels' centres [H * W, 2] (x, y) of an image, in shares of it."""
    rows, columns = ((torch.arange(n) + 0.5) / n for n in size)
    return torch.stack([columns.repeat(size[0]), rows.repeat_interleave(size[1])], -1)
