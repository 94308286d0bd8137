"""The controls with the model computing in narrower types: `python run.py evaluate --precisions [--seeds N]`."""
from contextlib import nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import CONTROLS, Bench, Setting, show

aten = torch.ops.aten
PRODUCTS = {aten.convolution.default, aten.convolution_backward.default, aten.mm.default, aten.addmm.default, aten.bmm.default,
            aten.baddbmm.default,
            aten.conv2d.default, aten.linear.default, aten.matmul.default}  # as inference mode calls them


class AccumulatingInSingle(TorchDispatchMode):
    """Convolutions and products of float16 tensors, computed in float32 and rounded, which is what GPUs do.

    A CPU without float16 arithmetic takes forty times as long over PyTorch's own."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func not in PRODUCTS or args[0].dtype != torch.float16:
            return func(*args, **kwargs or {})
        results = func(*tree_map_only(torch.Tensor, torch.Tensor.float, args), **kwargs or {})
        return tree_map_only(torch.Tensor, torch.Tensor.half, results)


def precisions(seeds: int) -> dict:
    bench, results = Bench(seeds), {}
    unet = bench.model.model.diffusion_model
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        with torch.inference_mode():
            unet.to(dtype)
        unet.dtype = dtype  # which the host computes in
        on_cpu = bench.model.load_device.type == "cpu"
        for name, kinds in {"unguided": (), **CONTROLS}.items():
            setting = f"{'guided' if kinds else 'unguided'}, {str(dtype).removeprefix('torch.')}"
            with AccumulatingInSingle() if on_cpu and dtype == torch.float16 else nullcontext():
                result = bench.measure(kinds, Setting(Move() if kinds else None))
            for control in [name] if kinds else CONTROLS:
                results.setdefault(control, {})[setting] = result
            show(name, setting, result)
    return results
