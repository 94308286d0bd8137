"""From targets and features to the gradient that moves a picture towards them."""
from collections.abc import Sequence

import torch
from torch import Tensor

from .regions import repeat
from .taps import Reading
from .targets import Target


def at_taps(reading: Reading, targets: Sequence[Target], span: Tensor, references: Sequence[Tensor | None],
            balanced: bool = True) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """What pulls at the taps of B pictures, and how hard: the joint gradient of the `targets`' energies.

    `reading` has features of the pictures, whose VP-scaled latents have the range `span` [B]; `references` are the readouts
    [R, C, H, W] that the targets are compared with, None for those that need none. The targets were prepared by
    `Target.at`. Returns the gradients over their size, shaped like the features and in their dtype, the energies [B] of
    each target, and the size [B]: the gradient at a tap is the product. Numbers near 1 survive half precision.

    Heads differ in the size of their gradients by orders of magnitude. `balanced`, each target's is brought to the same
    size at the taps, per picture: its root mean square over all taps is the target's weight, times its force, which keeps
    weights comparable, and the size is 1. Otherwise the energies add as they are, with the published weights beside the targets' own. Either way
    there is one pass back through the heads for each target but only one through the model.
    """
    batch = reading.features[0].shape[0]
    features = [f.detach().float().requires_grad_() for f in reading.features]
    emb = reading.emb.detach().float()
    total, values = None, []
    for target, reference in zip(targets, references, strict=True):
        readout = target.head(features, emb, target.size)
        energy = target.energy(readout, span, repeat(reference, batch))
        gradient = torch.autograd.grad(energy.sum(), features)
        scale = target.force(energy.detach()) / magnitude(gradient) if balanced else torch.full_like(span, target.published_weight)
        gradient = [g * (target.weight * scale).view(-1, 1, 1, 1) for g in gradient]
        total = gradient if total is None else [t.add_(g) for t, g in zip(total, gradient)]
        values.append(energy.detach())
    whole = torch.ones_like(span)
    if not balanced:
        whole = magnitude(total)
        total = [t.div_(whole.view(-1, 1, 1, 1)) for t in total]
    return [t.to(f.dtype) for t, f in zip(total, reading.features)], values, whole


def magnitude(gradient: Sequence[Tensor]) -> Tensor:
    """The root mean square [B] of each picture over all of `gradient`, [B, ...] each."""
    squares = sum(torch.linalg.vector_norm(g.flatten(1), dim=1).square() for g in gradient)
    return (squares / sum(g[0].numel() for g in gradient)).sqrt().clamp(min=1e-30)
