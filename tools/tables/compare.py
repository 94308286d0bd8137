"""Heads that compare, fitted from images alone, beside the shipped ones and none: `python run.py evaluate --compare [--seeds N]`.

From drawn images, of which nobody says anything; for one row from drawn images of people who are in several each.
"""
import time
from copy import copy
from dataclasses import replace

import torch

from readout_guidance_pack.heads.demo import world
from readout_guidance_pack.nodes.make_heads.fit_comparing import FitComparingHead
from readout_guidance_pack.rg_core.features.raw_features import Features
from readout_guidance_pack.rg_core.fitting.pairs import RULES
from tools.tables.control import show
from tools.tables.fit import SEED
from tools.tables.relations import LikenessBench, RelationBench, to_be_dragged
from tools.train_demo import load_model, measured

IMAGES, PEOPLE = 32, 8
HELD_OUT, TIMESTEPS = 32, (50, 400, 700)


def people() -> tuple[torch.Tensor, str]:
    """Drawn images [N, 3, H, W] of people, known by their clothes, and who is in each."""
    who = torch.arange(IMAGES) % PEOPLE
    clothes = torch.randperm(len(world.CLOTHES)**2, generator=torch.Generator().manual_seed(SEED))[who]
    plan = replace(world.plan(IMAGES, seed=SEED), shirt=clothes // len(world.CLOTHES), trousers=clothes % len(world.CLOTHES))
    return world.render(plan).image, ",".join(map(str, who.tolist()))


@torch.inference_mode()
def fitted(bench: RelationBench) -> dict:
    """The heads, by what they are fitted from: kind, or kind and groups."""
    drawn, (grouped, who), heads = world.draw(IMAGES, seed=SEED).image, people(), {}
    for name, images, groups in (*((kind, drawn, None) for kind in RULES), ("identity, grouped", grouped, [who])):
        start = time.monotonic()
        heads[name], report, _ = FitComparingHead.execute([bench.model], [bench.vae], [images.movedim(1, -1)], [bench.negative],
                                                          [name.split(",")[0]], [0], groups=groups).args
        print(f"{name}, {time.monotonic() - start:.0f} s: {report}", flush=True)
    return heads


def held_out(heads: dict, shipped: dict) -> dict:
    """Points found, or triplets ordered, of held-out scenes, by timestep."""
    results, (unet, words) = {}, load_model(torch.device("cpu"))
    features = {kind: Features() for kind in ("correspondence", "appearance")}
    for head_of in features:
        features[head_of].kind = head_of
    for setting, group in (("shipped", shipped), ("no head", features), ("fitted", heads)):
        for name, head in group.items():
            if head.kind in RULES:
                measure, shares = measured(unet, words, head, HELD_OUT, TIMESTEPS)
                results.setdefault(name, {})[setting] = shares
                show(f"{name}: {measure}", setting, shares)
    return results


@torch.inference_mode()
def compared(seeds: int) -> dict:
    bench, plan, given, starts = to_be_dragged(seeds)
    shipped, heads = bench.heads, fitted(bench)
    results = {"held out": held_out(heads, shipped), "drag": {}, "identity": {}, "appearance": {}}

    def dragged(setting: str, used: dict) -> None:
        trial = copy(bench)
        trial.heads = used
        results["drag"][setting] = trial.drag_figures(plan, trial.dragged(plan, starts), given)
        show("drag", setting, results["drag"][setting])

    dragged("shipped", shipped)
    dragged("no head", {})
    dragged("fitted", heads)
    dragged("fitted, appearance without", {"correspondence": heads["correspondence"]})
    likeness = LikenessBench(seeds)
    for control, setting, targets in (
            ("identity", "pose alone", likeness.identity()), ("identity", "shipped", likeness.identity(shipped["identity"])),
            ("identity", "fitted", likeness.identity(heads["identity"])),
            ("identity", "fitted, grouped", likeness.identity(heads["identity, grouped"])),
            ("appearance", "unguided", lambda reference, part: ()), ("appearance", "shipped", likeness.appearance(shipped["appearance"])),
            ("appearance", "no head", likeness.appearance()), ("appearance", "fitted", likeness.appearance(heads["appearance"]))):
        results[control][setting] = likeness.likeness(targets)
        show(control, setting, results[control][setting])
    return results
