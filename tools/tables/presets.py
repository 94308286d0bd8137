"""The published preset beside the default: `python run.py evaluate --presets [--seeds N]`.

Each with the sampler that it is meant for: the default with DPM++ 2M, cfg 3, in 20 steps and in fewer, and with LCM, cfg 1, in very few; the
published one through its node, 100 DDIM steps with eta 1, at the demo model's cfg and, for pose, at the authors'. `seconds` is the time of
sampling alone, `time_ratio` how often it fits into that of the published procedure at the demo's cfg, for the same control.
"""
import time

import torch

from readout_guidance_pack.heads.demo import judge
from readout_guidance_pack.nodes.samplers.published import KSamplerReadoutGuidancePublished
from readout_guidance_pack.rg_core.guidance.updates import PUBLISHED, Move
from tools.tables.control import BATCH, CFG, CONTROLS, NOISE_SEED, Bench, Setting, show

END = 0.5  # the authors' range
STEPS = (8, 12, 20)  # of the default
FEW = {"4 LCM steps": (4, 0), "4 LCM steps, three moves each": (4, 3), "4 LCM steps, two moves each": (4, 2), "3 LCM steps": (3, 0),
       "3 LCM steps, three moves each": (3, 3)}  # and moves
LCM = {"sampler": "lcm", "scheduler": "sgm_uniform", "cfg": 1.0}


@torch.inference_mode()
def published(bench: Bench, kinds: tuple[str, ...], cfg: float) -> torch.Tensor:
    images = []
    for first in range(0, bench.seeds, BATCH):
        part = slice(first, min(first + BATCH, bench.seeds))
        latent = {"samples": torch.zeros(part.stop - first, 3, *bench.size), "batch_index": list(range(first, part.stop))}
        latent = KSamplerReadoutGuidancePublished.execute(
            bench.model, NOISE_SEED, 100, cfg, 1.0, True, [[bench.said_context[part], {}]], bench.negative, latent,
            guidance=bench.guidance(kinds, END, part), strength=PUBLISHED.strength)[0]
        images.append(bench.vae.decode(latent["samples"]).movedim(-1, 1).cpu())
    return torch.cat(images)


def presets(seeds: int) -> dict:
    bench, results = Bench(seeds), {}
    bench.sample((), Setting(steps=1))  # warms up
    for name in ("pose", "depth", "edge"):
        kinds = CONTROLS[name]
        rows = {"unguided": lambda: bench.sample((), Setting())}
        rows |= {f"guided, {steps} steps": lambda steps=steps: bench.sample(kinds, Setting(Move(), steps=steps)) for steps in STEPS}
        rows |= {f"guided, {label}": lambda steps=steps, moves=moves: bench.sample(kinds, Setting(Move(moves=moves), steps=steps, **LCM))
                 for label, (steps, moves) in FEW.items()}
        rows |= {"published": lambda: published(bench, kinds, CFG)}
        if name == "pose":
            rows |= {"published, cfg 7.5": lambda: published(bench, kinds, 7.5)}
        figures, seconds = {}, {}
        for setting, make in rows.items():
            start = time.monotonic()
            images = make()  # decoding them is but a copy in the demo world
            seconds[setting] = time.monotonic() - start
            figures[setting] = judge.figures(images, bench.scene, bench.said)
        results[name] = {setting: figures[setting] | {"seconds": round(seconds[setting], 2),
                                                      "time_ratio": round(seconds["published"] / seconds[setting], 2)} for setting in rows}
        for setting, result in results[name].items():
            show(name, setting, result)
    return results
