"""Every sampler and scheduler that the host offers, guided against unguided: `python run.py evaluate --samplers [--seeds N]`."""
import torch
from comfy.samplers import KSampler

from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import Bench, Setting, show

STEPS = 12
FEW = 6  # with the scheduler that few-step models are sampled by


def rows() -> dict[str, tuple[str, str, int]]:
    """What is sampled: (sampler, scheduler, steps), by label."""
    found = {f"{sampler}, sgm_uniform, {FEW} steps": (sampler, "sgm_uniform", FEW) for sampler in KSampler.SAMPLERS}
    found |= {f"{sampler}, karras": (sampler, "karras", STEPS) for sampler in KSampler.SAMPLERS}
    return found | {f"dpmpp_2m, {scheduler}": ("dpmpp_2m", scheduler, STEPS) for scheduler in KSampler.SCHEDULERS if scheduler != "karras"}


def samplers(seeds: int) -> dict:
    """Pose, in few steps by each sampler, in more by each with its usual scheduler and by each scheduler with DPM++ 2M; `same` is 1 if
    sampling again gives the very same images."""
    bench, results = Bench(seeds), {}
    again = Bench(min(2, seeds))
    for label, (sampler, scheduler, steps) in rows().items():
        results[label] = {}
        for setting, move in (("unguided", None), ("guided", Move())):
            result = bench.measure(("pose",), Setting(move, steps=steps, sampler=sampler, scheduler=scheduler))
            images = [again.sample(("pose",), Setting(move, steps=4, sampler=sampler, scheduler=scheduler)) for _ in range(2)]
            result["same"] = float(torch.equal(*images))
            results[label][setting] = result
            show(label, setting, result)
    return results
