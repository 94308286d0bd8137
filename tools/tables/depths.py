"""Depth as the host's nodes give it, and with holes as sensors have: `python run.py evaluate --depths [--seeds N]`.

The scenes' nearness, stretched to 0 to 1, is inverse distance, from 1 m where it is 1 to 10 m where it is 0. Drawings are the host's own.
"""
import torch
from torch import Tensor

from readout_guidance_pack.heads.demo import judge
from readout_guidance_pack.nodes.inputs.depth_maps import DISTANCE, NEAR_BLACK
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.rg_core.guidance.targets import Spatial
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import Bench, Setting, show

NEAREST, FARTHEST = 1.0, 10.0  # metres
HOLES = (0.0, 0.03, 0.07, 0.22)
HOLE_SEED, LARGEST = 7, 8      # holes are as large as this, in pixels, at most


def metres(nearness: Tensor) -> Tensor:
    return 1 / (1 / FARTHEST + (1 / NEAREST - 1 / FARTHEST) * nearness)


def stretched(nearness: Tensor) -> Tensor:
    """Scenes [B, H, W] stretched to 0 to 1 each, as what estimates depth does not know where 0 and 1 are."""
    low, high = nearness.amin((1, 2), keepdim=True), nearness.amax((1, 2), keepdim=True)
    return (nearness - low) / (high - low)


def holes(like: Tensor, share: float) -> Tensor:
    """Where a sensor found nothing: boxes of all sizes over this `share` of each image, [B, H, W], boolean."""
    rng = torch.Generator().manual_seed(HOLE_SEED)
    found = torch.zeros(like.shape, dtype=torch.bool)
    for one in found:
        while one.float().mean() < share:
            height, width = torch.randint(2, LARGEST + 1, (2,), generator=rng).tolist()
            top, left = (int(torch.randint(length, (1,), generator=rng)) for length in one.shape)
            one[top:top + height, left:left + width] = True
    return found


def image(x: Tensor) -> Tensor:
    return x[..., None].expand(-1, -1, -1, 3)


def given(nearness: Tensor) -> dict[str, dict]:
    """What Depth Target is given of scenes [B, H, W], by name."""
    from comfy.ldm.depth_anything_3.preprocess import normalize_depth_v2_style
    from comfy_extras.nodes_moge import _normalize_disparity
    far = metres(nearness)
    drawn, grey = torch.stack([normalize_depth_v2_style(x) for x in far]), far / FARTHEST
    rows = {"true nearness": {"image": image(nearness)}, "MoGe's drawing": {"image": image(_normalize_disparity(far))},
            "MoGe's geometry": {"geometry": {"depth": far}}, "DA3's drawing": {"image": image(drawn)},
            "DA3's drawing, distance": {"image": image(drawn), "greys": DISTANCE}, "DA3's raw": {"image": image(far)},
            "DA3's raw, near black": {"image": image(far), "greys": NEAR_BLACK}, "DA3's geometry": {"geometry": {"depth": far, "mode": "mono"}}}
    for share in HOLES:
        none, name = holes(far, share), f"{share:.0%} holes"
        rows[f"{name}: nearness"] = {"image": image((nearness * 0.9 + 0.1).masked_fill(none, 0.0))}
        rows[f"{name}: grey, invert"] = {"image": image(grey.masked_fill(none, 0.0)), "invert": True}
        rows[f"{name}: grey, near black"] = {"image": image(grey.masked_fill(none, 0.0)), "greys": NEAR_BLACK}
        rows[f"{name}: MoGe's geometry"] = {"geometry": {"depth": far.masked_fill(none, torch.inf), "mask": ~none}}
        rows[f"{name}: DA3's geometry"] = {"geometry": {"depth": far.masked_fill(none, 0.0), "mode": "mono"}}
    return rows


def of(part: slice, x):
    """`part` of a batch, also within a geometry."""
    if isinstance(x, dict):
        return {key: of(part, value) for key, value in x.items()}
    return x[part] if isinstance(x, Tensor) else x


@torch.inference_mode()
def depths(seeds: int) -> dict:
    bench = Bench(seeds)
    truth, results = stretched(bench.scene.nearness), {}
    for name, how in {"unguided": None, **given(truth)}.items():
        def chain(part, how=how):
            return () if how is None else (target(bench.heads["depth"], of(part, how)),)
        error = judge.mae(bench.sampled(chain, Setting(Move())), truth).mean().item()
        wanted = 0.0 if how is None else asked(bench.heads["depth"], how, truth)
        results[name] = {"depth_error": round(error, 4), "target_error": round(wanted, 4)}
        show("depth", name, results[name])
    return {"depths": results}


def target(head, how: dict) -> Spatial:
    return DepthTarget.execute(head=head, weight=1.0, start_percent=Spatial.start, end_percent=Spatial.end, **how)[0][0]


def asked(head, how: dict, truth: Tensor) -> float:
    """How far what the target asks for is from the `truth`, where it asks."""
    asking = target(head, how)
    weight = torch.ones_like(truth) if asking.known is None else asking.known[:, 0]
    return (((asking.image[:, 0] - truth).abs() * weight).sum() / weight.sum()).item()
