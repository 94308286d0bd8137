"""One sampling of a guided MODEL.

The move is made on the model's prediction, not on the sampler's latent: at a guided step every prediction of the
denoised picture is shifted by -strength * sqrt(1 + sigma^2) * direction. A sampler that steps from x at sigma to
sigma' then lands (1 - sigma'/sigma) of that shift away, so the same strength does the same work for any number of
steps, and trial points, multi-step histories, ancestral noise and denoise masks need no special care. All predictions
of a step (conditional, unconditional, perturbed, ...) are shifted alike, so whatever a guider makes of them is too.

The direction of targets with heads comes back from the taps through the model. That of targets without is the gradient at the
conditional prediction itself, and the shift ends where the target is reached; docs/colour.md has what chose this.
"""
import torch
from comfy.model_management import get_total_memory
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...rg_core import gradients, taps
from ...rg_core.features import Features
from ...rg_core.regions import mask_at
from ...rg_core.targets import Target, heads
from . import memory, reasons, windows
from .conditioning import parts
from .log import Log
from .noise import prediction_scale, stepped_down
from .reader import Readers
from .shift import Prediction, Shifter
from .step import Step

KEY = "readout_guidance"
CUT = 0.1  # share of a target's picture that may be left out without a word


class Run:
    """Guides from the host's OUTER_SAMPLE's begin to its end, by wrappers in that run's own model options."""

    def __init__(self, guidance, guider):
        self.node, self.move, self.targets, self.trace = guidance.node, guidance.move, guidance.targets, guidance.trace
        # Guiding again makes a new MODEL of the same source; but what others have patched since then counts.
        sampled = guider.model_patcher
        self.source = guidance.source if sampled.parent is guidance.source else sampled
        self.holding = [t for t in self.targets if t.free is not None]
        self.fitted: dict[tuple, Target] = {}      # to the sizes of latents that this run has seen
        self.free: dict[tuple, list[Tensor]] = {}  # likewise, the masks of targets that hold the rest of the picture
        self.prediction: Prediction | None = None  # while a guided one is under way
        self.whole: Tensor | None = None           # the batch, while any is
        self.got: set[str] = set()                 # how far this run has come: asked, acting, said, guided
        self.log = Log(self.node)
        # The published procedure reads references in full precision.
        self.readers = Readers(self.node, self.source, torch.float32 if self.move.published_energy else torch.half)
        self.shifter = Shifter(self.node, self.move, self.readers, {"on": True, "off": False}.get(guidance.recompute))

    def attach(self, guider) -> None:
        for kind, wrapper in ((WrappersMP.PREPARE_SAMPLING, self.prepare_sampling), (WrappersMP.PREDICT_NOISE, self.predict_noise),
                              (WrappersMP.CALC_COND_BATCH, self.calc_cond_batch)):
            add_wrapper_with_key(kind, KEY, wrapper, guider.model_options, is_model_options=True)

    def prepare_sampling(self, executor, model, noise_shape, conds, *args, **kwargs):
        """Tells the host what guided steps need, so that it makes room before it loads the model."""
        read_by = heads(self.targets)
        if not read_by or model.get_additional_models_with_key("multigpu"):
            return executor(model, noise_shape, conds, *args, **kwargs)  # with several GPUs it clones ControlNets there, and asks nobody else
        again, said = self.shifter.again, conds.get("positive") or []
        if again is None:  # it may yet fit without, if the host frees all else
            room = get_total_memory(model.load_device) - model.model_size()
            again = memory.needed(model.model, noise_shape, said, read_by, again=False) > room
        need = memory.Need(memory.needed(model.model, noise_shape, said, read_by, again))
        loaded, _, models = executor(model, noise_shape, {**conds, KEY: [{"control": need}]}, *args, **kwargs)
        return loaded, conds, models

    def predict_noise(self, executor, x, timestep, model_options={}, seed=None):
        guider = executor.class_obj
        positive, negative = guider.conds.get("positive"), guider.conds.get("negative")
        acting = self.acting(guider.inner_model, float(timestep.max()), model_options["transformer_options"]["sample_sigmas"])
        said = acting and positive and parts(positive, x, timestep)
        self.got.update(name for name, came in (("asked", True), ("acting", acting), ("said", said)) if came)
        self.prediction, self.whole = Prediction(acting, positive, negative) if said else None, x
        try:
            return executor(x, timestep, model_options, seed)
        finally:
            self.prediction = self.whole = None

    def calc_cond_batch(self, executor, model, conds, x, timestep, model_options):
        if self.prediction is None and not self.holding:
            return executor(model, conds, x, timestep, model_options)
        step = Step(self.log, executor, model, x, timestep, model_options, pictures=windows.pictures(x, self.whole, model_options, self.log))
        if self.prediction is not None:
            self.got.add("guided")
        outs = step.predictions(conds) if self.prediction is None else self.guided(step, conds)
        return self.kept(step, conds, outs)

    def compare(self, batch: int) -> None:
        """Says which targets are for more pictures than the `batch` that is sampled."""
        for target in self.targets:
            followed = 1 if target.reference is None else target.reference.trajectory.latents.shape[1]
            for what, count in ((f"the {target.name} target", target.count), (f"the reference of the {target.name} target", followed)):
                if count > batch:
                    self.log.warn(f"{what} is for {count} pictures, and {batch} at a time {'is' if batch == 1 else 'are'} sampled: only what it has "
                                  f"for the first {'one' if batch == 1 else batch} counts. Where a part of a batch is sampled (Latent From Batch, "
                                  "Rebatch Latents), make it of the same part.")

    def report(self, guider) -> None:
        """Says once, at the end of a run in which nothing was guided, why."""
        if self.targets and "guided" not in self.got:
            self.log.warn(reasons.nothing_guided(self.got, guider))

    def guided(self, step: Step, branches: list) -> list[Tensor]:
        """What the model predicts for `branches`, each shifted towards the targets."""
        move, now, outs, x = self.move, self.prediction, [None] * len(branches), step.x
        if step.part not in now.shifts:
            outs, displacement = self.measured(step, branches)
            now.shifts[step.part] = displacement * self.share(step) if move.per_step else displacement
            if move.fresh:
                x, outs = x + displacement, [None] * len(branches)
        if any(out is None for out in outs):  # each at its place, by which patches tell the branches apart
            ask = step.every if now.reads else step.predictions
            rest = ask([c if out is None else None for c, out in zip(branches, outs)], x)
            outs = [other if out is None else out for out, other in zip(outs, rest)]
        return [out if c is None else out + now.shifts[step.part] for c, out in zip(branches, outs)]

    def measured(self, step: Step, branches: list) -> tuple[list[Tensor | None], Tensor]:
        """What the model predicts for `branches` at the step's latents, None where it was not asked yet, and the displacement [B, C, H, W]."""
        now = self.prediction
        try:
            outs, displacement, values = self.shifter.shift(step, now, [self.fit(t, step) for t in now.targets], branches)
        except gradients.EnergyError as error:
            raise ValueError(f"{self.node}: {error}") from error
        self.trace.add(step.sigma, now.targets, values, now.views)
        return outs, displacement

    def kept(self, step: Step, branches: list, outs: list[Tensor]) -> list[Tensor]:
        """`outs` where targets leave the picture free; elsewhere it follows the reference, at all steps, whatever the model
        predicts."""
        if not self.holding:
            return outs
        key = (step.size, step.x.device)
        if key not in self.free:
            self.free[key] = [mask_at(t.free, step.size, step.x.device) for t in self.holding]
        free = torch.stack([step.own(mask) for mask in self.free[key]]).amax(0).unflatten(0, (len(step.x), *[1] * (step.x.ndim - 4)))
        _, reference = self.readers.way(self.holding[0], step)
        return [out if c is None else out * free + step.own(reference) * (1 - free) for c, out in zip(branches, outs)]

    def acting(self, model, sigma: float, sigmas: Tensor) -> list[Target]:
        """The targets that act at `sigma` of a run's `sigmas`. Predictions are not shifted in the step that ends without noise: all of the
        shift would be seen, and no step after it mends anything (docs/moves.md)."""
        last = sigmas[-1] == 0 and sigma <= sigmas[-2]
        if not self.move.per_step and (last or not prediction_scale(model, sigma)):
            return []
        to_sigma = model.model_sampling.percent_to_sigma
        return [t for t in self.targets if to_sigma(t.end) <= sigma <= to_sigma(t.start)]

    def fit(self, target: Target, step: Step) -> Target:
        """`target` made ready for the pictures of this call and their size."""
        key = (target, step.size, step.x.device)
        with torch.inference_mode(False):
            if key not in self.fitted:
                # Features as they are have hardly more to compare than the model has tokens; a head knows its own size.
                smaller = max(1, taps.patch(step.model.diffusion_model) // 4) if isinstance(target.head, Features) else 1
                self.fitted[key] = target.at(tuple(n // smaller for n in step.size), step.x.device)
                if target.cut(step.size) > CUT:
                    self.log.warn(f"{target.cut(step.size):.0%} of what the {target.name} target was given is left out at its edges, because the "
                                  f"picture being made, {step.size[1]}x{step.size[0]} latents, is of another shape.")
            return self.fitted[key] if step.pictures is None else self.fitted[key].of(step.pictures)

    def share(self, step: Step) -> float:
        """What shifting the prediction must be multiplied by to equal a shift of x, in an Euler step to the next sigma."""
        sigmas = step.options["transformer_options"]["sample_sigmas"]
        down = stepped_down(step.model, step.sigma, float(sigmas[sigmas < step.sigma].max()), self.move.eta)
        return down / (step.sigma - down)
