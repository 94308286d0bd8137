"""What guidance costs beside what people would use instead: `python run.py bench --peers [--models sd15 sdxl] [--rounds N] [--json FILE]`.

Stable Diffusion 1.5 and SDXL in full size, ControlNets, T2I-Adapters and heads in theirs, all with random weights and from files through
the host's loaders. Steps with all that acts, and whole images with what acts by default, are made in turn. Two and three ControlNets are one
that is applied so often: that takes the time of several, and their bytes are counted.
"""
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import comfy.controlnet
import comfy.samplers
import nodes as host_nodes
import torch
from safetensors.torch import save_file

from readout_guidance_pack.heads import load_head, save_head
from tools.benchmarks.costs import Cost, in_turn, sample
from tools.benchmarks.models import ALL_THE_TIME, Subject, guided_by, linear, spatial
from tools.random_weights.checkpoints import drawn
from tools.random_weights.control_models import adapter_weights, controlnet_weights

KARRAS, FEW = ("karras", 20, "dpmpp_2m", 3.0), ("sgm_uniform", 4, "lcm", 1.0)  # scheduler, steps, sampler, cfg
EARLY = 0.5  # a target's end in images of the cheapest setting
LOADS = 3    # of each file


def saved(base: str, subject: Subject, folder: Path) -> dict[str, Path]:
    """The files, by what they hold."""
    files = {name: folder / f"{name}.safetensors" for name in ("ControlNet", "T2I-Adapter", "published head", "fitted head")}
    save_file(drawn(controlnet_weights(base)), files["ControlNet"])
    save_file(drawn(adapter_weights(base)), files["T2I-Adapter"])
    save_head(subject.head, files["published head"])
    save_head(linear(subject), files["fitted head"])
    return files


def loading(files: dict[str, Path]) -> dict[str, dict]:
    """Bytes and parameters of each file, and the seconds that the host or the pack takes to read it, the median."""
    found = {}
    for name, file in files.items():
        times = []
        for _ in range(LOADS):
            start = time.monotonic()
            loaded = load_head(file) if "head" in name else comfy.controlnet.load_controlnet(str(file))
            times.append(time.monotonic() - start)
        network = next(x for x in (getattr(loaded, "control_model", None), getattr(loaded, "t2i_model", None), loaded) if x is not None)
        found[name] = {"file_bytes": file.stat().st_size, "parameters": sum(p.numel() for p in network.parameters()),
                       "memory_bytes": sum(p.numel() * p.element_size() for p in network.parameters()), "load_s": round(statistics.median(times), 3)}
        del loaded, network
    return found


def controlled(subject: Subject, *nets) -> list:
    """The subject's conditioning under these, from beginning to end."""
    hint = torch.rand(1, subject.shape[2] * 8, subject.shape[3] * 8, 3, generator=torch.Generator().manual_seed(0))
    said = subject.conditioning
    for net in nets:
        said, _ = host_nodes.ControlNetApplyAdvanced().apply_controlnet(said, said, net, hint, 1.0, 0.0, 1.0)
    return said


def actions(subject: Subject, net, adapter, **when: float) -> dict[str, tuple]:
    """By way of control the MODEL and the conditioning."""
    plain, said = subject.model, subject.conditioning
    default, fitted = spatial(subject.head, **when), spatial(linear(subject), **when)
    ways = {"plain": (plain, said)}
    ways |= {f"{count} ControlNet": (plain, controlled(subject, *[net] * count)) for count in (1, 2, 3)}
    ways |= {"T2I-Adapter": (plain, controlled(subject, adapter))}
    ways |= {f"{count} published": (guided_by(subject, *[default] * count), said) for count in (1, 2, 3)}
    ways |= {f"{count} fitted": (guided_by(subject, *[fitted] * count), said) for count in (1, 2, 3)}
    return ways | {"fitted, blocks computed again": (guided_by(subject, fitted, recompute="on"), said),
                   "1 ControlNet and 1 fitted": (guided_by(subject, fitted), controlled(subject, net))}


def of_images(subject: Subject, net, adapter) -> dict[str, Callable[[], None]]:
    ways = actions(subject, net, adapter)
    early = guided_by(subject, spatial(linear(subject), end=EARLY))
    ways |= {f"fitted until {EARLY}": (early, subject.conditioning), f"1 ControlNet and fitted until {EARLY}": (early, controlled(subject, net))}
    chosen = ("plain", "1 ControlNet", "T2I-Adapter", "1 published", "1 fitted", f"fitted until {EARLY}", "1 ControlNet and 1 fitted",
              f"1 ControlNet and fitted until {EARLY}")
    few = ("plain", "1 ControlNet", "1 published", "1 fitted", "1 ControlNet and 1 fitted")
    return ({f"{label}, {KARRAS[1]} steps": timed(subject, *ways[label], KARRAS) for label in chosen}
            | {f"{label}, {FEW[1]} LCM steps": timed(subject, *ways[label], FEW) for label in few})


def timed(subject: Subject, model, said: list, run: tuple) -> Callable[[], None]:
    scheduler, count, sampler, cfg = run
    sigmas = comfy.samplers.calculate_sigmas(subject.model.get_model_object("model_sampling"), scheduler, count)
    return lambda: sample(model, said, subject.shape, sigmas, sampler, cfg)


@torch.inference_mode()
def peers(base: str, subject: Subject, rounds: int, image_rounds: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        files = saved(base, subject, Path(folder))
        loads = loading(files)
        net, adapter = (comfy.controlnet.load_controlnet(str(files[name])) for name in ("ControlNet", "T2I-Adapter"))
    steps = {label: lambda way=way: sample(*way, subject.shape) for label, way in actions(subject, net, adapter, **ALL_THE_TIME).items()}
    return {"files": loads, "steps": beside(in_turn(steps, rounds, warm=steps), "plain", "1 ControlNet"),
            "images": beside(in_turn(of_images(subject, net, adapter), image_rounds, warm=())), "shape": list(subject.shape)}


def beside(costs: dict[str, Cost], *others: str) -> dict[str, dict]:
    """Each cost in those of the plain way and of a ControlNet in the same run of steps."""
    found = {}
    for label, cost in costs.items():
        run = label.partition(", ")[2] if not others else ""
        plain, net = others or (f"plain, {run}", f"1 ControlNet, {run}")
        found[label] = {"seconds": round(cost.seconds, 3), "of_plain": round(cost.seconds / costs[plain].seconds, 3),
                        "of_controlnet": round(cost.seconds / costs[net].seconds, 3), "peak_bytes": cost.peak}
    return found


def show(report: dict) -> None:
    for name, file in report["files"].items():
        print(f"  {name}: {file['file_bytes'] / 1e6:.1f} MB, {file['parameters'] / 1e6:.2f} million parameters, "
              f"{file['memory_bytes'] / 1e6:.0f} MB in memory, {file['load_s']:.2f} s to load")
    for part in ("steps", "images"):
        for label, cost in report[part].items():
            print(f"  {part}: {label}: {cost['of_plain']:.2f} plain, {cost['of_controlnet']:.2f} of a ControlNet's, "
                  f"peak {cost['peak_bytes'] / 2**20:.0f} MiB", flush=True)
