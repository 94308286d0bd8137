"""The controls with the model computing in narrower types: `python run.py evaluate --precisions [--seeds N]`."""
import torch

from tools.evaluate import CONTROLS, Bench, Setting, show


def precisions(seeds: int) -> dict:
    bench, results = Bench(seeds), {}
    unet = bench.model.model.diffusion_model
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        with torch.inference_mode():
            unet.to(dtype)
        unet.dtype = dtype  # which the host computes in
        for name, kinds in {"unguided": (), **CONTROLS}.items():
            setting = f"{'guided' if kinds else 'unguided'}, {str(dtype).removeprefix('torch.')}"
            result = bench.measure(kinds, Setting(bench.engine.Move() if kinds else None))
            for control in [name] if kinds else CONTROLS:
                results.setdefault(control, {})[setting] = result
            show(name, setting, result)
    return results
