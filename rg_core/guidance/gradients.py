"""From targets and features to the gradient that moves an image towards them."""
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor

from ..features.taps import Reading
from ..images.regions import repeat
from ..images.resize import size_of
from ..readout.views import View, pull
from .targets import Target


class EnergyError(ValueError):
    """The energy of somebody's own target is not what an energy has to be (docs/own_targets.md)."""


def at_taps(reading: Reading, targets: Sequence[Target], span: Tensor, references: Sequence[Tensor | None],
            balanced: bool = True, views: list[View] | None = None) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """What pulls at the taps of B images, and how hard: the joint gradient of the `targets`' energies.

    `reading` has features of the images, whose VP-scaled latents have the range `span` [B]; `references` are the readouts
    [R, C, H, W] that the targets are compared with, None for those that need none. The targets were prepared by
    `Target.prepared`. Returns the gradients over their size, shaped like the features and in their dtype, the energies [B] of
    each target, and the size [B]: the gradient at a tap is the product. Numbers near 1 survive half precision.

    Heads differ in the size of their gradients by orders of magnitude. `balanced`, each target's is brought to the same
    size at the taps, per image: its root mean square over all taps that its head reads is the target's weight, times its force, which keeps
    weights comparable, and the size is 1. Otherwise the energies add as they are, with the published weights beside the targets' own. Either way
    there is one pass back through the heads for each target but only one through the model.

    What there is to look at of each target is added to `views`, if that is given.
    """
    batch = reading.features[0].shape[0]
    features = [f.detach().float().requires_grad_() for f in reading.features]
    emb = reading.embedding().detach().float()
    total, values = [torch.zeros_like(f) for f in features], []
    for target, reference in zip(targets, references, strict=True):
        head, size = target.head, target.size
        if head is None or size is None:
            raise ValueError(f"the {target.name} target has no head, or was not prepared for a size")
        places = reading.places(head)
        own = [features[i] for i in places]
        readout, reference = head(own, emb, size), repeat(reference, batch)
        energy, gradient = differentiated(target, readout, span, reference, own, not balanced)
        if views is not None:
            views.append(View(target.name, energy, *target.view(readout.detach(), reference), pull(gradient, size)))
        scale = target.pull_share(energy) / magnitude(gradient) if balanced else torch.full_like(span, target.published_weight)
        for i, g in zip(places, gradient):
            total[i] += g * (target.weight * scale).view(-1, 1, 1, 1)
        values.append(energy.detach())
    whole = torch.ones_like(span)
    if not balanced:
        whole = magnitude(total)
        total = [t.div_(whole.view(-1, 1, 1, 1)) for t in total]
    return [t.to(f.dtype) for t, f in zip(total, reading.features)], values, whole


def at_prediction(predicted: Tensor, seen: Callable[[Tensor], Tensor], targets: Sequence[Target], span: Tensor,
                  references: Sequence[Tensor | None], views: list[View] | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """The gradient [B, C, H, W] of the energy of each of `targets` with respect to what a model has `predicted` [B, C, H, W], and
    the energies [B]. `seen(predicted)` is what the targets see of it, and of their `references`. Nothing goes back through the model.
    What there is to look at of each target is added to `views`, if that is given."""
    gradients, values = [], []
    for target, reference in zip(targets, references, strict=True):
        x = predicted.detach().float().requires_grad_()
        readout, reference = seen(x), None if reference is None else repeat(seen(reference.float()), len(x))
        energy, (gradient,) = differentiated(target, readout, span, reference, [x])
        if views is not None:
            pulled = pull([gradient.flatten(1, -3)], size_of(gradient))
            views.append(View(target.name, energy, *target.view(readout.detach(), reference), pulled, latent=True))
        if (energy < 0).any():
            raise EnergyError(f"the energy of the {target.name} target is {energy.min().item():.3g}, but without a head it must be 0 where nothing "
                              "is left to do, and never less. Its author must add what is missing.")
        if torch.isfinite(predicted).all() and not (torch.isfinite(energy).all() and torch.isfinite(gradient).all()):
            raise EnergyError(f"the energy of the {target.name} target, or its gradient, is NaN or infinite, although the image is not. A square "
                              "root or a norm has no gradient at 0; its author must avoid it, or keep away from 0.")
        gradients.append(gradient)
        values.append(energy)
    return gradients, values


def differentiated(target: Target, readout: Tensor, span: Tensor, reference: Tensor | None, inputs: Sequence[Tensor],
                   published: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The energy [B] of `target`, or its `published` one, and its gradient with respect to `inputs`, of which `readout` is made."""
    energy = (target.published if published else target.energy)(readout, span, reference)
    if not isinstance(energy, Tensor) or energy.shape != span.shape:
        given = f"of shape {tuple(energy.shape)}" if isinstance(energy, Tensor) else f"a {type(energy).__name__}"
        raise EnergyError(f"the energy of the {target.name} target is {given}, but must be one number for each of {len(span)} images, of shape "
                          f"{tuple(span.shape)}. Its author must fix this.")
    if not energy.requires_grad:
        raise EnergyError(f"the energy of the {target.name} target does not depend on its input in a way that has a gradient. Its author must "
                          "compute it with torch, without detach, no_grad or argmax.")
    return energy.detach(), torch.autograd.grad(energy.sum(), inputs, materialize_grads=True)  # a head may leave out some of them


def magnitude(gradient: Sequence[Tensor]) -> Tensor:
    """The root mean square [B] of each image over all of `gradient`, [B, ...] each."""
    squares = reduce(add, (torch.linalg.vector_norm(g.flatten(1), dim=1).square() for g in gradient))
    return (squares / sum(g[0].numel() for g in gradient)).sqrt().clamp(min=1e-30)
