"""One call of the model."""
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property

import comfy.model_management
import torch
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import Tensor

from ...rg_core.features import taps
from ...rg_core.features.recompute import recomputed_blocks
from ...rg_core.images.regions import of_images, repeat
from ..common.log import Log
from . import captured, other_cards
from .autograd import obstacles
from .autograd.kernels import differentiable_kernels
from .autograd.options import early_exit_options, readable_options, shared_options, with_gradients
from .autograd.saved_tensors import is_streamed, saved_tensor_context
from .autograd.witness import Witness
from .batches.windows import of_window
from .calls.conditioning import active_areas, by_hooks, nonzero_areas
from .captured import Captures
from .known import Known
from .match_features import features_by_area
from .schedule import noise_levels

Pull = Callable[[taps.Reading], tuple[list[Tensor], Tensor]]


@dataclass(frozen=True, eq=False)
class Step:
    """An image at a noise level, and how the host asks its model about it; nothing of it changes.

    `x` [B, C, H, W], or [B, C, 1, H, W] of models that make videos too, is in the sampler's scale; `timestep` [B] are sigmas.
    `calc_cond_batch` is the host's function of that name, or what wraps it, `model` its BaseModel and `options` its model_options. `cond_index` is
    the place of a conditioning among the branches of this call (conditional, unconditional, ...), by which patches tell them apart.
    `batch_index` [B] are the places in the batch of those that `x` has, None for all. `together` are all branches, where they must not be
    asked apart. `log` is for messages, `known` what was found in the model so far. `level` is the highest of `timestep`, if that is known: to read
    it, a card has to finish all that it was told.
    """
    log: Log
    calc_cond_batch: Callable
    model: torch.nn.Module
    x: Tensor
    timestep: Tensor
    options: dict
    cond_index: int = 0
    batch_index: Tensor | None = None
    together: list | None = None
    known: Known = field(default_factory=Known)
    level: float | None = None
    captures: Captures | None = None  # where forward passes and ways back are replayed

    @cached_property
    def sigma(self) -> float:
        return float(self.timestep.max()) if self.level is None else self.level

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the latents."""
        return tuple(self.x.shape[-2:])

    @property
    def latent_scale(self) -> float:
        """What the sampler's latents are larger by than those of a variance-preserving model."""
        return noise_levels.latent_scale(self.model, self.sigma)

    @property
    def batch_key(self) -> tuple[int, ...] | None:
        """`batch_index`, to know the part of the batch by."""
        return None if self.batch_index is None else tuple(self.batch_index.tolist())

    def at(self, x: Tensor) -> "Step":
        """The same call for other latents, [R, C, H, W], all at this step's noise level."""
        return replace(self, x=x, timestep=self.timestep[:1].expand(len(x)), batch_index=None)

    def select_batch(self, x: Tensor) -> Tensor:
        """`x` [N, ...], something for each image of the batch, for those of this call: [B, ...]."""
        return repeat(x, len(self.x)) if self.batch_index is None else of_images(x, self.batch_index)

    def find_branch(self, conds: list[dict], branches: list) -> list[dict]:
        """What a context window made of `conds`, if it is one of `branches`; else `conds`."""
        return next((b for b in branches if self.batch_index is not None and of_window(b, conds)), conds)

    def for_branch(self, conds: list[dict], branches: list) -> "Step":
        """The same call, looking at what stands where `conds` stand among `branches`."""
        return replace(self, cond_index=next((i for i, branch in enumerate(branches) if branch is conds), 0))

    @property
    def with_shared_options(self) -> "Step":
        """The same call as guided steps make it; see autograd.options."""
        return replace(self, options=shared_options(self.options))

    def branches_to_ask(self, conds: list[dict]) -> list[list[dict] | None]:
        """What the model is asked for where `conds` are wanted: these at their place, and the other branches where all belong together."""
        asked = [*(self.together or [None] * (self.cond_index + 1))]
        asked[self.cond_index] = conds
        return asked

    def active_areas(self, conds: list[dict]) -> dict:
        return active_areas(conds, self.x, self.timestep)

    def predictions(self, branches: list[list[dict] | None], x: Tensor | None = None) -> list[Tensor]:
        """What the model predicts for each of `branches`, as the host asks."""
        return self.calc_cond_batch(self.model, branches, self.x if x is None else x, self.timestep, self.options)

    def predict_checked(self, branches: list[list[dict] | None], x: Tensor | None = None) -> list[Tensor]:
        """`predictions` that the diffusion model was asked for, each; a guided step calls branches apart, which caches that count
        calls take for others."""
        step = self.with_shared_options
        compiled = any(COMPILE_KEY in keyed for keyed in self.options["transformer_options"].get("wrappers", {}).values())
        standing = self.known.obstacles(self.model, self.options)
        if compiled or not standing:
            with differentiable_kernels():
                return step.predictions(branches, x)
        whole = obstacles.whole_runs(self.log.node, self.model, self.options, standing)
        with taps.calls(self.model.diffusion_model) as calls, whole, differentiable_kernels():
            outs = step.predictions(branches, x)
        asked = {label for options in calls for label in options.get("uuids", ())}
        areas = {label: part for conds in branches if conds for label, part in self.active_areas(conds).items() if label not in asked}
        if nonzero_areas(areas):
            raise ValueError(obstacles.message(self.log.node, "was not called for one of the branches", self.model, self.options))
        return outs

    def predict_with_features(self, conds: list[dict], heads: Iterable, among: list[dict] | None = None) -> tuple[list[Tensor | None], taps.Reading]:
        """What the model predicts for each branch, None where it was asked for `conds` alone, and the reading of the whole image that `heads`
        need; their part of it, if they are some `among` others. At least one of `conds` acts at this timestep."""
        return self.run_recorded(conds, heads, self.active_areas(among or conds), only=False)

    def read(self, conds: list[dict], heads: Iterable) -> taps.Reading:
        """The reading alone; what the model would predict is not computed."""
        return self.run_recorded(conds, heads, self.active_areas(conds), only=True)[1]

    def run_recorded(self, conds: list[dict], heads: Iterable, areas: dict, only: bool) -> tuple[list[Tensor | None], taps.Reading]:
        """`predict_with_features`, or `read`, where conditionings paint these `areas`."""
        unet, asked = self.model.diffusion_model, self.branches_to_ask(conds)
        options = early_exit_options(self.options) if only else readable_options(self.options)
        try:
            selection, standing = self.known.selection(unet, heads), self.known.obstacles(self.model, self.options)
            whole = obstacles.whole_runs(self.log.node, self.model, self.options, standing, selection.read[-1].name if only else None)
            if self.captures is None:
                recording = taps.record(unet, selection, only)
            else:
                recording = self.captures.record(unet, selection, [weight for _, _, weight, _ in self.known.weights.of(self.model)])
            with recording as readings, whole, differentiable_kernels():
                outs = self.calc_cond_batch(self.model, asked, self.x, self.timestep.clone(), options)
        except taps.NoTaps as error:
            raise ValueError(obstacles.message(self.log.node, f"was run in an unexpected way ({error})", self.model, self.options)) from error
        comfy.model_management.throw_exception_if_processing_interrupted()
        pieces = features_by_area(self, readings, {label: areas[label] for c in conds if (label := c["uuid"]) in areas})
        emb = noise_levels.level_embedding(self.model, self.timestep) if readings[0].emb is None else readings[0].emb[:len(self.x)]
        return [c and out for c, out in zip(asked, outs)], replace(readings[0], emb=emb, features=taps.blended(pieces, self.size))

    def gradient(self, conds: list[dict], heads: Iterable, pull: Pull, recompute: bool = False,
                 witness: Witness | None = None) -> tuple[list, Tensor]:
        """The predictions, as `predict_with_features` gives them, and the gradient with respect to `x` of what pulls at the taps; all [B, C, H, W].
        `pull(reading)` returns its gradients at the taps that `heads` read over their size, and that size [B]. `recompute` computes the model's
        blocks again in the backward pass, instead of keeping all that they computed. `witness` looks at whether it passes rightly."""
        options, weights = with_gradients(self.options, self.log), self.known.weights
        parts = other_cards.shares(self, self.branches_to_ask(conds))
        models = [part.model for part in parts] or [self.model]
        blocks = [block for model in models for block in self.known.blocks(model.diffusion_model)] if recompute else []
        with weights.differentiable(*models, keep=not any(map(is_streamed, models))), differentiable_kernels():  # also in recomputed blocks
            seeing = saved_tensor_context(self.model, conds, options, [weight for _, _, weight, _ in weights.of(*models)], witness)
            captures = None if recompute or witness or parts or not captured.may_replay(self, conds) else self.known.captures
            step = replace(self, x=self.x.clone().requires_grad_(), options=options, captures=captures)
            parts = other_cards.parts_of(step, parts)
            with witness.looking() if witness else nullcontext(), seeing(), recomputed_blocks(blocks, seeing, witness and witness.compare):
                return step.gradient_by_hooks(conds, heads, pull, parts)

    def gradient_by_hooks(self, conds: list[dict], heads: Iterable, pull: Pull, parts: list["Step"]) -> tuple[list[Tensor | None], Tensor]:
        """`gradient`, where autograd can see through everything; by the cards that make `parts` of it, if there are several."""
        acting = self.active_areas(conds)
        groups = by_hooks([c for c in conds if c["uuid"] in acting])
        with torch.set_grad_enabled(len(groups) == 1):
            outs, reading = (other_cards.predict_with_features(parts, conds, heads, self.x.device) if parts else
                             self.predict_with_features(conds, heads))
        at_taps, size = pull(reading)
        gradient = torch.zeros_like(self.x)
        for group in groups:  # forward and backward with the same weights
            if len(groups) > 1:
                _, reading = self.predict_with_features(group, heads, among=conds)
            gradient += self.backward(reading.features, at_taps).float() * size.view(-1, *[1] * (self.x.ndim - 1))
        return [None if out is None else out.detach() for out in outs], gradient

    def backward(self, features: list[Tensor], at_taps: list[Tensor]) -> Tensor:
        """The gradient with respect to `x`."""
        try:
            return torch.autograd.grad(features, self.x, at_taps)[0]
        except (NotImplementedError, RuntimeError) as error:
            if comfy.model_management.is_oom(error):
                raise
            raise ValueError(f"{self.log.node}: the backward pass through the diffusion model fails: {error}. Part of the model has no backward "
                             "pass, such as an attention kernel that another pack calls itself. Start ComfyUI with --use-pytorch-cross-attention, or "
                             "connect the MODEL from before that pack's node.") from error
