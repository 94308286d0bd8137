"""When targets should stop, by how a run ends: `python run.py evaluate --endings [--seeds N]`; both demo models, pose and depth, other scenes than
the other tables have."""
from unittest.mock import patch

import torch

from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables import control
from tools.tables.control import Bench, Setting, show
from tools.tables.transformer import FlowBench

RUNS = {Bench: [("dpmpp_2m", "karras", 20), ("dpmpp_2m", "normal", 20), ("dpmpp_2m", "sgm_uniform", 20), ("dpmpp_2m", "simple", 20),
                ("euler", "normal", 20), ("euler_ancestral", "normal", 20), ("dpmpp_2m", "karras", 8), ("dpmpp_2m", "normal", 8),
                ("dpmpp_2m", "simple", 8), ("lcm", "sgm_uniform", 8)],
        FlowBench: [("euler", "simple", 20), ("dpmpp_2m", "simple", 20), ("euler", "beta", 20), ("euler", "simple", 12), ("euler", "simple", 8),
                    ("euler", "simple", 4)]}
ENDS = (0.8, 0.9)
OTHER = {name: getattr(control, name) + 20000 for name in ("SCENE_SEED", "PROMPT_SEED", "NOISE_SEED")}


@torch.inference_mode()
def endings(seeds: int) -> dict:
    results = {}
    with patch.multiple(control, **OTHER):
        for kind, runs in RUNS.items():
            bench = kind(seeds)
            if kind is FlowBench:
                bench.fit_heads()
            for sampler, scheduler, steps in runs:
                label = f"{'flow' if kind is FlowBench else 'UNet'}, {sampler}, {scheduler}, {steps}"
                run = {"steps": steps, "sampler": sampler, "scheduler": scheduler}
                results[label] = {"unguided": bench.measure((), Setting(**run))}
                results[label] |= {f"{target} until {end}": bench.measure((target,), Setting(Move(), end, **run))
                                   for target in ("pose", "depth") for end in ENDS}
                for setting, result in results[label].items():
                    show(label, setting, result)
    return results
