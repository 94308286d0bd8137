"""Guidance: from targets and features to the gradient that moves a picture towards them."""
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import energies, targets
from .head import ReadoutHead
from .taps import Reading


@dataclass(frozen=True, eq=False)
class Target:
    """Something to steer towards, and when and where it acts."""
    name: str
    head: ReadoutHead
    image: Tensor               # [N, 3, h, w], 0 to 1: what the head should read
    mask: Tensor | None = None  # [M, 1, h, w], 0 to 1: where it should read it; everywhere if None
    weight: float = 1.0
    start: float = 0.0          # share of the noise schedule at which it begins to act
    end: float = 0.5            # and at which it stops

    def at(self, size: tuple[int, int], device: torch.device) -> "Target":
        """The same target for latents of `size` (H, W): in the head's control range and as large as its readout."""
        size = tuple(max(1, length // self.head.stride) for length in size)
        image = targets.to_range(targets.fit(self.image.float(), size), self.head.control_range).to(device)
        mask = None if self.mask is None else targets.fit(self.mask.float(), size).clamp(0, 1).to(device)
        return replace(self, image=image, mask=mask)


def repeat(x: Tensor, batch: int) -> Tensor:
    """`x` [N, ...] repeated from its start, or cut, to [batch, ...]."""
    return x[torch.arange(batch, device=x.device) % len(x)]


def pull(reading: Reading, active: Sequence[Target], span: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The energies of `active` targets and their joint gradient at the taps.

    `reading` has features of n * B pictures: n conditionings that see the same B latents, whose VP-scaled range is
    `span` [B]. The targets were prepared by `Target.at`. Returns the gradients, shaped like the features and in their
    dtype, and the energies [n * B] of each target.

    Heads differ in the size of their gradients by orders of magnitude, so each target's is brought to the same size at
    the taps, per picture: its root mean square over all taps is the target's weight. That keeps weights comparable,
    costs one pass back through the heads for each target but only one through the model, and leaves numbers near 1,
    which survive half precision.
    """
    batch = reading.features[0].shape[0]
    features = [f.detach().float().requires_grad_() for f in reading.features]
    emb, span = reading.emb.detach().float(), repeat(span, batch)
    total = [torch.zeros_like(f) for f in features]
    values = []
    for target in active:
        image = repeat(target.image, batch)
        mask = None if target.mask is None else repeat(target.mask, batch)
        readout = target.head(features, emb, tuple(image.shape[-2:]))
        energy = energies.spatial(readout, image, span, target.head.control_range, mask)
        gradient = torch.autograd.grad(energy.sum(), features)
        squares = sum(g.flatten(1).square().sum(1) for g in gradient)
        count = sum(g[0].numel() for g in gradient)
        scale = target.weight / (squares / count).sqrt().clamp(min=1e-30)
        for t, g in zip(total, gradient):
            t += g * scale.view(-1, 1, 1, 1)
        values.append(energy.detach())
    return [t.to(f.dtype) for t, f in zip(total, reading.features)], values
