"""What a GPU does with the pack: `python run.py gpu [--json FILE] [--only SECTION ...]`; half an hour on one card.

Models are Stable Diffusion 1.5 and XL at full size with random weights in fp16, drawn once into .cache/gpu.

right: the move of a guided step in fp16, bf16, fp8, partly loaded, streamed, compiled, with each attention that is installed, against
the same weights' in float32 on the CPU. cost: time and memory of plain and guided steps and images, branches together or apart, calls captured or
not, and how long the card is idle. dynamic: time and memory of steps and images with dynamic VRAM.
fit: what fitting a head costs. same: whether a step gives the same numbers again, by PyTorch's settings. edge: the cost on a card of
which only so much memory may be used. server: a real server with its default settings, runs, runs again, LoRAs, an interruption.
transformers: flow transformers' real sizes and the tests' tiny ones, likewise.
"""
import argparse
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from tools import ROOT, to_write
from tools.benchmarks.device import device_name
from tools.gpu_jobs import server as gpu_server

FOLDER = ROOT / ".cache" / "gpu"
MODELS = {"sd15": 64, "sdxl": 128}  # their usual latents' sides
FOLDERS = {"sd15": "checkpoints", "sdxl": "diffusion_models"}
BASES = {"sd15": "sdv15", "sdxl": "sdxl"}
ATTENTIONS = {"split": None, "quad": None, "pytorch": None, "sage": "sageattention", "flash": "flash_attn"}  # the host's, and what they need
LIMIT = 600  # seconds of a process
report: dict = {}


def draw(name: str) -> None:
    from tools.random_weights import checkpoints
    path = FOLDER / "models" / FOLDERS[name] / f"{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {"sd15": checkpoints.sd15_weights, "sdxl": checkpoints.sdxl_unet_weights}[name]()
        checkpoints.save_checkpoint(weights, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    heads = FOLDER / "models" / "readout_heads"
    heads.mkdir(parents=True, exist_ok=True)
    for kind in ("spatial_pose", "drag_correspondence"):
        checkpoints.save_published_head(heads / f"readout_{BASES[name]}_{kind}.pt", BASES[name], "spatial" in kind)


def job(name: str, label: str, do: str, **more) -> dict:
    return {"label": label, "do": do, "model": name, "file": str(FOLDER / "models" / FOLDERS[name] / f"{name}.safetensors"),
            "head": str(FOLDER / "models" / "readout_heads" / f"readout_{BASES[name]}_spatial_pose.pt"),
            "save": str(FOLDER / f"{label.replace(' ', '_')}.pt"), "size": [MODELS[name]] * 2} | more


def process(setting: dict, threads: int | None = None, main: str = "tools.gpu_jobs.step") -> list[dict]:
    """The results of one process; what it says is shown as it comes."""
    start = "import comfy_aimdo.control; comfy_aimdo.control.init(); " if setting.get("dynamic") else ""
    begin = "import json, sys; from tools.gpu_jobs.prepare import prepare; prepare(json.loads(sys.argv[1])); "  # before anything imports the host
    command = [sys.executable, "-c", f"{start}{begin}from {main} import main; main()", json.dumps(setting)]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    found, last = [], ""
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    stop = threading.Timer(LIMIT, child.kill)
    stop.start()
    for line in child.stdout:
        if line.startswith("RESULT "):
            found.append(json.loads(line.removeprefix("RESULT ")))
            print(" ", json.dumps(found[-1]), flush=True)
        else:
            last = line
    stop.cancel()
    if child.wait():
        found.append({"label": setting["jobs"][len(found)]["label"], "error": f"ended with {child.returncode}: {last}"})
        print(" ", json.dumps(found[-1]), flush=True)
    return found


def right() -> None:
    """The first move of a guided step, as against the CPU's in float32 with the same weights."""
    size = {"size": [48, 48]}
    on_cpu = [{"flags": ["cpu"], "jobs": [job(name, f"{name} cpu {kind}", "move", dtype="float32", rounded=kind, **size)
                                          for kind in ("float16", "bfloat16", "float8_e4m3fn")]} for name in MODELS]
    plain = [job(name, f"{name} {label}", "move", **size, **more) for name in MODELS for label, more in {
        "float16": {}, "bfloat16": {"dtype": "bfloat16"}, "float8_e4m3fn": {"dtype": "float8_e4m3fn"},
        "blocks computed again": {"recompute": "on"}, "partly loaded": {"partial": 2**29},
        "partly loaded, blocks computed again": {"partial": 2**29, "recompute": "on"}}.items()]
    settings = [({"jobs": plain}, 2)]
    settings += [({"flags": ["lowvram"], "jobs": [job(name, f"{name} lowvram", "move", **size) for name in MODELS]}, 2),
                 ({"dynamic": True, "jobs": [job(name, f"{name} dynamic {label}", "move", **size, **more) for name in MODELS
                                             for label, more in {"float16": {}, "again": {"recompute": "on"},
                                                                 "fp8": {"dtype": "float8_e4m3fn"}}.items()]}, 2),
                 ({"jobs": [job("sd15", "sd15 compiled", "move", compiled=True, **size)]}, 4)]
    settings += [({"flags": [f"use_{attention}_{'' if attention in ('sage', 'flash') else 'cross_'}attention"],
                   "jobs": [job(name, f"{name} {attention} attention", "move", **size) for name in MODELS]}, 2)
                 for attention, needs in ATTENTIONS.items() if not needs or importlib.util.find_spec(needs)]
    with ThreadPoolExecutor(8) as pool:
        runs = [*(pool.submit(process, setting, 5) for setting in on_cpu), *(pool.submit(process, *setting) for setting in settings)]
        found = [result for run in runs for result in run.result()]
    for result in found:
        name, saved = result["label"].split()[0], FOLDER / f"{result['label'].replace(' ', '_')}.pt"
        kind = next((k for k in ("bfloat16", "float8_e4m3fn", "fp8") if k in result["label"]), "float16").replace("fp8", "float8_e4m3fn")
        reference = FOLDER / f"{name}_cpu_{kind}.pt"
        if "error" not in result and saved.exists() and reference.exists():
            a, b = torch.load(saved).flatten(), torch.load(reference).flatten()
            result["cosine"] = round(torch.nn.functional.cosine_similarity(a, b, 0).item(), 5)
            print(f"  {result['label']}: cosine {result['cosine']}, norm {a.norm() / b.norm():.4f} of the CPU's", flush=True)
    report["right"] = found


def cost() -> None:
    """Plain and guided steps in each way, and how long the card is idle; a model at a time, so that nothing else is on the card."""
    by = partial(process, main="tools.gpu_jobs.cost")
    rows = [(name, batch, 2, side) for name, side in MODELS.items() for batch in ((1, 4) if name == "sd15" else (1,))]
    rows += [(name, 1, 1, 128) for name in ("flux1", "z-image")]
    jobs = [{"label": f"{name} {side * 8} batch {batch}, {branches} branches", "do": "steps", "model": name, "batch": batch, "branches": branches,
             "size": [side, side]} for name, batch, branches, side in rows]
    images = {"label": "sd15 512 images", "do": "images", "model": "sd15", "batch": 1, "size": [MODELS["sd15"]] * 2}
    report["cost"] = [found for job in [*jobs, images] for found in by({"jobs": [job]})]


def dynamic() -> None:
    """What steps and images cost with dynamic VRAM."""
    jobs = [job(name, f"{name} {side * 8} dynamic {do}", do) for name, side in MODELS.items() for do in ("cost", "image")]
    report["dynamic"] = process({"dynamic": True, "jobs": jobs})


def same() -> None:
    """Whether the same step again gives the same numbers, by PyTorch's settings, and what those cost."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    report["same"] = []
    for kind in (None, "warn", "strict"):
        jobs = [job(name, f"{name} {do} {kind}", do, rounds=5) for name in MODELS for do in ("move", "cost")]
        report["same"] += process({"deterministic": kind, "jobs": jobs})


def fit() -> None:
    """What fitting a head costs: small images, and ones of the usual size."""
    report["fit"] = []
    for dynamic in (False, True):
        jobs = [job(name, f"{name} {side * 8}{' dynamic' if dynamic else ''}", "fit", size=[side, side], images=100)
                for name, usual in MODELS.items() for side in ((usual,) if dynamic else (32, usual))]
        report["fit"] += process({"dynamic": dynamic, "jobs": jobs})


def edge() -> None:
    settings = [{"cap": cap, "jobs": [job(name, f"{name} {side * 8} batch {batch} in {cap} GB", "cost", batch=batch, rounds=1)
                                      for name, side in MODELS.items() for batch in (1, 4)]} for cap in (6, 8, 12, 16)]
    with ThreadPoolExecutor(len(settings)) as pool:  # which share the card, so their seconds tell little
        report["edge"] = [result for results in pool.map(process, settings) for result in results]


def transformers() -> None:
    """Flow transformers: right, as above; on smaller cards; and what steps cost, on a quiet one."""
    by = partial(process, main="tools.gpu_jobs.transformers")

    def job(label: str, do: str, **more) -> dict:
        return {"label": label, "do": do, "save": str(FOLDER / f"{label.replace(' ', '_')}.pt"), "size": [32, 32]} | more

    kinds, large = ("bfloat16", "float8_e4m3fn"), {"size": [128, 128]}
    named = [(name, kind) for name in ("z-image", "sd3.5-large") for kind in kinds]
    on_card = [job(f"{name} {kind}", "move", model=name, dtype=kind) for name, kind in named]
    settings = [({"jobs": [job("tiny bfloat16", "tiny"), *on_card]}, 2)]
    for name in ("z-image", "sd3.5-large"):
        exact = [job(f"{name} {kind} exact", "move", model=name, dtype=kind, exact=True) for kind in kinds]
        settings.append(({"flags": ["cpu"], "jobs": exact + [job("tiny exact", "tiny", dtype="float32")] * (name == "z-image")}, 6))
    with ThreadPoolExecutor(len(settings)) as pool:
        found = [result for results in pool.map(by, *zip(*settings)) for result in results]
    pairs = {label: torch.load(FOLDER / f"{label.replace(' ', '_')}.pt") for label in
             [f"{a} {b}{c}" for a, b in named for c in ("", " exact")] + ["tiny bfloat16", "tiny exact"]
             if (FOLDER / f"{label.replace(' ', '_')}.pt").exists()}
    moves = {name: (pairs["tiny bfloat16"][name], x) for name, x in pairs.get("tiny exact", {}).items() if name in pairs.get("tiny bfloat16", {})}
    moves |= {label: (x, pairs[f"{label} exact"]) for label, x in pairs.items() if f"{label} exact" in pairs}
    cosines = {label: round(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0).item(), 5) for label, (a, b) in moves.items()}
    print(f"  cosines {json.dumps(cosines)}", flush=True)
    capped = [{"cap": cap, "jobs": [job(f"{name} {kind} in {cap} GB", "cost", model=name, dtype=kind, auto=True, **large)]}
              for name, kind, cap in (("flux1", "bfloat16", 24), ("flux1", "float8_e4m3fn", 24), ("flux1", "float8_e4m3fn", 16),
                                      ("z-image", "bfloat16", 16), ("z-image", "float8_e4m3fn", 12))]
    with ThreadPoolExecutor(len(capped)) as pool:  # which share the card, so their seconds tell little
        found += [result for results in pool.map(by, capped) for result in results]
    for name in ("z-image", "flux1", "sd3.5-large"):
        found += by({"jobs": [job(f"{name} cost", "cost", model=name, **large)]})
    report["transformers"] = {"cosines": cosines, "runs": found}


def server() -> None:
    report["server"] = gpu_server.runs(FOLDER)


SECTIONS = {"right": right, "cost": cost, "dynamic": dynamic, "fit": fit, "same": same, "edge": edge, "server": server, "transformers": transformers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--json", type=to_write)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("PyTorch finds no NVIDIA card on this machine, and all of this is measured on one")
    report["device"] = device_name()
    FOLDER.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(draw, MODELS if set(options.only) - {"transformers", "cost"} else ()))
    print(f"drawn in {time.monotonic() - start:.0f} s", flush=True)
    for name in options.only:
        print(f"{name}, after {time.monotonic() - start:.0f} s", flush=True)
        try:
            SECTIONS[name]()
        except Exception as error:
            report[name] = f"{type(error).__name__}: {error}"
            print(report[name], flush=True)
        if options.json:
            options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
