"""Guided sampling: what Apply Readout Guidance attaches to a MODEL.

The move is made on the model's prediction, not on the sampler's latent: at a guided step every prediction of the
denoised picture is shifted by -strength * sqrt(1 + sigma^2) * direction. A sampler that steps from x at sigma to
sigma' then lands (1 - sigma'/sigma) of that shift away, so the same strength does the same work for any number of
steps, and trial points, multi-step histories, ancestral noise and denoise masks need no special care. All predictions
of a step (conditional, unconditional, perturbed, ...) are shifted alike, so whatever a guider makes of them is too.

Targets that compare with a reference read it with the same heads at the same noise level. The reference's way does not
depend on the picture being made, so it is read once, without gradients, and what was read is kept for the next run.
"""
import math
import weakref
from dataclasses import dataclass, field

import comfy.model_management
import comfy.model_sampling
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.k_diffusion.sampling import get_ancestral_step
from torch import Tensor

from ..rg_core import energies, guidance, updates
from .reading import by_hooks, differentiable, lenient, look, parts, read, readable, still, with_gradients

KEY = "readout_guidance"
NOT_READ = {"control", "hooks"}  # of a reference's conditioning: their models are loaded for the guided picture alone
WrappersMP = comfy.patcher_extension.WrappersMP


@dataclass(frozen=True)
class Move:
    """How a gradient becomes a shift. The defaults are what the measurements in docs/moves.md chose.

    `strength`: size of the shift of the prediction in units of sqrt(1 + sigma^2). With `per_step` it is instead the size
    of the published move, made on the VP-scaled latent before each step; `fresh` predicts again from the moved latent.
    """
    strength: float = 0.1
    form: str = "rms"
    per_step: bool = False
    fresh: bool = False
    balanced: bool = True  # see guidance.pull
    both: bool = False     # reads the unconditional branch too
    eta: float = 0.0       # with `per_step`: of the sampler's ancestral noise


PUBLISHED = Move(0.02, "sign", per_step=True, fresh=True, balanced=False, both=True)  # Luo et al., section 3.3 and their code


@dataclass
class Trace:
    """What guidance did: a row for each target at each guided call of the model."""
    rows: list[dict] = field(default_factory=list)

    def add(self, sigma: float, active: list[guidance.Target], values: list[Tensor]) -> None:
        for target, value in zip(active, values):
            self.rows.append({"sigma": sigma, "target": target.name, "energy": value.tolist()})


class Engine:
    """Wrappers on a MODEL: around a whole run, around each step, and around the predictions made in it."""

    def __init__(self, node: str, source, targets: tuple[guidance.Target, ...], move: Move, trace: Trace | None):
        self.node, self.source = node, source  # for messages; the MODEL as it was given
        self.targets = tuple(t for t in targets if t.weight)
        self.move, self.trace = move, trace
        self.prepared: dict[guidance.Target, guidance.Target] = {}  # for this run's latents
        self.said: dict = {}  # each reference's conditioning, made ready for this run
        self.used: dict = {}  # by reference, what this run has used of what it keeps
        self.positive = None  # the conditioning to differentiate through, while a guided step is under way
        self.negative = None
        self.shift = None     # of this step's predictions, once known

    def attach(self, model) -> None:
        """In place of the engine that may be on it already."""
        self.attached = weakref.ref(model)
        for kind, wrapper in ((WrappersMP.OUTER_SAMPLE, self.outer_sample), (WrappersMP.PREDICT_NOISE, self.predict_noise),
                              (WrappersMP.CALC_COND_BATCH, self.calc_cond_batch)):
            model.remove_wrappers_with_key(kind, KEY)
            model.add_wrapper_with_key(kind, KEY, wrapper)

    def outer_sample(self, executor, *args, **kwargs):
        try:
            return executor(*args, **kwargs)
        finally:
            self.prepared.clear()
            self.said.clear()
            self.used.clear()

    def active(self, model, sigma: float) -> list[guidance.Target]:
        to_sigma = model.model_sampling.percent_to_sigma
        return [t for t in self.targets if to_sigma(t.end) <= sigma <= to_sigma(t.start)]

    def predict_noise(self, executor, x, timestep, model_options={}, seed=None):
        guider = executor.class_obj
        positive = guider.conds.get("positive")
        if positive and self.active(guider.inner_model, float(timestep.max())) and parts(positive, x, timestep):
            self.positive, self.negative = positive, guider.conds.get("negative")
        try:
            return executor(x, timestep, model_options, seed)
        finally:
            self.positive = self.negative = self.shift = None

    def calc_cond_batch(self, executor, model, conds, x, timestep, model_options):
        outs = self.guided_batch(executor, model, conds, x, timestep, model_options)
        dragged = [t for t in self.targets if isinstance(t, guidance.Drag) and t.mask is not None]
        if not dragged:
            return outs
        # Outside every mask the picture follows the reference, at all steps, whatever the model predicts.
        size = tuple(x.shape[-2:])
        free = torch.stack([guidance.repeat(guidance.mask_at(t.mask, size, x.device), len(x)) for t in dragged]).amax(0)
        _, kept = self.way(dragged[0], x, timestep)
        return [out if c is None else out * free + guidance.repeat(kept, len(x)) * (1 - free) for c, out in zip(conds, outs)]

    def guided_batch(self, executor, model, conds, x, timestep, model_options):
        if self.positive is None:
            return executor(model, conds, x, timestep, model_options)
        move, outs = self.move, [None] * len(conds)
        if self.shift is None:
            predicted, displacement = self.measure(executor, model, conds, x, timestep, model_options)
            self.shift = displacement * self.share(timestep, model_options) if move.per_step else displacement
            if move.fresh:
                x = x + displacement
            else:
                outs = [predicted if c is self.positive else None for c in conds]
        if any(out is None for out in outs):  # each at its place, by which patches tell the branches apart
            rest = executor(model, [c if out is None else None for c, out in zip(conds, outs)], x, timestep, model_options)
            outs = [other if out is None else out for out, other in zip(outs, rest)]
        return [out if c is None else out + self.shift for c, out in zip(conds, outs)]

    def share(self, timestep: Tensor, model_options: dict) -> float:
        """What shifting the prediction must be multiplied by to equal a shift of x, in an Euler step to the next sigma."""
        sigma, sigmas = float(timestep.max()), model_options["transformer_options"]["sample_sigmas"]
        down, _ = get_ancestral_step(sigma, float(sigmas[sigmas < sigma].max()), eta=self.move.eta)
        return down / (sigma - down)

    def measure(self, executor, model, branches: list, x: Tensor, timestep: Tensor, model_options: dict) -> tuple[Tensor, Tensor]:
        """The conditional prediction at `x` and the displacement [B, C, H, W] that lowers the energies; `branches` are all that
        the host asks about."""
        move, sigma = self.move, float(timestep.max())
        active = self.active(model, sigma)
        ready = [self.ready(t, tuple(x.shape[-2:]), x.device) for t in active]
        scale = latent_scale(model, sigma)
        span = energies.latent_range(x / scale)
        gradient, values = 0, []
        both = move.both and self.negative and parts(self.negative, x, timestep)
        for conds in [self.negative, self.positive] if both else [self.positive]:
            run = placed(executor, conds, branches)
            seen = self.references(run, model, conds, ready, x, timestep, model_options)
            predicted, pulled, value = self.pulled(run, model, conds, ready, seen, x, timestep, model_options, span)
            gradient = gradient + pulled
            values.append(torch.stack(value))
        if self.trace is not None:
            self.trace.add(sigma, active, torch.stack(values).mean(0).unbind(0))
        if not (torch.isfinite(predicted).all() and torch.isfinite(gradient).all()):
            raise ValueError(f"{self.node}: the model gave NaN or infinite values at sigma {sigma:.3g}, computing in {model.get_dtype_inference()}. "
                             "Run it in a wider type: start ComfyUI with --bf16-unet or --fp32-unet, or choose it where the model is loaded.")
        length = math.sqrt(sum(t.weight**2 for t in active)) if move.balanced else 1
        return predicted, -move.strength * length * scale * updates.FORMS[move.form](gradient * scale)

    def pulled(self, executor, model, conds: list, ready: list[guidance.Target], seen: list[Tensor | None], x: Tensor,
               timestep: Tensor, model_options: dict, span: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The prediction of `conds` at `x`, the energies' gradient there, both [B, C, H, W], and the energies [B]."""
        options, conds = with_gradients(model_options), still(conds)
        with differentiable(model), lenient(model, conds, options):
            acting = parts(conds, x, timestep)
            latent, groups = x.clone().requires_grad_(), by_hooks([c for c in conds if c["uuid"] in acting])
            with torch.set_grad_enabled(len(groups) == 1):
                predicted, reading = look(executor, model, conds, latent, timestep, options)
            seeds, values, size = guidance.pull(reading, ready, span, seen, self.move.balanced)
            gradient = torch.zeros_like(latent)
            for group in groups:  # forward and backward with the same weights
                if len(groups) > 1:
                    _, reading = look(executor, model, group, latent, timestep, options, among=conds)
                gradient += torch.autograd.grad(reading.features, latent, seeds)[0].float() * size.view(-1, 1, 1, 1)
        return predicted.detach(), gradient, values

    def way(self, target: guidance.Target, x: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """The target's reference at this noise level and what a denoiser would predict there, [R, C, H, W] each."""
        trajectory = target.reference.trajectory
        if trajectory.size != tuple(x.shape[-2:]):
            raise ValueError(f"{self.node}: the reference of the {target.name} target is {trajectory.size[1]}x{trajectory.size[0]} in "
                             f"latents, and the picture being made is {x.shape[-1]}x{x.shape[-2]}. Make both the same size.")
        return tuple(part.to(x) for part in trajectory.segment(float(timestep.max())))

    def references(self, executor, model, conds: list, ready: list[guidance.Target], x: Tensor, timestep: Tensor,
                   model_options: dict) -> list[Tensor | None]:
        """For each target, what its head reads of its reference at this noise level; None for those without one.

        It is read as what the reference was made with says, and kept; beside the unconditional branch, as that one says.
        """
        seen: list[Tensor | None] = [None] * len(ready)
        sigma = float(timestep.max())
        # Guiding again makes a new MODEL of the same source; but what others have patched since then counts.
        sampled = model.current_patcher
        source = self.source if sampled is self.attached() else sampled
        for reference in dict.fromkeys(t.reference for t in ready if t.reference is not None):
            mine = [i for i, t in enumerate(ready) if t.reference is reference]
            latent, _ = self.way(ready[mine[0]], x, timestep)
            keys = {(ready[i].head, sigma): ready[i].size for i in mine}
            own = conds is self.positive
            known = dict(reference.readouts.get(source, {})) if own else {}
            used = self.used.setdefault(reference, set())
            used.update(keys)
            missing = {key: size for key, size in keys.items() if key not in known}
            if missing:
                if own and reference not in self.said:
                    given = [[c, {k: v for k, v in more.items() if k not in NOT_READ}] for c, more in reference.conditioning]
                    # The picture and the seed are what inpainting and unCLIP models complete a conditioning with.
                    self.said[reference] = comfy.samplers.process_conds(
                        model, latent, {"positive": comfy.sampler_helpers.convert_cond(given)}, x.device,
                        latent_image=reference.trajectory.latents[0].to(x), seed=0)["positive"]
                said = self.said[reference] if own else conds
                if not parts(said, latent, timestep):
                    raise ValueError(f"{self.node}: what the reference of the {ready[mine[0]].name} target was made with says nothing at "
                                     "this noise level, so it cannot be read. Make the reference with a conditioning that acts all the "
                                     "time, or let the target end before.")
                with torch.no_grad():
                    _, reading = look(executor, model, said, latent, timestep[:1].expand(len(latent)), readable(model_options))
                for (head, _), size in missing.items():
                    # In half precision at once, so that the first run equals the next ones.
                    known[head, sigma] = read(head, reading, size).half()
                    if own:
                        reference.keep(source, (head, sigma), known[head, sigma], used)
            for i in mine:
                with torch.inference_mode(False):
                    seen[i] = known[ready[i].head, sigma].to(x.device, torch.float32)
        return seen

    def ready(self, target: guidance.Target, size: tuple[int, int], device: torch.device) -> guidance.Target:
        if target not in self.prepared:
            with torch.inference_mode(False):
                target.head.to(device)
                self.prepared[target] = target.at(size, device)
        return self.prepared[target]


def placed(executor, conds: list, branches: list):
    """`executor` for `conds` alone, at their place among the host's `branches`: patches tell these apart by their places."""
    place = next((i for i, branch in enumerate(branches) if branch is conds), 0)

    def run(model, alone, *args):
        return executor(model, [None] * place + alone, *args)[place:]
    return run


def latent_scale(model, sigma: float) -> float:
    """What the sampler's latents are larger by than those of a variance-preserving model; flow models keep theirs."""
    return 1.0 if isinstance(model.model_sampling, comfy.model_sampling.CONST) else math.sqrt(1 + sigma**2)
