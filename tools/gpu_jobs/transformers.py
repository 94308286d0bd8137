"""Flow transformers at their real size with random weights, in guided steps on one device; and the tests' tiny ones.

`tools/gpu.py` starts a process of this for each setting of the host, as of step.py, and it takes the same JSON and prints the same lines.
Jobs name a `model` of tools.benchmarks.transformers.REAL, the `dtype` of its weights, and the `size` of its latents.
"""
import sys
import traceback
from functools import partial

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch

from tools import ROOT
from tools.benchmarks.costs import in_turn, sample
from tools.benchmarks.transformers import GIB, REAL, Subject, settings
from tools.gpu_jobs.jobs import run_jobs
from tools.gpu_jobs.step import moves_of, remembered

SIGMAS = torch.linspace(0.95, 0.6, 5)  # four steps, where all targets act
FIRST = torch.tensor([0.9, 0.7])
GUIDANCE = {"guidance": 4.0}  # Flux is told a thousand times as much in the type of its weights; 3,500, the host's default, bf16 rounds to 3,504


def subject(job: dict) -> Subject:
    """The model with random weights, drawn on the card where there is one, kept in main memory until the host wants it; `exact` keeps it in
    float32 with the values that `dtype` would give it."""
    real, dtype = REAL[job["model"]], getattr(torch, job.get("dtype", "bfloat16"))
    config = getattr(comfy.supported_models, real.family)(dict(real.config))
    config.set_inference_dtype(*(torch.float32, None) if job.get("exact") else (dtype, torch.bfloat16 if dtype.itemsize == 1 else None))
    model = config.get_model({}, "", device=torch.device("cpu"))
    rng = torch.Generator("cuda").manual_seed(0)
    for name, weight in [*model.diffusion_model.named_parameters(), *model.diffusion_model.named_buffers()]:
        if weight.is_floating_point() and weight.ndim > 1:
            drawn = torch.empty(weight.shape, device="cuda").normal_(std=weight[0].numel()**-0.5, generator=rng)
            weight.data.copy_(drawn.to(dtype))
        elif weight.is_floating_point():
            weight.data.fill_(float(name.endswith(("weight", "scale"))))
    model.diffusion_model.eval().requires_grad_(False)
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=comfy.model_management.get_torch_device(), offload_device=torch.device("cpu"))
    rng = torch.Generator().manual_seed(1)
    said = [[torch.randn(1, *real.words, generator=rng), {"pooled_output": torch.randn(1, real.pooled, generator=rng)} | GUIDANCE]]
    return Subject(patcher, said, (1, 16, *job["size"]))


def move(job: dict) -> dict:
    """Where guidance moves the first step, saved to compare."""
    of = subject(job)
    model = settings(of)["pose"]
    moved = moves_of(lambda: sample(model, of.conditioning, of.shape, FIRST))
    torch.save(moved[0], job["save"])
    return {"computes_in": str(of.model.model.get_dtype_inference()), "finite": bool(moved[0].isfinite().all())}


def tiny(job: dict) -> dict:
    """Likewise, of each of the tests' tiny models."""
    sys.path.append(str(ROOT / "tests" / "support"))
    import tiny_transformers
    moved, failed = {}, {}
    for name in tiny_transformers.HERE:
        try:
            model = tiny_transformers.tiny_model(name, getattr(torch, job.get("dtype", "bfloat16")))
            model.load_device = comfy.model_management.get_torch_device()
            (words, more), = tiny_transformers.conditioning(name, 1)
            of = Subject(model, [[words, more | GUIDANCE]], (1, *tiny_transformers.TINY[name].shape))
            pose = settings(of)["pose"]
            moved[name], = moves_of(lambda: sample(pose, of.conditioning, of.shape, FIRST))[:1]
        except Exception as error:
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {str(error)[:200]}"
    torch.save(moved, job["save"])
    return {"failed": failed} if failed else {}


def cost(job: dict) -> dict:
    """Seconds and peak memory of steps, plain and guided, with one branch and with two."""
    of, again = subject(job), remembered()
    models = {"plain": of.model, "auto": settings(of, "auto")["pose"]} if "auto" in job else settings(of)
    found = {}
    for cfg, branches in ((1.0, "one branch"), (3.0, "two")):
        actions = {label: partial(sample, model, of.conditioning, of.shape, SIGMAS, cfg=cfg) for label, model in models.items()}
        costs = in_turn(actions, 1, warm=actions)
        plain = costs["plain"].seconds
        found[branches] = {label: [round(c.seconds / (len(SIGMAS) - 1), 3), round(c.seconds / plain, 2), round(c.peak / GIB, 1)]
                           for label, c in costs.items()}
    return found | {"again": sorted(set(again)), "weights_gib": round(of.model.loaded_size() / GIB, 1)}


ACTIONS = {"move": move, "tiny": tiny, "cost": cost}


def main() -> None:
    run_jobs(lambda job: ACTIONS[job["do"]](job))
