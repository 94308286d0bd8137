"""Guidance: from targets and features to the gradient that moves a picture towards them."""
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from . import energies, targets
from .head import ReadoutHead
from .taps import Reading

Box = tuple[float, float, float, float]  # left, top, width, height, in shares of the picture
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """Something to steer towards, and when it acts. Its subclasses say what is compared with what."""
    name: str               # in the trace
    head: ReadoutHead
    weight: float = 1.0
    start: float = 0.0      # share of the noise schedule at which it begins to act
    end: float = 0.5        # and at which it stops
    reference: Any = None   # what the caller reads with the same head, for targets that compare with another picture
    size: tuple[int, int] | None = None  # (H, W) of the readout, once known
    published_weight: ClassVar[float] = 1.0  # of its energy among others, in the authors' configurations

    def at(self, size: tuple[int, int], device: torch.device) -> "Target":
        """The same target made ready for latents of `size` (H, W)."""
        size = max(1, size[0] // self.head.stride), max(1, size[1] // self.head.stride)
        return replace(self, size=size, **self.fitted(size, device))

    def fitted(self, size: tuple[int, int], device: torch.device) -> dict[str, Any]:
        """What changes of the target when it is compared with readouts of `size` (H, W)."""
        return {name: mask_at(mask, size, device) for name in ("mask", "reference_mask")
                if (mask := getattr(self, name, None)) is not None}

    def energy(self, readout: Tensor, span: Tensor, reference: Tensor | None) -> Tensor:
        """[B], lower is better, of `readout` [B, C, H, W]; `reference` is the reference's readout, likewise."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, kw_only=True)
class Spatial(Target):
    """A picture of what the head should read."""
    image: Tensor               # [N, 3, h, w], 0 to 1
    mask: Tensor | None = None  # [M, 1, h, w], 0 to 1: where; everywhere if None
    published_weight: ClassVar[float] = 0.5

    def fitted(self, size, device):
        image = targets.to_range(targets.fit(self.image.float(), size), self.head.control_range)
        return super().fitted(size, device) | {"image": image.to(device)}

    def energy(self, readout, span, reference):
        image, mask = (repeat(x, len(readout)) for x in (self.image, self.mask))
        return energies.spatial(readout, image, span, self.head.control_range, mask)


@dataclass(frozen=True, eq=False, kw_only=True)
class Likeness(Target):
    """What is in a reference, or in a part of it, should be in the picture, or in a part of it."""
    mask: Tensor | None = None            # [M, 1, h, w], 0 to 1: where in the picture being made
    reference_mask: Tensor | None = None  # and where in the reference
    box: Box = WHOLE                      # likewise
    reference_box: Box = WHOLE


@dataclass(frozen=True, eq=False, kw_only=True)
class Appearance(Likeness):
    """The looks of the reference, pixel by pixel; its box is laid over the picture's."""

    def energy(self, readout, span, reference):
        mask, other = (repeat(x, len(readout)) for x in (self.mask, self.reference_mask))
        if self.box != self.reference_box:
            reference = moved(reference, self.reference_box, self.box)
            other = None if other is None else moved(other, self.reference_box, self.box)
        if other is not None:
            mask = other if mask is None else mask * other
        return energies.appearance(readout, reference, span, boxed(mask, self.box, readout))


@dataclass(frozen=True, eq=False, kw_only=True)
class Identity(Likeness):
    """Who is in the reference, wherever they stand."""

    def energy(self, readout, span, reference):
        mask, other = (repeat(x, len(readout)) for x in (self.mask, self.reference_mask))
        return energies.identity(readout, reference, span, boxed(mask, self.box, readout),
                                 boxed(other, self.reference_box, reference))


@dataclass(frozen=True, eq=False, kw_only=True)
class Drag(Target):
    """Points of the reference should be elsewhere."""
    paths: Tensor                       # [K, F, 2]: (x, y) in shares of the picture, from where a point is to where it goes
    stops: tuple[float, ...] = (1.0,)   # for each picture of the batch, how far along the paths it goes
    mask: Tensor | None = None          # [M, 1, h, w], 0 to 1: what may change; elsewhere the caller follows the reference
    points: tuple[Tensor, ...] = ()     # start, end [N, K, 2] and counts [N, K], once ready

    def fitted(self, size, device):
        ends = torch.stack([along(self.paths, stop) for stop in self.stops])
        start = self.paths[:, 0].expand_as(ends)
        counts = ((ends - start).norm(dim=-1) > 0).float()
        return {"points": tuple(p.to(device) for p in (start, ends, counts))}

    def energy(self, readout, span, reference):
        return energies.correspondence(readout, reference, *(repeat(p, len(readout)) for p in self.points))


def along(paths: Tensor, share: float) -> Tensor:
    """Where the points [K, 2] are after this share of the steps of `paths` [K, F, 2]."""
    place = share * (paths.shape[1] - 1)
    step = min(int(place), paths.shape[1] - 2)
    return torch.lerp(paths[:, step], paths[:, step + 1], place - step)


def mask_at(mask: Tensor, size: tuple[int, int], device: torch.device) -> Tensor:
    """`mask` [M, 1, h, w] as large as `size` (H, W)."""
    return targets.fit(mask.float(), size).clamp(0, 1).to(device)


def boxed(mask: Tensor | None, box: Box, like: Tensor) -> Tensor | None:
    """`mask` [B, 1, H, W] within `box` only, a pixel counting by the share of it that is inside; as large as `like`."""
    if box == WHOLE:
        return mask
    height, width = like.shape[-2:]
    covers = []
    for length, low, extent in ((height, box[1], box[3]), (width, box[0], box[2])):
        edge = (torch.arange(length + 1, device=like.device) / length).clamp(low, low + extent)
        covers.append(edge.diff() * length)
    inside = (covers[0][:, None] * covers[1])[None, None]
    return inside if mask is None else mask * inside


def moved(x: Tensor, source: Box, to: Box) -> Tensor:
    """`x` [B, C, H, W] with what is in the box `source` in the box `to`, and the rest along with it."""
    theta = torch.zeros(2, 3, device=x.device)
    for axis in (0, 1):
        scale = source[axis + 2] / to[axis + 2]
        theta[axis, axis] = scale
        theta[axis, 2] = 2 * (source[axis] - to[axis] * scale) + scale - 1
    grid = F.affine_grid(theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def repeat(x: Tensor | None, batch: int) -> Tensor | None:
    """`x` [N, ...] repeated from its start, or cut, to [batch, ...]."""
    return None if x is None else x[torch.arange(batch, device=x.device) % len(x)]


def pull(reading: Reading, active: Sequence[Target], span: Tensor, references: Sequence[Tensor | None],
         balanced: bool = True) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """What pulls at the taps of B pictures, and how hard: the joint gradient of the `active` targets' energies.

    `reading` has features of the pictures, whose VP-scaled latents have the range `span` [B]; `references` are the readouts
    [R, C, H, W] that the targets are compared with, None for those that need none. The targets were prepared by
    `Target.at`. Returns the gradients over their size, shaped like the features and in their dtype, the energies [B] of
    each target, and the size [B]: the gradient at a tap is the product. Numbers near 1 survive half precision.

    Heads differ in the size of their gradients by orders of magnitude. `balanced`, each target's is brought to the same
    size at the taps, per picture: its root mean square over all taps is the target's weight, which keeps weights comparable,
    and the size is 1. Otherwise the energies add as they are, with the published weights beside the targets' own. Either way
    there is one pass back through the heads for each target but only one through the model.
    """
    batch = reading.features[0].shape[0]
    features = [f.detach().float().requires_grad_() for f in reading.features]
    emb = reading.emb.detach().float()
    total = [torch.zeros_like(f) for f in features]
    values = []
    for target, reference in zip(active, references, strict=True):
        readout = target.head(features, emb, target.size)
        energy = target.energy(readout, span, repeat(reference, batch))
        gradient = torch.autograd.grad(energy.sum(), features)
        scale = target.weight / magnitude(gradient) if balanced else torch.full_like(span, target.weight * target.published_weight)
        for t, g in zip(total, gradient):
            t += g * scale.view(-1, 1, 1, 1)
        values.append(energy.detach())
    whole = torch.ones_like(span) if balanced else magnitude(total)
    return [(t / whole.view(-1, 1, 1, 1)).to(f.dtype) for t, f in zip(total, reading.features)], values, whole


def magnitude(gradient: Sequence[Tensor]) -> Tensor:
    """The root mean square [B] of each picture over all of `gradient`, [B, ...] each."""
    squares = sum(g.flatten(1).square().sum(1) for g in gradient)
    return (squares / sum(g[0].numel() for g in gradient)).sqrt().clamp(min=1e-30)
