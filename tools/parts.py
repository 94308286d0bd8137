"""Control where a node samples a part at a time: `python run.py evaluate --parts [--seeds N]`.

`windows`: ComfyUI's Context Windows of 4 on 8 pictures with a pose each, the first four and the last four figures, beside the same
pictures sampled without windows. `tiles`: a model function that shows the diffusion model overlapping tiles of 64x64 of a picture of
96x96, beside the same unguided and the same untiled.
"""
import inspect
from dataclasses import replace

import torch
from comfy_extras.nodes_context_windows import ContextWindowsManualNode

from readout_guidance_pack.heads.demo import judge
from readout_guidance_pack.rg_core.updates import Move
from tools.control import Bench, Setting, show

LENGTH, TILE = 4, 64


def tiled(apply_model, given):
    """What packs for large pictures do, blended evenly."""
    x, timestep, c = given["input"], given["timestep"], given["c"]
    out, times = torch.zeros_like(x), torch.zeros_like(x)
    for top in sorted({0, x.shape[-2] - TILE}):
        for left in sorted({0, x.shape[-1] - TILE}):
            place = (..., slice(top, top + TILE), slice(left, left + TILE))
            out[place] += apply_model(x[place], timestep, **c)
            times[place] += 1
    return out / times


def windowed(model, length: int, overlap: int, causal: bool):
    options = {"context_length": length, "context_overlap": overlap, "context_schedule": "standard_static", "context_stride": 1,
               "closed_loop": False, "fuse_method": "pyramid", "dim": 0, "freenoise": False}
    if "causal_window_fix" in inspect.signature(ContextWindowsManualNode.execute).parameters:  # ComfyUI 0.18.2 has none
        options["causal_window_fix"] = causal
    return ContextWindowsManualNode.execute(model, **options)[0]


def part_of(x, part: slice):
    """Of a scene or its words, some pictures."""
    return replace(x, **{name: value[part] for name, value in vars(x).items() if isinstance(value, (torch.Tensor, list, tuple)) and len(value)})


@torch.inference_mode()
def parts(seeds: int) -> dict:
    results = {"windows": {}, "tiles": {}}
    bench = Bench(2 * LENGTH)
    whole = bench.model
    for name, model in {"alone": whole, "windows": windowed(whole, LENGTH, 0, False), "windows, causal fix": windowed(whole, LENGTH, 0, True),
                        "windows, overlap 2, causal fix": windowed(whole, LENGTH, 2, True)}.items():
        bench.model = model
        for kinds, setting in (((), Setting()), (("pose",), Setting(Move()))):
            pictures = bench.sample(kinds, setting)
            for label, part in (("1 to 4", slice(0, LENGTH)), ("5 to 8", slice(LENGTH, 2 * LENGTH))):
                row = f"{'guided' if kinds else 'unguided'}, {name}, {label}"
                results["windows"][row] = judge.figures(pictures[part], part_of(bench.scene, part), part_of(bench.said, part))
                show("windows", row, results["windows"][row])
    bench = Bench(seeds, 96, 96)
    whole, tiles = bench.model, bench.model.clone()
    tiles.set_model_unet_function_wrapper(tiled)
    for name, model in (("untiled", whole), ("tiles", tiles)):
        bench.model = model
        for kinds, setting in (((), Setting()), (("pose",), Setting(Move()))):
            row = f"{'guided' if kinds else 'unguided'}, {name}"
            results["tiles"][row] = bench.measure(kinds, setting)
            show("tiles", row, results["tiles"][row])
    return results
