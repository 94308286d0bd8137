"""One call of the model."""
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import comfy.model_management
import comfy.model_sampling
import torch
from torch import Tensor

from ...rg_core import taps
from ...rg_core.recompute import computed_again
from .conditioning import by_hooks, parts, still
from .gradients import differentiable, lenient, readable, with_gradients

Pull = Callable[[taps.Reading], tuple[list[Tensor], Tensor]]


@dataclass(frozen=True, eq=False)
class Step:
    """A picture at a noise level, and how the host asks its model about it; nothing of it changes.

    `x` [B, C, H, W] is in the sampler's scale, `timestep` [B] are sigmas. `ask` is the host's calc_cond_batch, or what wraps
    it, `model` its BaseModel and `options` its model_options. `place` is that of a conditioning among the branches of this
    call (conditional, unconditional, ...), by which patches tell them apart.
    """
    ask: Callable
    model: torch.nn.Module
    x: Tensor
    timestep: Tensor
    options: dict
    place: int = 0

    @cached_property
    def sigma(self) -> float:
        return float(self.timestep.max())

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the latents."""
        return tuple(self.x.shape[-2:])

    @property
    def scale(self) -> float:
        """What the sampler's latents are larger by than those of a variance-preserving model."""
        return latent_scale(self.model, self.sigma)

    def at(self, x: Tensor) -> "Step":
        """The same call for other latents, [R, C, H, W], all at this step's noise level."""
        return replace(self, x=x, timestep=self.timestep[:1].expand(len(x)))

    def beside(self, conds: list[dict], branches: list) -> "Step":
        """The same call, looking at what stands where `conds` stand among `branches`."""
        return replace(self, place=next((i for i, branch in enumerate(branches) if branch is conds), 0))

    def parts(self, conds: list[dict]) -> dict:
        return parts(conds, self.x, self.timestep)

    def predictions(self, branches: list[list[dict] | None], x: Tensor | None = None) -> list[Tensor]:
        """What the model predicts for each of `branches`, as the host asks."""
        return self.ask(self.model, branches, self.x if x is None else x, self.timestep, self.options)

    def look(self, conds: list[dict], among: list[dict] | None = None) -> tuple[Tensor, taps.Reading]:
        """What the model predicts for `conds`, and their reading of the whole picture; their part of it, if they are some
        `among` others. At least one of `conds` acts at this timestep."""
        with taps.record(self.model.diffusion_model) as readings:
            branches = [None] * self.place + [conds]
            predicted = self.ask(self.model, branches, self.x, self.timestep.clone(), readable(self.options))[self.place]
        comfy.model_management.throw_exception_if_processing_interrupted()
        areas = self.parts(among or conds)
        pieces = []
        for reading in readings:
            labels = reading.options["uuids"]
            pieces += zip(zip(*(f.chunk(len(labels)) for f in reading.features)), (areas[label] for label in labels))
        return predicted, taps.Reading(readings[0].emb[:len(self.x)], taps.blended(pieces, self.size))

    def gradient(self, conds: list[dict], pull: Pull, again: bool = False) -> tuple[Tensor, Tensor]:
        """The prediction for `conds`, and the gradient with respect to `x` of what pulls at the taps; both [B, C, H, W].
        `pull(reading)` returns its gradients at the taps over their size, and that size [B]. `again` computes the model's
        blocks again in the backward pass, instead of keeping all that they computed."""
        conds, options = still(conds), with_gradients(self.options)
        blocks = taps.blocks(self.model.diffusion_model) if again else []
        with differentiable(self.model):
            seeing = lenient(self.model, conds, options)
            with seeing(), computed_again(blocks, seeing):
                return replace(self, x=self.x.clone().requires_grad_(), options=options).pulled(conds, pull)

    def pulled(self, conds: list[dict], pull: Pull) -> tuple[Tensor, Tensor]:
        """`gradient`, where autograd can see through everything."""
        acting = self.parts(conds)
        groups = by_hooks([c for c in conds if c["uuid"] in acting])
        with torch.set_grad_enabled(len(groups) == 1):
            predicted, reading = self.look(conds)
        at_taps, size = pull(reading)
        gradient = torch.zeros_like(self.x)
        for group in groups:  # forward and backward with the same weights
            if len(groups) > 1:
                _, reading = self.look(group, among=conds)
            gradient += torch.autograd.grad(reading.features, self.x, at_taps)[0].float() * size.view(-1, 1, 1, 1)
        return predicted.detach(), gradient


def latent_scale(model, sigma: float) -> float:
    """What the sampler's latents are larger by than those of a variance-preserving model; flow models keep theirs."""
    return 1.0 if isinstance(model.model_sampling, comfy.model_sampling.CONST) else math.sqrt(1 + sigma**2)
