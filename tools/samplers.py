"""Every sampler and scheduler that the host offers, guided against unguided: `python run.py evaluate --samplers [--seeds N]`."""
import importlib

import torch

from tools.evaluate import Bench, Setting, show

STEPS = 12


def samplers(seeds: int) -> dict:
    """Pose, by each sampler with its usual scheduler and by each scheduler with DPM++ 2M; `same` is 1 if sampling again gives
    the very same pictures."""
    bench, results = Bench(seeds), {}
    again = Bench(min(2, seeds))
    host = importlib.import_module("comfy.samplers").KSampler
    rows = [(f"{sampler}, karras", sampler, "karras") for sampler in host.SAMPLERS]
    rows += [(f"dpmpp_2m, {scheduler}", "dpmpp_2m", scheduler) for scheduler in host.SCHEDULERS if scheduler != "karras"]
    for label, sampler, scheduler in rows:
        results[label] = {}
        for setting, move in (("unguided", None), ("guided", bench.engine.Move())):
            result = bench.measure(("pose",), Setting(move, steps=STEPS, sampler=sampler, scheduler=scheduler))
            pictures = [again.sample(("pose",), Setting(move, steps=4, sampler=sampler, scheduler=scheduler)) for _ in range(2)]
            result["same"] = float(torch.equal(*pictures))
            results[label][setting] = result
            show(label, setting, result)
    return results
