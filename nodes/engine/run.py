"""One sampling of a guided MODEL.

The move is made on the model's prediction, not on the sampler's latent: at a guided step every prediction of the
denoised image is shifted by -strength * sqrt(1 + sigma^2) * direction. An Euler step from x at sigma to
sigma' then lands (1 - sigma'/sigma) of that shift away, so the same strength does the same work for any number of
steps. In other samplers another share of it lands, and some of it again in later steps: what is shifted makes up for that (landing.py), so
trial points, histories, ancestral noise and denoise masks need no special care. Where steps are long, several moves are made at a noise
level (moves.py). All predictions of a step (conditional, unconditional, perturbed, ...) are made and shifted alike, so whatever a guider
makes of them is too.

The direction of targets with heads comes back from the taps through the model. That of targets without is the gradient at the
conditional prediction itself, and the shift ends where the target is reached; docs/measurements/color.md has what chose this.
"""
from collections.abc import Callable
from dataclasses import replace

import torch
from comfy.model_management import get_total_memory
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...rg_core.guidance import gradients
from ...rg_core.guidance.targets import heads
from ..common.log import Log
from . import errors, memory, other_cards
from .batches import windows
from .calls.asking import Asking, must_be_together
from .calls.conditioning import active_areas
from .calls.controlnets import DetachedControl
from .calls.inpainting import Inpainting
from .known import Known
from .reader import Readers
from .run_targets import RunTargets
from .schedule.landing import Landed, Landing, landings
from .schedule.noise_levels import at_percent, euler_ratio
from .shift import Prediction, Shifter
from .step import Step

KEY = "readout_guidance"


class Run:
    """Guides from the host's OUTER_SAMPLE's begin to its end, by wrappers in that run's own model options."""

    def __init__(self, guidance, guider, log: Log, reached: set[str]):
        self.node, self.move, self.trace, self.targets = guidance.node, guidance.move, guidance.trace, RunTargets(guidance.targets, log)
        # Guiding again makes a new MODEL of the same source; but what others have patched since then counts.
        sampled = guider.model_patcher
        self.source = guidance.source if sampled.parent is guidance.source else sampled
        self.detached_controls: dict[int, DetachedControl] = {}         # ControlNets, by their id
        self.together: bool | None = None          # whether the model must be asked for all branches in one call; None until that is known
        self.landed = Landed([])
        self.landing: Landing | None = None        # of the prediction that is under way
        self.unmasked: Callable | None = None      # (step) -> where the sampler lets latents change, if not everywhere
        self.prediction: Prediction | None = None  # while a guided one is under way
        self.whole = self.timestep = None          # the batch and its noise levels, while any is
        self.log, self.reached = log, reached      # how far it has come, also in calls that it goes on from: asked, acting, said, guided
        # The published procedure reads references in full precision.
        self.readers = Readers(self.node, self.source, torch.float32 if self.move.published_energy else torch.half)
        self.known, self.shifter = Known(), Shifter(self.node, self.move, self.readers, {"on": True, "off": False}.get(guidance.recompute))

    def attach(self, guider) -> None:
        for kind, wrapper in ((WrappersMP.PREPARE_SAMPLING, self.prepare_sampling), (WrappersMP.SAMPLER_SAMPLE, self.sampler_sample),
                              (WrappersMP.PREDICT_NOISE, self.predict_noise), (WrappersMP.CALC_COND_BATCH, self.calc_cond_batch)):
            add_wrapper_with_key(kind, KEY, wrapper, guider.model_options, is_model_options=True)

    def disable(self) -> None:
        """Guides nothing, where noise is found for an image instead of an image for noise."""
        self.targets = RunTargets((), self.log)
        self.log.warn("the noise levels of this run rise, as when the noise of a given image is found, so nothing is guided.")

    def prepare_sampling(self, executor, model, noise_shape, conds, *args, **kwargs):
        """Tells the host what guided steps need, so that it makes room before it loads the model."""
        read_by = heads(self.targets.all)
        if not read_by:
            return executor(model, noise_shape, conds, *args, **kwargs)
        recompute, said = self.shifter.recompute, conds.get("positive") or []
        if recompute is None:  # it may yet fit without, if the host frees all else
            room = get_total_memory(model.load_device) - model.model_size()
            recompute = memory.guided_step_bytes(model.model, noise_shape, said, read_by, recompute=False) > room
        need = memory.MemoryRequest(memory.guided_step_bytes(model.model, noise_shape, said, read_by, recompute))
        loaded, _, models = executor(model, noise_shape, {**conds, KEY: [{"control": need}]}, *args, **kwargs)
        return loaded, conds, models

    def sampler_sample(self, executor, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):
        """Learns what the sampler makes of predictions, before it begins, and what it shows the model beside latents."""
        self.readers.inpainting = Inpainting.of_run(model_wrap.conds.get("positive"), latent_image, denoise_mask)
        if not self.move.per_step:
            self.landed = Landed(landings(executor.class_obj, model_wrap, sigmas, extra_args))
        if denoise_mask is not None:
            change = extra_args["model_options"].get("denoise_mask_function")
            about = {"model": model_wrap, "sigmas": sigmas}
            self.unmasked = lambda step: change(step.timestep, denoise_mask, extra_options=about) if change else denoise_mask
        return executor(model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)

    def predict_noise(self, executor, x, timestep, model_options={}, seed=None):
        guider, sigma, sigmas = executor.class_obj, float(timestep.max()), model_options["transformer_options"]["sample_sigmas"]
        self.shifter.check_finite()
        positive, negative = guider.conds.get("positive"), guider.conds.get("negative")
        self.landing = self.landed.next(sigma, sigmas)
        acting, moves = self.targets.active(guider.inner_model, self.landing, sigmas, self.move)
        said = acting and positive and active_areas(positive, x, timestep)
        if "asked" not in self.reached:
            self.targets.warn_of_other_noise(x, sigma)
        self.reached.update(name for name, came in (("asked", True), ("acting", acting), ("said", said)) if came)
        self.prediction, self.whole, self.timestep = Prediction(acting, positive, negative, moves) if said else None, x, timestep
        try:
            return executor(x, timestep, model_options, seed)
        finally:
            self.prediction = self.whole = self.timestep = self.landing = None

    def calc_cond_batch(self, executor, model, conds, x, timestep, model_options):
        if self.prediction is None and not self.targets.masked and not (self.landing and self.landing.again):
            return executor(model, conds, x, timestep, model_options)
        batch_index = windows.batch_index(x, self.whole, model_options, self.log)
        step = Step(self.log, Asking(executor, x.device, self.detached_controls), model, x, timestep, model_options, batch_index=batch_index,
                    known=self.known, level=self.landing.sigma if timestep is self.timestep else None)
        if self.prediction is not None:
            self.reached.add("guided")
            if self.together is None:
                self.together = must_be_together(step, conds)
            if self.together and any(c is step.find_branch(self.prediction.positive, conds) for c in conds):
                step = replace(step, together=conds)
        outs, shift = (step.predictions(conds), None) if self.prediction is None else self.guided(step, conds)
        return self.composite_reference(step, conds, self.shifted(step, conds, outs, shift))

    def shifted(self, step: Step, branches: list, outs: list[Tensor], shift: Tensor | None) -> list[Tensor]:
        """`outs`, each shifted by this, and by what makes up for earlier shifts."""
        correction = self.landing and self.landed.again(self.landing, step.x, step.batch_index)
        total = shift if correction is None else correction if shift is None else shift + correction
        if total is None:
            return outs
        self.landed.keep(total, self.whole, step.batch_index)
        return [out if c is None else out + total for c, out in zip(branches, outs)]

    def warn_if_unguided(self, guider, left: float) -> None:
        """Says once, at the end of a run in which nothing was guided, why; not where it is `left` at a sigma from which another one may go on, with
        targets that act there."""
        sampling = guider.model_patcher.get_model_object("model_sampling")
        if self.targets.all and "guided" not in self.reached and left <= max(
                float(sampling.sigma_min), min(at_percent(sampling, t.end) for t in self.targets.all)):
            self.log.warn(errors.nothing_guided(self.reached, guider))

    def guided(self, step: Step, branches: list) -> tuple[list[Tensor], Tensor | None]:
        """What the model predicts for `branches`, and by what that is to be shifted, towards the targets; None for nothing."""
        now, outs = self.prediction, [None] * len(branches)
        if step.batch_key not in now.shifts:
            make = self.published_move if self.move.per_step else self.make_moves
            outs, now.moved[step.batch_key], now.shifts[step.batch_key] = make(step, branches)
        moved = now.moved[step.batch_key]
        if any(out is None for out in outs):  # each at its place, by which patches tell the branches apart
            ask, x = step.predict_checked if now.reads else step.predictions, step.x if moved is None else step.x + moved
            asked = [c if out is None else None for c, out in zip(branches, outs)]
            rest = now.reads and other_cards.predictions(step, asked, x) or ask(asked, x)
            outs = [other if out is None else out for out, other in zip(outs, rest)]
        return outs, now.shifts[step.batch_key]

    def make_moves(self, step: Step, branches: list) -> tuple[list[Tensor | None], Tensor | None, Tensor | None]:
        """Makes the moves at this level: what the model predicts for `branches` at the latents that they lead to, None where it was not asked there;
        how far they moved these; and by what the prediction is to be shifted. None for nothing."""
        now, here, moved = self.prediction, step, None
        positive, free = step.find_branch(now.positive, branches), self.movable_mask(step)
        for move in range(1, now.moves.count + 1):
            if move == now.moves.count and now.moves.prediction is not None:
                here = self.shifter.joined(here, now, branches)
                with other_cards.predicting(here, branches, positive if now.reads else None) as beside:
                    outs, displacement = self.compute_shift(here, branches, now.moves.prediction, move)
                return [there if out is None else out for out, there in zip(outs, beside())], moved, displacement
            _, displacement = self.compute_shift(here, [c if c is positive else None for c in branches], now.moves.latent, move)
            moved = (0 if moved is None else moved) + displacement * free
            here = replace(step, x=step.x + moved)
        return [None] * len(branches), moved, None

    def movable_mask(self, step: Step) -> Tensor | float:
        """Where a move of the latents counts: what a sampler's mask or a target's holds fast is put back."""
        free = self.targets.edit_mask(step) if self.targets.masked else 1.0
        mask = self.unmasked(step) if self.unmasked else None
        return free if mask is None or mask.shape[-2:] != step.size else free * step.select_batch(mask.to(step.x))

    def published_move(self, step: Step, branches: list) -> tuple[list[Tensor | None], Tensor | None, Tensor]:
        """As `make_moves`, by the authors' procedure: a shift of the latents, and no share in the prediction for an Euler step to make up for it."""
        outs, displacement = self.compute_shift(step, branches, step.latent_scale)
        shift = displacement * euler_ratio(step.model, step.sigma, self.landing.after, self.move.eta)
        return ([None] * len(branches), displacement, shift) if self.move.fresh else (outs, None, shift)

    def compute_shift(self, step: Step, branches: list, scale: float, move: int = 1) -> tuple[list[Tensor | None], Tensor]:
        """What the model predicts for `branches` at the step's latents, None where it was not asked yet, and the displacement [B, C, H, W], `scale`
        times the strength long. It is for this `move` of those at the level."""
        now = self.prediction
        now.views = [] if self.trace.wants_views else None
        try:
            outs, displacement, values = self.shifter.shift(step, now, [self.targets.prepare(t, step) for t in now.targets], branches, scale)
        except gradients.EnergyError as error:
            raise ValueError(f"{self.node}: {error}") from error
        self.trace.add(step.sigma, move, now.targets, values, now.views)
        return outs, displacement

    def composite_reference(self, step: Step, branches: list, outs: list[Tensor]) -> list[Tensor]:
        """`outs` where targets leave the image free; elsewhere it follows the reference, at all steps, whatever the model
        predicts."""
        if not self.targets.masked:
            return outs
        free = self.targets.edit_mask(step)
        _, reference = self.readers.at_sigma(self.targets.masked[0], step)
        return [out if c is None else out * free + step.select_batch(reference) * (1 - free) for c, out in zip(branches, outs)]
