"""How far the predictions of a step are shifted, and which way."""
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from comfy.model_management import OOM_EXCEPTION, is_oom, soft_empty_cache
from torch import Tensor

from ...rg_core.guidance import energies, gradients
from ...rg_core.guidance.targets import Target, heads
from ...rg_core.guidance.updates import Move
from ...rg_core.readout.views import View
from ..common.latents import one_frame
from . import errors, joint, memory
from .autograd.inference_tensors import InferenceTensorMode, Weights, as_normal_tensors
from .autograd.witness import Witness, needed
from .reader import Readers
from .schedule.moves import Moves
from .step import Pull, Step

PACK = __name__.rpartition(".nodes.")[0] + "."


def is_ours(target: Target) -> bool:
    """Whether target and head are of this pack, which makes no tensors in inference mode that they do not hold as fields or weights."""
    return all(type(part).__module__.startswith(PACK) for part in (target, target.head) if part is not None)


@dataclass
class Prediction:
    """One prediction that a sampler asks for, at which targets act; the guider may call the model several times for it."""
    targets: list[Target]
    positive: list[dict]
    negative: list[dict] | None
    moves: Moves | None = None  # None in the published procedure
    moved: dict[tuple | None, Tensor] = field(default_factory=dict)   # how far the latents, by the part of the batch, once known
    shifts: dict[tuple | None, Tensor] = field(default_factory=dict)  # likewise, of what the model predicts for these
    views: list[View] | None = None  # what there is to look at of the targets, at the last call that was shifted; None: nobody looks

    @property
    def reads(self) -> bool:
        """Whether taps are read for it."""
        return any(t.head is not None for t in self.targets)


class Shifter:
    """Finds the shift that lowers the energies of targets by `move`, in one run, whose references `readers` read. `recompute` is whether blocks
    are computed again in the backward pass, None until that is known. `node` is for messages."""

    def __init__(self, node: str, move: Move, readers: Readers, recompute: bool | None):
        self.node, self.move, self.readers, self.recompute = node, move, readers, recompute
        self.witnessed = False  # whether gradients pass rightly
        self.joint: bool | None = None  # whether all branches are asked in one call where one is differentiated; None until that is known
        self.weights = Weights()  # of heads
        self.unchecked: list[tuple[Tensor, Callable[[], str]]] = []  # whether what was made is finite, and what is said if not

    def shift(self, step: Step, now: Prediction, targets: list[Target], branches: list,
              scale: float) -> tuple[list[Tensor | None], Tensor, list[Tensor]]:
        """What the model predicts for `branches` at the step's latents, None where it was not asked yet; the displacement [B, C, H, W] that lowers
        the energies, as long as `scale` times the strength; and these, [B] of each of `targets`, which are the prediction's made ready for
        the step."""
        positive = step.find_branch(now.positive, branches)
        if now.reads:
            found, displacement, values = self.shift_from_features(step, now, [t for t in targets if t.head is not None], branches, scale)
            predicted = found[step.for_branch(positive, branches).cond_index]
            outs = found if step.together else [predicted if c is positive else None for c in branches]
        else:
            branches = step.together or branches
            outs, displacement, values = step.predictions(branches), 0, {}
            predicted = next((out for c, out in zip(branches, outs) if c is positive), None)
            if predicted is None:
                predicted, = step.predictions([positive])
        shift, energy = self.shift_from_denoised(step, predicted, [t for t in targets if t.head is None], scale, now.views)
        displacement, values = displacement + shift, values | energy
        self.unchecked.append((torch.isfinite(predicted).all() & torch.isfinite(displacement).all(),
                               partial(errors.not_finite, step.x, positive, step.sigma, step.model)))
        return outs, displacement, [values[t] for t in targets]

    def shift_from_features(self, step: Step, now: Prediction, targets: list[Target], branches: list,
                            scale: float) -> tuple[list[Tensor | None], Tensor, dict[Target, Tensor]]:
        """What the model predicts, the conditional prediction at its place among `branches`, the displacement that lowers the energies of `targets`,
        which have heads, and these energies."""
        gradient, values, span = 0, {}, self.latent_ranges(step, targets)
        positive, negative = (c and step.find_branch(c, branches) for c in (now.positive, now.negative))
        balanced = not self.move.published_energy
        both = self.move.both and negative and step.active_areas(negative)
        for conds in [negative, positive] if both else [positive]:
            here = step.for_branch(conds, branches)
            read = self.readers.read(here, targets, None if conds is positive else conds)

            def pull(reading):
                if now.views:  # out of memory, it pulls twice
                    now.views.clear()
                with self.weights.differentiable(*heads(targets), keep=True), nullcontext() if all(map(is_ours, targets)) else InferenceTensorMode():
                    at_taps, energy, size = gradients.at_taps(reading, targets, *as_normal_tensors([span, read]), balanced, now.views)
                values["positive" if conds is positive else "negative"] = torch.stack(energy)
                return at_taps, size

            outs, pulled = self.gradient(here, conds, heads(targets), pull)
            gradient = gradient + pulled
        energy = torch.stack(list(values.values())).mean(0)
        displacement = self.move.displacement(gradient * step.latent_scale, scale, [t.weight * t.pull_share(e) for t, e in zip(targets, energy)])
        return outs, displacement, dict(zip(targets, energy))

    def shift_from_denoised(self, step: Step, predicted: Tensor, targets: list[Target], scale: float,
                            views: list[View] | None) -> tuple[Tensor, dict[Target, Tensor]]:
        """The shift of the conditional prediction that lowers the energies of `targets`, which have no heads, and these energies."""
        def seen(x: Tensor) -> Tensor:
            return one_frame(step.model.process_latent_out(x))

        ways = [None if t.reference is None else step.select_batch(self.readers.at_sigma(t, step)[1]) for t in targets]
        with torch.inference_mode(False), torch.enable_grad(), InferenceTensorMode():
            found = gradients.at_prediction(predicted, seen, targets, self.latent_ranges(step, targets), ways, views)
        shifts = [self.move.approach(gradient, energy, scale, t.weight) for t, gradient, energy in zip(targets, *found)]
        return sum(shifts, torch.zeros_like(predicted)), dict(zip(targets, found[1]))

    def joined(self, step: Step, now: Prediction, branches: list) -> Step:
        """`step`, asking for all `branches` at once where that is faster."""
        if step.together or not now.reads or self.recompute:
            return step
        if self.joint is None:
            self.joint = joint.pays(step, branches, heads(now.targets))
        return replace(step, together=branches) if self.joint else step

    def check_finite(self) -> None:
        """Raises ValueError if something that was made so far is not finite. Called when a later step begins: what is looked at at once has a card
        wait for Python afterwards."""
        unchecked, self.unchecked = self.unchecked, []
        if unchecked and not torch.stack([finite for finite, _ in unchecked]).all():
            raise ValueError(f"{self.node}: {next(why for finite, why in unchecked if not finite)()}")

    def gradient(self, step: Step, conds: list[dict], read_by: list, pull: Pull) -> tuple[list[Tensor | None], Tensor]:
        """Step.gradient, with blocks computed again where memory is short."""
        if self.recompute is None:
            rows = len(step.x) * len(step.together or [conds])
            self.recompute = memory.is_short(step.model, (rows, *step.x.shape[1:]), conds, read_by, step.x.device)
        network = step.model.diffusion_model
        for recompute in [True] if self.recompute else [False, True]:
            self.recompute = recompute
            try:
                witness = None if self.witnessed or not needed(network) else Witness(self.node, network)
                found = step.gradient(conds, read_by, pull, recompute, witness)
                self.witnessed = True
                return found
            except Exception as error:
                if not is_oom(error):
                    raise
            step.known.let_go()
            soft_empty_cache()  # out here the error, and what its frames held, is gone
        batch, (height, width) = len(step.x), step.size
        raise OOM_EXCEPTION(f"{self.node}: {errors.OUT_OF_MEMORY.format(batch, width, height)}")

    def latent_ranges(self, step: Step, targets: list[Target]) -> Tensor:
        """L [B], the range of each image's VP-scaled latent; in the published procedure of its references' too, which are
        beside it in the authors' batch."""
        beside = []
        if self.move.published_energy:
            beside = [step.select_batch(self.readers.at_sigma(t, step)[0]) for t in targets if t.reference is not None]
        return energies.latent_range(torch.cat([step.x, *beside], -1) / step.latent_scale)
