"""Control in 4 to 20 steps, by samplers of today's few-step models and others: `python run.py evaluate --steps [--seeds N]`.

As control.py and relations.py have it. Drags are of given images, without a head, half as many as scenes.
"""
import torch

from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import CONTROLS, Bench, Setting, show
from tools.tables.relations import RelationBench, to_be_dragged
from tools.tables.transformer import FlowBench

COUNTS = (4, 6, 8, 12, 20)
RUNS = {"euler, cfg 3": (RelationBench, "euler", "sgm_uniform", 3.0), "dpmpp_2m, cfg 3": (RelationBench, "dpmpp_2m", "sgm_uniform", 3.0),
        "lcm, cfg 1": (RelationBench, "lcm", "sgm_uniform", 1.0), "euler_ancestral, cfg 1": (RelationBench, "euler_ancestral", "sgm_uniform", 1.0),
        "transformer, euler, cfg 3": (FlowBench, "euler", "simple", 3.0), "transformer, euler, cfg 1": (FlowBench, "euler", "simple", 1.0)}


@torch.inference_mode()
def steps(seeds: int, names: tuple[str, ...] = tuple(RUNS), counts: tuple[int, ...] = COUNTS) -> dict:
    results: dict[str, dict] = {}

    def note(control: str, setting: str, result: dict) -> None:
        results.setdefault(control, {})[setting] = result
        show(control, setting, result)

    benches: dict[type, Bench] = {}
    for name in names:
        kind, sampler, scheduler, cfg = RUNS[name]
        if kind not in benches:
            benches[kind] = kind(seeds)
            if kind is FlowBench:
                benches[kind].fit_heads()
        for count in counts:
            label, run = f"{name}, {count} steps", {"steps": count, "sampler": sampler, "scheduler": scheduler, "cfg": cfg}
            unguided = benches[kind].measure((), Setting(**run))
            for control, kinds in CONTROLS.items():
                note(control, f"{label}, unguided", unguided)
                note(control, f"{label}, guided", benches[kind].measure(kinds, Setting(Move(), **run)))
    for kind in dict.fromkeys(RUNS[name][0] for name in names):
        drags(max(1, seeds // 2), kind, {name: run for name, run in RUNS.items() if name in names and run[0] is kind}, counts, note)
    return results


def drags(seeds: int, kind: type[RelationBench], runs: dict, counts: tuple[int, ...], note) -> None:
    """Each given image is inverted once, and dragged in all ways."""
    bench, plan, given, starts = to_be_dragged(seeds, kind)
    bench.heads.clear()
    for name, (_, sampler, scheduler, cfg) in runs.items():
        for count in counts:
            label, run = f"{name}, {count} steps", {"steps": count, "sampler": sampler, "scheduler": scheduler, "cfg": cfg}
            note("drag", f"{label}, unguided", bench.drag_figures(plan, bench.unguided(starts, noise=False, **run), given))
            note("drag", f"{label}, guided", bench.drag_figures(plan, bench.dragged(plan, starts, **run), given))
