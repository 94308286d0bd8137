"""A guided step of a MODEL whose work the host shares among several cards (MultiGPU CFG Split): while the first one differentiates the branch that is
read, the others predict the branches that are not."""
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from .autograd.kernels import differentiable_kernels
from .calls.asking import has_others_patches


@contextmanager
def predicting(step, branches: list[list[dict] | None], reads: bool) -> Iterator[Callable[[], list[Tensor | None]]]:
    """What it gives waits for what the model predicts for `branches`, None where these are None or nobody else can be asked. `reads`: whether the
    other branch is read meanwhile. Patches may draw at random, and hooks change weights, for one call after the other."""
    clones = {device: patcher for device, patcher in step.options.get("multigpu_clones", {}).items() if device != step.x.device}
    acting = [conds for conds in branches if conds and step.active_areas(conds)]
    alone = step.together or has_others_patches(step.options) or any("hooks" in c for conds in acting for c in conds)
    if not (reads and clones and acting) or alone or step.known.obstacles(step.model, step.options):
        yield lambda: [None] * len(branches)
        return
    there, inference = replace(step.with_shared_options), torch.is_inference_mode_enabled()
    there = replace(there, options=there.options | {"multigpu_clones": clones})

    def predict() -> list[Tensor]:
        with torch.inference_mode(inference):
            return there.predictions(branches)

    with differentiable_kernels(), ThreadPoolExecutor(1) as thread:  # those are chosen for all threads; leaving waits
        found = thread.submit(predict)
        yield lambda: [None if conds is None else out for conds, out in zip(branches, found.result())]
