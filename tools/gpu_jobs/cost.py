"""What plain and guided steps cost on one device, and how long it is idle meanwhile; `tools/gpu.py` starts a process of this for each model.

It takes the same JSON and prints the same lines as gpu_jobs/step.py. Jobs name a `model`, one of bench's or of REAL, the `size` of its latents, the
`batch` and the `branches` of a step. Weights are random and drawn on the device. One step is what more steps add to a run, so that what is done
once in it, captures included, is left out.
"""
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import comfy.samplers
import torch

from readout_guidance_pack.nodes.engine import captured, joint
from readout_guidance_pack.rg_core.features.raw_features import AS_THEY_ARE
from tools.benchmarks import models, transformers
from tools.benchmarks.costs import busy_seconds, in_turn, sample
from tools.benchmarks.models import ALL_THE_TIME, MODELS, drag, guided_by, linear, spatial
from tools.benchmarks.transformers import GIB, REAL
from tools.gpu_jobs.jobs import run_jobs
from tools.gpu_jobs.step import moves_of
from tools.gpu_jobs.transformers import subject as transformer

FEW, MORE = 3, 8   # steps of the two runs: the first step of a shape is made as always, in the second or third one a call is captured
NOISE = {"unet": torch.linspace(5.0, 4.0, MORE + 1), "flow": torch.linspace(0.95, 0.6, MORE + 1)}  # where all targets act
APART = "apart"
WAYS = {APART: (0, False), "together": (10**9, False), "captured": (0, True), "together and captured": (10**9, True)}


@contextmanager
def way(pixels: int, capture: bool) -> Iterator[None]:
    """Up to so many latent pixels branches are asked together, and calls are captured or not."""
    before = dict(joint.MOST_PIXELS), captured.ENABLED
    joint.MOST_PIXELS.update({"cuda": pixels, "cpu": pixels})
    captured.ENABLED = capture
    try:
        yield
    finally:
        joint.MOST_PIXELS.clear()
        joint.MOST_PIXELS.update(before[0])
        captured.ENABLED = before[1]


def subject(job: dict):
    """The model, and it guided, by setting; the first one is tried in all WAYS."""
    if job["model"] in REAL:
        of = transformer(job)
        by = transformers.settings(of)
        return of, {"fitted head": by["pose"], "drag without a head": by["drag without a head"],
                    "blocks recomputed": by["pose, blocks computed again"]}
    of = replace(MODELS[job["model"]](), shape=(job["batch"], 4, *job["size"]))
    target = spatial(of.head, **ALL_THE_TIME)
    return of, {"published head": guided_by(of, target), "fitted head": guided_by(of, spatial(linear(of), **ALL_THE_TIME)),
                "drag without a head": guided_by(of, drag(of, 4096, AS_THEY_ARE, **ALL_THE_TIME)),
                "blocks recomputed": guided_by(of, target, recompute="on")}


def steps(job: dict) -> dict:
    """Milliseconds of a step, in plain steps, milliseconds in which the device has nothing to do, GiB at the peak; cosines of the last move made in
    each way with that of branches asked apart."""
    of, guided = subject(job)
    noise, first = NOISE["flow" if job["model"] in REAL else "unet"], next(iter(guided))
    cfg = 1.0 if job["branches"] == 1 else 3.0
    tried = {"plain": (of.model, APART)} | {label: (model, APART) for label, model in guided.items()}
    tried |= {f"{first}, {name}": (guided[first], name) for name in WAYS if name != APART and (job["branches"] > 1 or "together" not in name)}

    def run(label: str, count: int) -> None:
        model, name = tried[label]
        with way(*WAYS[name]):
            sample(model, of.conditioning, of.shape, noise[:count + 1], cfg=cfg)

    runs = {(label, count): partial(run, label, count) for label in tried for count in (FEW, MORE)}
    costs = in_turn({str(key): action for key, action in runs.items()}, job.get("rounds", 2), warm=[str((label, FEW)) for label in tried])
    found, moves = {}, {}
    for label, (model, _) in tried.items():
        seconds = (costs[str((label, MORE))].seconds - costs[str((label, FEW))].seconds) / (MORE - FEW)
        found[label] = {"ms": round(1000 * seconds, 1), "in_plain_steps": round(1000 * seconds / found["plain"]["ms"], 2) if found else 1.0,
                        "peak_gib": round(costs[str((label, MORE))].peak / GIB, 2)}
        if torch.cuda.is_available():
            busy = (busy_seconds(runs[label, MORE]) - busy_seconds(runs[label, FEW])) / (MORE - FEW)
            found[label]["idle_ms"] = round(1000 * (seconds - busy), 1)
        if model is guided[first]:
            moves[label] = moves_of(runs[label, MORE])[-1].flatten()
    cosines = {label: round(torch.nn.functional.cosine_similarity(x, moves[first], 0).item(), 5) for label, x in moves.items() if label != first}
    return found | {"cosines": cosines, "weights_gib": round(of.model.loaded_size() / GIB, 1)}


def images(job: dict) -> dict:
    """Seconds of whole images, plain and guided: 20 steps of DPM++ 2M, and 4 of LCM with several moves each, in which targets act when they do by
    default."""
    of = replace(MODELS[job["model"]](), shape=(job["batch"], 4, *job["size"]))
    sampling, by = of.model.get_model_object("model_sampling"), models.images(of)
    many, few = (comfy.samplers.calculate_sigmas(sampling, *schedule) for schedule in (("karras", 20), ("sgm_uniform", 4)))
    runs = {"plain, 20 steps": partial(sample, by["plain"], of.conditioning, of.shape, many, "dpmpp_2m")}
    for label in ("default", "fitted head"):
        runs |= {f"{label}, 20 steps": partial(sample, by[label], of.conditioning, of.shape, many, "dpmpp_2m"),
                 f"{label}, 4 steps": partial(sample, by[label], of.conditioning, of.shape, few, "lcm", 1.0)}
    return {label: round(cost.seconds, 3) for label, cost in in_turn(runs, job.get("rounds", 2), warm=runs).items()}


ACTIONS = {"steps": steps, "images": images}


def main() -> None:
    run_jobs(lambda job: ACTIONS[job["do"]](job))
