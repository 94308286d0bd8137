"""Every sampler and scheduler that the host offers, guided against unguided: `python run.py evaluate --samplers [--seeds N]`."""
import torch
from comfy.samplers import KSampler

from readout_guidance_pack.rg_core.updates import Move
from tools.control import Bench, Setting, show

STEPS = 12
# They extrapolate from several earlier predictions, which goes wrong over few steps, so they are shown with more as well.
LONG_MEMORY, MORE_STEPS = ("dpm_fast", "dpmpp_3m_sde", "ipndm", "ipndm_v", "deis", "sa_solver", "uni_pc", "uni_pc_bh2"), (20, 30)


def samplers(seeds: int) -> dict:
    """Pose, by each sampler with its usual scheduler and by each scheduler with DPM++ 2M; `same` is 1 if sampling again gives
    the very same pictures."""
    bench, results = Bench(seeds), {}
    again = Bench(min(2, seeds))
    rows = {f"{sampler}, karras": (sampler, "karras", STEPS) for sampler in KSampler.SAMPLERS}
    rows |= {f"dpmpp_2m, {scheduler}": ("dpmpp_2m", scheduler, STEPS) for scheduler in KSampler.SCHEDULERS if scheduler != "karras"}
    rows |= {f"{sampler}, karras, {steps} steps": (sampler, "karras", steps) for steps in MORE_STEPS for sampler in LONG_MEMORY}
    for label, (sampler, scheduler, steps) in rows.items():
        results[label] = {}
        for setting, move in (("unguided", None), ("guided", Move())):
            result = bench.measure(("pose",), Setting(move, steps=steps, sampler=sampler, scheduler=scheduler))
            pictures = [again.sample(("pose",), Setting(move, steps=4, sampler=sampler, scheduler=scheduler)) for _ in range(2)]
            result["same"] = float(torch.equal(*pictures))
            results[label][setting] = result
            show(label, setting, result)
    return results
