"""What heads that compare are fitted to: images with changed copies of them, what of these is alike, and what is not.

docs/measurements/comparing.md has the measurements that chose the changes.
"""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..guidance import energies
from ..images.copies import recolored, similarity
from ..images.resize import size_of

POINTS = 1024   # places that are compared, of each image at each band of noise
WITHIN = 0.06   # of the image: a point that is nearer than this to its place is found
RARELY = 2.33   # standard deviations that chance exceeds once in a hundred times


@dataclass(frozen=True, eq=False)
class Comparison:
    """An image, one that is like it and, unless points are compared, one that is not: `images` [2 or 3, C, H, W]. `points` [2, P, 2]
    (x, y), in shares of the image, show the same in the first two."""
    images: Tensor
    points: Tensor | None = None


class Correspondence:
    """Points are alike that are of the same thing, wherever it is and in whatever colors. Copies are not mirrored, which would teach
    that a left hand is a right one.

    A head of so many `outputs` is judged by a `measure`: it should act from the share `acts` on, and is good from `good`."""

    measure, chance, acts, good, outputs = "fraction of points found", 0.01, 0.1, 0.5, 128

    def comparison(self, image: Tensor, other: Tensor, rng: torch.Generator) -> Comparison:
        """Of `image` [1, 3, H, W], 0 to 1, with changed copies of itself; `other` is another image of its size."""
        way, here = similarity(rng, 25, 1.3, 0.15, flip=False), torch.rand(POINTS, 2, generator=rng)
        there = way.of(here, size_of(image))
        inside = ((there > 0) & (there < 1)).all(1)
        return Comparison(torch.cat([image, recolored(way.copy(image), rng, 0, 180, 1.3)]), torch.stack([here[inside], there[inside]]))

    def rows(self, maps: Tensor, points: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Features [P, F] of places of the image, of what is like them and of what is not, by the features `maps` [2 or 3, F, h, w] of
        a comparison."""
        here, there = energies.at(maps, points.to(maps.device))
        return here, there, there[torch.randperm(len(there), generator=rng).to(maps.device)]

    def overall(self, shares: Sequence[float]) -> float:
        """By the shares in all bands of noise: that in the best one, which chance does not reach."""
        return max(shares)

    def shown(self, share: float, count: int) -> bool:
        """Whether `count` comparisons of each band can show that so much is more than chance."""
        return True

    def right(self, readout: Tensor, points: Tensor) -> float:
        """Share of the points that are found in the second image by the best cosine of all pixels, by a head's readouts [2 or 3, C, h, w]."""
        height, width = readout.shape[-2:]
        here, other = energies.at(readout[:1], points[:1])[0], F.normalize(readout[1], dim=0)
        best = (here @ other.flatten(1)).argmax(1)
        place = torch.stack([(best % width + 0.5) / width, (best // width + 0.5) / height], -1)
        return ((place - points[1]).norm(dim=-1) <= WITHIN).float().mean().item()


class Triplet:
    """Whole images are compared. `right` is 1 where the head orders three of them rightly, else 0."""

    measure, chance, acts, good = "fraction of triplets in the right order", 0.5, 0.65, 0.85
    energy: Callable[[Tensor, Tensor, Tensor], Tensor]  # what guidance will use the head with

    def overall(self, shares: Sequence[float]) -> float:
        """All bands count: the best of five would praise chance."""
        return sum(shares) / len(shares)

    def shown(self, share: float, count: int) -> bool:
        """A head that orders them by chance is so good in one of a hundred cases, also where it is right or wrong in all bands alike."""
        return share >= self.chance + RARELY * 0.5 / math.sqrt(count)

    def right(self, readout: Tensor, points: Tensor | None) -> float:
        one = readout.new_ones(1)
        like, unlike = (self.energy(readout[:1], readout[k:k + 1], one) for k in (1, 2))
        return float(like < unlike)


class Appearance(Triplet):
    """A place looks alike when everything has moved a little, and not in other colors."""

    energy, outputs = staticmethod(energies.appearance), 64

    def comparison(self, image: Tensor, other: Tensor, rng: torch.Generator) -> Comparison:
        near = similarity(rng, 8, 1.1, 0.06, flip=False).copy(image)
        return Comparison(torch.cat([image, near, recolored(image, rng, 60, 180, 1.0)]))

    def rows(self, maps: Tensor, points: Tensor | None, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        some = torch.randperm(maps[0, 0].numel(), generator=rng)[:POINTS].to(maps.device)
        one, like, unlike = maps.flatten(2)[:, :, some].mT
        return one, like, unlike


class Identity(Triplet):
    """What is in the middle of an image is the same one when it is turned, scaled, shifted and mirrored on the ground of another image,
    and not in other colors on its own ground."""

    energy, outputs = staticmethod(energies.identity), 4  # more of them fit the few images and no others

    def comparison(self, image: Tensor, other: Tensor, rng: torch.Generator) -> Comparison:
        middle = box(size_of(image), *(0.4 + 0.3 * torch.rand(2, generator=rng)).tolist())
        way = similarity(rng, 10, 1.2, 0.12, flip=True)
        elsewhere = torch.lerp(other, way.copy(image), way.copy(middle))
        return Comparison(torch.cat([image, elsewhere, torch.lerp(image, recolored(image, rng, 60, 180, 1.0), middle)]))

    def rows(self, maps: Tensor, points: Tensor | None, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        one, like, unlike = maps.mean((2, 3))[:, None]
        return one, like, unlike


def box(size: tuple[int, int], high: float, wide: float) -> Tensor:
    """[1, 1, H, W]: 1 in the middle, in these shares of the height and of the width, 0 around it."""
    rows, columns = (((torch.arange(n) + 0.5) / n - 0.5).abs() < share / 2 for n, share in zip(size, (high, wide)))
    return (rows[:, None] & columns)[None, None].float()


RULES = {"correspondence": Correspondence(), "appearance": Appearance(), "identity": Identity()}
