"""How a guided step asks the host for predictions: branch by branch, where a plain step asks once for all. What another call would leave behind must
not make a difference."""
from collections.abc import Callable

import torch
from comfy.model_management import is_oom

from ....rg_core.features.recompute import RandomState
from .controlnets import DetachedControl

OTHERS = 0.03  # how far branches that are asked apart may be from those asked together, over what is predicted of noise; bf16 rounds to 0.01
OURS = ("comfy.", "comfy_extras.", "readout_guidance_pack.")  # beginnings of names of modules whose patches tell branches apart


class Asking:
    """The host's calc_cond_batch in one guided step. Patches that draw at random draw alike in each of its calls, as in the one of a plain step, and
    afterwards chance is where one call leaves it. ControlNets are seen as no part of the model; `detached_controls` are the run's, by their id."""

    def __init__(self, executor: Callable, device: torch.device, detached_controls: dict[int, DetachedControl]):
        self.executor, self.detached_controls, self.chance = executor, detached_controls, RandomState(device)

    def __call__(self, model, branches: list, x: torch.Tensor, timestep: torch.Tensor, options: dict) -> list[torch.Tensor]:
        self.chance.restore()
        return self.executor(model, [conds and [self.with_still(c) for c in conds] for conds in branches], x, timestep, options)

    def with_still(self, cond: dict) -> dict:
        if "control" not in cond:
            return cond
        return cond | {"control": self.detached_controls.setdefault(id(cond["control"]), DetachedControl(cond["control"]))}


def has_others_patches(options: dict) -> bool:
    """Whether another pack's patches hang on the MODEL."""
    given = options["transformer_options"]
    return any(not (getattr(patch, "__module__", None) or type(patch).__module__).startswith(OURS) for patch in (
        *(patch for patches in given.get("patches", {}).values() for patch in patches),
        *(patch for patches in given.get("patches_replace", {}).values() for patch in patches.values())))


def must_be_together(step, branches: list) -> bool:
    """Whether the model predicts something else for `branches` where they are asked apart: patches may take the halves of a call for the positive
    and the negative one, or share between them."""
    acting = [i for i, conds in enumerate(branches) if conds and step.active_areas(conds)]
    if len(acting) < 2 or not has_others_patches(step.options):
        return False
    together = step.with_shared_options.predictions(branches)
    try:
        apart = [step.with_shared_options.predictions([None] * i + [branches[i]])[i] for i in acting]
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # of a patch that wants both
        if is_oom(error):
            raise
        return True
    return any((together[i] - alone).norm() > OTHERS * (step.x - together[i]).norm() for i, alone in zip(acting, apart))
