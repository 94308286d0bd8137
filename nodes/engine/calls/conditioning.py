"""Which part of the image each conditioning paints."""
import comfy.samplers
import torch
import torch.nn.functional as F
from torch import Tensor

from ....rg_core.features import taps
from ...common.latents import one_frame

GAP = 0.05  # of an image: areas in shares may leave out a row of latents between them


def active_areas(conds: list[dict], x: Tensor, timestep: Tensor) -> dict:
    """Of each of `conds` that acts at this timestep, by its uuid, the part of the image that it paints: a taps.Part."""
    whole, acting = torch.zeros_like(one_frame(x)[:, :1]), []

    for c in sorted(conds, key=lambda c: "default" in c):
        acts = comfy.samplers.get_area_and_mult(c, x, timestep)
        if acts is not None:
            weight = F.relu(1 - whole) if "default" in c else one_frame(acts.mult)[:, :1]  # the default fills what others leave
            area = acts.area and tuple(n for half in halves(acts.area) for n in half[-2:])  # with frames, of them first
            within(area, whole).add_(weight)
            acting.append((acts.uuid, area, weight))
    return {uuid: taps.Part(weight / within(area, whole).clamp(min=1e-6), area) for uuid, area, weight in acting}


def within(area: tuple[int, ...] | None, whole: Tensor) -> Tensor:
    return whole if area is None else whole[..., area[2]:area[2] + area[0], area[3]:area[3] + area[1]]


def uncovered(acting: dict, x: Tensor) -> float:
    """The share of images `x` that none of `acting`, which are `active_areas` of them, paints: features are zeros there."""
    whole = torch.zeros_like(one_frame(x)[:, :1])
    for part in acting.values():
        within(part.area, whole).add_(part.weight)
    return (whole < 0.5).float().mean().item()  # their weights make 1 together


def halves(area: list[int]) -> tuple[list[int], list[int]]:
    """The host's area: its size, and where it begins."""
    return area[:len(area) // 2], area[len(area) // 2:]


def holds_nan(conds: list[dict]) -> bool:
    """Whether any number that the host made of them is NaN or infinite."""
    made = [getattr(cond, "cond", None) for c in conds for cond in c.get("model_conds", {}).values()]
    return any(isinstance(x, Tensor) and x.is_floating_point() and not torch.isfinite(x).all() for x in made)


def by_hooks(conds: list[dict]) -> list[list[dict]]:
    """`conds` that the model's weights are the same for; hooks change the weights in place between the groups."""
    groups: dict = {}
    for c in conds:
        groups.setdefault(c.get("hooks"), []).append(c)
    return list(groups.values())


def nonzero_areas(areas: dict) -> set:
    """The labels of those parts of an image that show anywhere."""
    return {label for label, part in areas.items() if part.weight.any()}
