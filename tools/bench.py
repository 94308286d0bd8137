"""What guidance costs: `python run.py bench [--json FILE] [--models demo sd15 sdxl] [--rounds N]`.

A plain step is one prediction with cfg (two branches); a guided one the same with guidance attached. A whole image is 20
steps of DPM++ 2M karras with cfg, its targets acting when they do by default; one in few steps is 4 of LCM without cfg. What is
compared is made in turn in one run and compared by its medians, so that a busy machine slows both. SD 1.5
and SDXL are the real architectures with random weights, SDXL's 10 GB on a CPU, and a random head of the published shape.

Last comes what one guided step keeps for its backward pass, weights aside; KEPT and HEAD in nodes/engine/memory.py, by which the
pack tells the host what it needs, were chosen from these figures and are in their unit.

`--scaling [--plot FILE]` measures instead how the cost grows: see scaling.py. `--fit [--images N]`: what fitting a head costs, see fit_costs.py.
`--transformers`: flow transformers, see transformers.py. `--overhead`: what a step costs beside its arithmetic, see overhead.py. `--peers`:
ControlNets and T2I-Adapters beside readouts, see peers.py.
"""
import argparse
import gc
import json
from collections.abc import Callable
from functools import partial

import comfy.model_management
import comfy.samplers
import comfy.utils
import torch

from readout_guidance_pack.nodes.engine import memory
from readout_guidance_pack.nodes.engine.autograd import witness
from readout_guidance_pack.nodes.engine.autograd.inference_tensors import differentiable
from readout_guidance_pack.rg_core.features import taps
from readout_guidance_pack.rg_core.guidance import gradients
from tools import end, to_write, write_json
from tools.benchmarks import peers
from tools.benchmarks.costs import STEPS, Cost, in_turn, most_kept, sample
from tools.benchmarks.device import device_name
from tools.benchmarks.fit_costs import fit_costs
from tools.benchmarks.models import ALL_THE_TIME, MODELS, Subject, guided_by, images, spatial, steps
from tools.benchmarks.overhead import overhead
from tools.benchmarks.scaling import scaling
from tools.benchmarks.starts import starts
from tools.benchmarks.transformers import transformers

IMAGE_STEPS, SAMPLER, SCHEDULER = 20, "dpmpp_2m", "karras"
IMAGE_ROUNDS = 1  # of the large models: on two CPU cores each image of SDXL takes minutes
KEEPING = {"blocks kept": "default", "blocks computed again": "default, blocks computed again"}  # the settings by what they keep
HEAD = "the head's part"
SHOWN = "default, shown while it samples"
FEW_STEPS = ("sgm_uniform", 4, "lcm", 1.0)  # scheduler, steps, sampler, cfg
IN_FEW = ("default", "fitted head")  # what is made in few steps too


def step_costs(subject: Subject, rounds: int) -> dict[str, Cost]:
    actions = {label: partial(sample, model, subject.conditioning, subject.shape) for label, model in steps(subject).items()}
    costs = in_turn(actions, rounds, warm=actions)
    return {label: Cost(cost.seconds / (len(STEPS) - 1), cost.peak) for label, cost in costs.items()}


def image_costs(subject: Subject, rounds: int) -> dict[str, Cost]:
    sigmas = comfy.samplers.calculate_sigmas(subject.model.get_model_object("model_sampling"), SCHEDULER, IMAGE_STEPS)
    models = images(subject)
    actions = {label: partial(sample, model, subject.conditioning, subject.shape, sigmas, SAMPLER) for label, model in models.items()}
    actions[SHOWN] = partial(watched, actions["default"])
    scheduler, count, sampler, cfg = FEW_STEPS
    few = comfy.samplers.calculate_sigmas(subject.model.get_model_object("model_sampling"), scheduler, count)
    actions |= {f"{label}, {count} LCM steps": partial(sample, models[label], subject.conditioning, subject.shape, few, sampler, cfg)
                for label in IN_FEW}
    return in_turn(actions, rounds, warm=["drag"])  # which then has its reference read; all else is warm from the steps


def looking_cost(subject: Subject, rounds: int) -> float:
    """What it costs to look whether gradients pass rightly, in a model's first guided step: in plain steps."""
    model, network, one = guided_by(subject, spatial(subject.head, **ALL_THE_TIME)), subject.model.model.diffusion_model, STEPS[:2]

    def first() -> None:
        witness.looked_at.pop(network, None)
        sample(model, subject.conditioning, subject.shape, one)

    actions = {"plain": partial(sample, subject.model, subject.conditioning, subject.shape, one), "first": first,
               "later": partial(sample, model, subject.conditioning, subject.shape, one)}
    costs = in_turn(actions, rounds, warm=actions)
    return round((costs["first"].seconds - costs["later"].seconds) / costs["plain"].seconds, 3)


def watched(action: Callable[[], None]) -> None:
    """`action` as the host runs it, for somebody who looks on: after each step an image is made for the page."""
    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(lambda step, total, preview, node_id=None: None)
    try:
        action()
    finally:
        comfy.utils.set_progress_bar_global_hook(before)


def kept(subject: Subject) -> dict[str, int]:
    """Bytes that one guided step keeps for its backward pass at most, and the head's part of them."""
    models, weights = steps(subject), [*subject.model.model.parameters(), *subject.head.parameters()]
    sample(models["default"], subject.conditioning, subject.shape, STEPS[:2])  # a model's first guided step is looked at, by hooks of its own
    found = {label: most_kept(partial(sample, models[setting], subject.conditioning, subject.shape, STEPS[:2]), weights)
             for label, setting in KEEPING.items()}
    with taps.record(subject.model.model.diffusion_model) as readings:
        sample(subject.model, subject.conditioning, subject.shape, STEPS[:2])
    batch, size = subject.shape[0], subject.shape[2:]
    with differentiable(subject.head):
        reading = taps.Reading(readings[0].emb[:batch].clone(), [f[:batch].clone() for f in readings[0].features])
        target = spatial(subject.head).prepared(size, reading.emb.device)
        return found | {HEAD: most_kept(partial(gradients.at_taps, reading, [target], torch.ones(batch).to(reading.emb), [None]), weights)}


def in_units(subject: Subject, kept_bytes: dict[str, int]) -> dict[str, float]:
    """The figures of `kept` as KEPT and HEAD give them."""
    of_model, of_head = memory.units(subject.model.model, subject.shape)
    head = kept_bytes[HEAD]
    return {label: round(head / of_head if label == HEAD else (size - head) / of_model, 5) for label, size in kept_bytes.items()}


def ratios(costs: dict[str, Cost]) -> dict[str, float]:
    return {label: round(cost.seconds / costs["plain"].seconds, 2) for label, cost in costs.items() if label != "plain"}


@torch.inference_mode()
def measure(name: str, rounds: int) -> dict:
    subject = MODELS[name]()
    of_steps = step_costs(subject, rounds)
    of_images = image_costs(subject, rounds if name == "demo" else IMAGE_ROUNDS)
    kept_bytes = kept(subject)
    return {"plain_step_s": round(of_steps["plain"].seconds, 4), "shape": list(subject.shape), "guided_step_ratio": ratios(of_steps),
            "picture_ratio": ratios(of_images), "looking_ratio": looking_cost(subject, rounds),
            "peak_bytes": {label: cost.peak for label, cost in of_steps.items()},
            "kept_bytes": kept_bytes, "kept_unit": in_units(subject, kept_bytes)}


def release() -> None:
    """Frees the model that was measured, so that the next one has room."""
    comfy.model_management.unload_all_models()
    gc.collect()
    comfy.model_management.soft_empty_cache()


def show(result: dict) -> None:
    print(f"  plain step {result['plain_step_s']:.3f} s, peak {result['peak_bytes']['plain'] / 2**20:.0f} MiB")
    for label, ratio in result["guided_step_ratio"].items():
        print(f"  {label}: {ratio:.2f} times a plain step, peak {result['peak_bytes'][label] / 2**20:.0f} MiB")
    for label, ratio in result["picture_ratio"].items():
        print(f"  a whole picture, {label}: {ratio:.2f} times an unguided one")
    print(f"  looking at a model's gradients in its first guided step: {result['looking_ratio']:.2f} plain steps")
    for label, size in result["kept_bytes"].items():
        print(f"  kept for the backward pass, {label}: {size / 2**20:.0f} MiB; {result['kept_unit'][label]:.4f} in the unit of "
              f"KEPT {tuple(memory.KEPT.values())} and HEAD {memory.HEAD}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=to_write)
    parser.add_argument("--scaling", action="store_true", help="how the cost of the demo model's steps grows, instead")
    parser.add_argument("--plot", type=to_write, help="with --scaling: a PNG of it")
    parser.add_argument("--fit", action="store_true", help="what it costs to fit a head, instead")
    parser.add_argument("--pictures", type=int, default=100, help="with --fit")
    parser.add_argument("--transformers", action="store_true", help="flow transformers, instead")
    parser.add_argument("--overhead", action="store_true", help="what a step costs beside its arithmetic, instead")
    parser.add_argument("--peers", action="store_true", help="ControlNets and T2I-Adapters beside readouts on sd15 and sdxl, instead")
    parser.add_argument("--start", action="store_true", help="how much longer ComfyUI takes to start, instead")
    options = parser.parse_args()
    report = {"device": device_name()}
    if options.scaling:
        report |= scaling(options.rounds, options.plot)
    elif options.start:
        report["start"] = starts(options.rounds)
        print(f"bench: {report['start']}", flush=True)
    elif options.overhead:
        report |= overhead(options.rounds)
    elif options.transformers:
        report |= transformers(options.rounds)
    elif options.peers:
        report["models"] = {}
        for name in (name for name in options.models if name != "demo"):
            print(f"bench: {name} beside its peers", flush=True)
            report["models"][name] = peers.peers(name, MODELS[name](), options.rounds, IMAGE_ROUNDS)
            peers.show(report["models"][name])
            release()
    elif options.fit:
        report["models"] = {}
        for name in options.models:
            report["models"][name] = {"fit": fit_costs(MODELS[name](), options.pictures)}
            print(f"bench: fitting a head for {name}: {json.dumps(report['models'][name]['fit'])}", flush=True)
            release()
    else:
        report["models"] = {}
        for name in options.models:
            print(f"bench: {name}", flush=True)
            report["models"][name] = measure(name, options.rounds)
            show(report["models"][name])
            release()
    if options.json:
        write_json(options.json, report)


if __name__ == "__main__":
    end("bench", main)
