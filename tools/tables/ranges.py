"""How exactly targets are met by how long and how hard they act: `python run.py evaluate --ranges [--seeds N]`.

`picture_ratio` is the time of the guided images over that of the unguided ones.
"""
import math
import time

import torch

from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import Bench, Setting, show
from tools.tables.relations import to_be_dragged

ENDS = (0.5, 0.65, 0.8, 0.9)  # at the default strength
STRONGER = (0.12, 0.15)
LAST = 0.9                    # of what is stronger, or fades
FADING = 0.15                 # strength at much noise


class Fading(Move):
    """A move whose strength goes to nothing with the noise, as sigma / sqrt(1 + sigma^2): the noise's share of what the model sees."""

    def displacement(self, gradient, scale, weights):
        return super().displacement(gradient, scale, weights) * math.sqrt(1 - scale**-2)


CANDIDATES = [*((Move(), end) for end in ENDS), *((Move(strength), LAST) for strength in STRONGER),
              (Fading(FADING), LAST)]


def label(move: Move, end: float) -> str:
    return f"{move.strength}{', fading' if isinstance(move, Fading) else ''}, until {end}"


def with_ratio(result: dict, unguided: dict) -> dict:
    return result | {"picture_ratio": round(result["seconds"] / unguided["seconds"], 2)}


def of_controls(seeds: int) -> dict:
    bench = Bench(seeds)
    bench.sample((), Setting(steps=1))  # warms up
    unguided = bench.measure((), Setting())
    results = {}
    for name in ("pose", "depth", "edge", "pose+edge"):
        results[name] = {"unguided": unguided}
        for move, end in CANDIDATES:
            result = bench.measure(tuple(name.split("+")), Setting(move, end))
            results[name][label(move, end)] = with_ratio(result, unguided)
            show(name, label(move, end), results[name][label(move, end)])
    return results


@torch.inference_mode()
def of_drags(seeds: int) -> dict:
    bench, plan, given, starts = to_be_dragged(seeds)
    results = {}
    for move, end in (None, None), *CANDIDATES:
        start = time.monotonic()
        image = bench.dragged(plan, starts, move, end) if move else bench.unguided(starts, noise=False, sampler="euler", batch=1)
        result = bench.drag_figures(plan, image, given) | {"seconds": round(time.monotonic() - start, 1)}
        setting = label(move, end) if move else "unguided"
        results[setting] = with_ratio(result, results["unguided"]) if move else result
        show("drag", setting, results[setting])
    return results


def ranges(seeds: int) -> dict:
    return of_controls(seeds) | {"drag": of_drags(seeds)}
