"""A guided step of a MODEL whose work the host shares among several cards (MultiGPU CFG Split). Of several images each card makes its share: it
differentiates the branch that is read and predicts the others. Of one image the first card differentiates, and the others predict meanwhile."""
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from ...rg_core.features import taps
from .autograd.kernels import differentiable_kernels
from .calls.asking import has_others_patches

ONE_CARD = {"hooks", "control", "gligen", "mask"}  # of a conditioning: what has its own models, or something for each image, on one card


def other_clones(step) -> dict:
    """The other cards' patchers, by device, where they may be asked: patches may draw at random for one call after the other."""
    clones = {device: patcher for device, patcher in step.options.get("multigpu_clones", {}).items() if device != step.x.device}
    asked = clones and not (step.together or has_others_patches(step.options) or step.known.obstacles(step.model, step.options))
    return clones if asked else {}


def is_alike(cond: dict) -> bool:
    """Whether a conditioning says the same of each image, in a way that any card can be told."""
    given = [getattr(x, "cond", None) for x in cond.get("model_conds", {}).values()]
    return not ONE_CARD & cond.keys() and all(len(x) == 1 for x in given if isinstance(x, Tensor) and x.ndim)


def shares(step, branches: list[list[dict] | None]) -> list:
    """The steps for the images that each card makes, in their order; none where one card makes all."""
    clones = other_clones(step)
    if len(step.x) < 2 or not clones or not all(is_alike(cond) for conds in branches for cond in conds or ()):
        return []
    cards = [(step.x.device, step.model), *((device, patcher.model) for device, patcher in clones.items())]
    found = []
    for places, (device, model) in zip(torch.arange(len(step.x)).tensor_split(min(len(cards), len(step.x))), cards):
        own = places if step.batch_index is None else step.batch_index[places]
        options = {name: value for name, value in step.options.items() if name != "multigpu_clones"}
        found.append(replace(step, x=step.x[places].to(device), timestep=step.timestep[places].to(device), model=model, options=options,
                             batch_index=own, captures=None))
    return found


def parts_of(step, steps: list) -> list:
    """Those `steps` for the images of `step`, so that gradients come back to these."""
    images = step.x.split([len(part.x) for part in steps]) if steps else ()
    return [replace(part, x=x.to(part.x.device), options=step.options) for part, x in zip(steps, images)]


def together(parts: list[list[Tensor | None]], device: torch.device) -> list[Tensor | None]:
    """What the cards made of each branch, for all images."""
    return [None if of_branch[0] is None else torch.cat([x.to(device) for x in of_branch]) for of_branch in zip(*parts)]


def predict_with_features(steps: list, conds: list[dict], heads, device: torch.device) -> tuple[list[Tensor | None], taps.Reading]:
    """Step.predict_with_features by the cards that make these `steps`."""
    made = [step.predict_with_features(conds, heads) for step in steps]
    first, features = made[0][1], zip(*(reading.features for _, reading in made))
    reading = replace(first, emb=torch.cat([reading.embedding().to(device) for _, reading in made]),
                      features=[torch.cat([f.to(device) for f in of_tap]) for of_tap in features])
    return together([outs for outs, _ in made], device), reading


def predictions(step, branches: list[list[dict] | None], x: Tensor) -> list[Tensor | None] | None:
    """What the model predicts for `branches` at `x`, each card for its images; None where one card makes all."""
    found = shares(replace(step, x=x).with_shared_options, branches)
    if not found:
        return None
    with differentiable_kernels():
        return together([[None if conds is None else out for conds, out in zip(branches, part.predictions(branches))] for part in found], x.device)


@contextmanager
def predicting(step, branches: list[list[dict] | None], read: list[dict] | None) -> Iterator[Callable[[], list[Tensor | None]]]:
    """What it gives waits for what the other cards predict for `branches` but the one that is `read` meanwhile, None where nobody else is asked."""
    clones, rest = other_clones(step) if read else {}, [None if conds is read else conds for conds in branches]
    acting = [conds for conds in rest if clones and conds and step.active_areas(conds)]
    if not acting or any("hooks" in c for conds in acting for c in conds) or shares(step, [read]):
        yield lambda: [None] * len(branches)
        return
    there, inference = step.with_shared_options, torch.is_inference_mode_enabled()
    there = replace(there, options=there.options | {"multigpu_clones": clones})

    def predict() -> list[Tensor]:
        with torch.inference_mode(inference):
            return there.predictions(rest)

    with differentiable_kernels(), ThreadPoolExecutor(1) as thread:  # those are chosen for all threads; leaving waits
        found = thread.submit(predict)
        yield lambda: [None if conds is None else out for conds, out in zip(rest, found.result())]
