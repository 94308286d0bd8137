"""The targets of one run: which act when, made ready for the latents at hand."""
from dataclasses import fields, replace

import torch
from torch import Tensor

from ...rg_core.features import taps
from ...rg_core.features.raw_features import Features
from ...rg_core.guidance.targets import Target
from ...rg_core.guidance.updates import Move
from ...rg_core.images.regions import mask_at, repeat
from ..common.latents import one_frame
from ..common.log import Log
from .autograd.inference_tensors import as_normal_tensors
from .schedule.landing import Landing
from .schedule.moves import Moves, planned
from .schedule.noise_levels import at_percent, known_range, prediction_scale
from .step import Step

ELSEWHERE = 0.7  # over the noise: with the same noise an empty latent is less than 0.2 away, other noise is 1.4 away
CUT = 0.1  # fraction of a target's image that may be left out without a warning


def as_normal(target: Target) -> Target:
    """`target` with tensors that autograd accepts in its fields."""
    given = {field.name: getattr(target, field.name) for field in fields(target) if field.init}
    return replace(target, **{name: as_normal_tensors(x) for name, x in given.items() if isinstance(x, Tensor)})


class RunTargets:
    """`all` targets of a run; those that are `masked` keep the rest of the image as their reference is."""

    def __init__(self, targets: tuple[Target, ...], log: Log):
        self.all, self.masked, self.log = targets, [t for t in targets if t.edit_mask is not None], log
        self.prepared: dict[tuple, Target] = {}          # for the sizes of latents that this run has seen
        self.edit_masks: dict[tuple, list[Tensor]] = {}  # likewise
        self.ranges: tuple | None = None

    def warn_of_batch_mismatch(self, batch: int) -> None:
        """Says which targets are for more images than the `batch` that is sampled."""
        for target in self.all:
            followed = 1 if target.reference is None else target.reference.trajectory.latents.shape[1]
            for what, count in ((f"the {target.name} target", target.count), (f"the reference of the {target.name} target", followed)):
                if count > batch:
                    self.log.warn(f"{what} is for {count} images, but {batch} {'is' if batch == 1 else 'are'} sampled at a time, so only what it has "
                                  f"for the first {'one' if batch == 1 else batch} is used. If part of a batch is sampled (Latent From Batch, "
                                  "Rebatch Latents), make it from the same part.")

    def warn_of_other_noise(self, x: Tensor, sigma: float) -> None:
        """Says, at a run's begin with the latents `x` [B, C, H, W], which targets have a reference that begins elsewhere: they move what is another
        image."""
        for target in self.all:
            if not target.same_noise or target.reference is None or target.reference.trajectory.size != x.shape[-2:]:
                continue
            latent, clean = (one_frame(part.to(x)) for part in target.reference.trajectory.segment(sigma))
            away = (one_frame(x) - repeat(latent, len(x))).flatten(1).norm(dim=1) / repeat(latent - clean, len(x)).flatten(1).norm(dim=1)
            if away.min() > ELSEWHERE:
                self.log.warn(f"this run does not begin with the noise of the {target.name} target's reference, so it makes another image than "
                              "that one. Give both samplers the same seed, for example by one Int node. If the reference was inverted, sample its "
                              "latent with add_noise disabled.")

    def active(self, model, landing: Landing, sigmas: Tensor, move: Move) -> tuple[list[Target], Moves | None]:
        """The targets that act at the prediction that makes this `landing` in a run of `sigmas`, and the moves that they make there. `model` is the
        host's BaseModel."""
        (_, acts, known), sigma = self.ranges_in(model.model_sampling), landing.start  # a step acts whole, its trial points too
        acting = [(t, start, end) for t, (start, end) in zip(self.all, acts) if end <= sigma <= start]
        targets = [t for t, _, _ in acting]
        if move.per_step or not targets:
            return targets, None
        if not sigma or not prediction_scale(model, sigma):  # no noise, or nothing else
            return [], None
        span = max(start for _, start, _ in acting), min(end for _, _, end in acting)
        moves = planned(model, landing, sigmas, span, known, move.moves)
        return (targets, moves) if moves.count else ([], None)

    def ranges_in(self, sampling) -> tuple:
        """The host's model_sampling, from which sigma to which each target acts in it, and the highest and lowest that it knows: asked once, for
        a card may have them."""
        if self.ranges is None or self.ranges[0] is not sampling:
            acts = [(at_percent(sampling, t.start), at_percent(sampling, t.end)) for t in self.all]
            self.ranges = sampling, acts, known_range(sampling)
        return self.ranges

    def prepare(self, target: Target, step: Step) -> Target:
        """`target` made ready for the images of this call and their size."""
        key = (target, step.size, step.x.device)
        with torch.inference_mode(False):
            if key not in self.prepared:
                # Features as they are have hardly more to compare than the model has tokens; a head knows its own size.
                smaller = max(1, taps.patch(step.model.diffusion_model) // 4) if isinstance(target.head, Features) else 1
                self.prepared[key] = as_normal(target.prepared(tuple(n // smaller for n in step.size), step.x.device))
                cropped = target.cropped_share(step.size)
                if cropped > CUT:
                    self.log.warn(f"{cropped:.0%} of the {target.name} target's input is cut off at its edges, because the image being made, "
                                  f"{step.size[1]}x{step.size[0]} latents, has another aspect ratio.")
            return self.prepared[key] if step.batch_index is None else self.prepared[key].select(step.batch_index)

    def edit_mask(self, step: Step) -> Tensor:
        """Where masked targets leave the image free, 0 to 1, for the latents of `step`."""
        key = (step.size, step.x.device)
        if key not in self.edit_masks:
            self.edit_masks[key] = [mask_at(t.edit_mask, step.size, step.x.device) for t in self.masked]
        return torch.stack([step.select_batch(mask) for mask in self.edit_masks[key]]).amax(0).unflatten(0, (len(step.x), *[1] * (step.x.ndim - 4)))
