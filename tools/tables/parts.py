"""Control where a node samples a part at a time: `python run.py evaluate --parts [--seeds N]`.

`windows`: ComfyUI's Context Windows of 4 on 8 images with a pose each, the first four and the last four figures, beside the same
images sampled without windows. `tiles`: a model function that shows the diffusion model overlapping tiles of 64x64 of an image of
96x96, beside the same unguided and the same untiled. `crops`: a crop of 64x64 with the figure out of an image of 96x96, sampled again at
denoise 0.6 as detailers do, with the MODEL from before guidance, with the whole image's target, and with the crop's own.
"""
import inspect
from dataclasses import replace

import nodes as host_nodes
import torch
from comfy_extras.nodes_context_windows import ContextWindowsManualNode

from readout_guidance_pack.heads.demo import judge
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import CFG, NOISE_SEED, STEPS, Bench, Setting, show

LENGTH, TILE = 4, 64


def tiled(apply_model, given):
    """What packs for large images do, blended evenly."""
    x, timestep, c = given["input"], given["timestep"], given["c"]
    out, times = torch.zeros_like(x), torch.zeros_like(x)
    for top in sorted({0, x.shape[-2] - TILE}):
        for left in sorted({0, x.shape[-1] - TILE}):
            place = (..., slice(top, top + TILE), slice(left, left + TILE))
            out[place] += apply_model(x[place], timestep, **c)
            times[place] += 1
    return out / times


def windowed(model, length: int, overlap: int, causal: bool, **more):
    options = {"context_length": length, "context_overlap": overlap, "context_schedule": "standard_static", "context_stride": 1,
               "closed_loop": False, "fuse_method": "pyramid", "dim": 0, "freenoise": False, **more}
    if "causal_window_fix" in inspect.signature(ContextWindowsManualNode.execute).parameters:  # ComfyUI 0.18.2 has none
        options["causal_window_fix"] = causal
    return ContextWindowsManualNode.execute(model, **options)[0]


def part_of(x, part: slice):
    """Of a scene or its words, some images."""
    return replace(x, **{name: value[part] for name, value in vars(x).items() if isinstance(value, (torch.Tensor, list, tuple)) and len(value)})


def cropped(scene, skeletons):
    """A part of each image of a scene with its figure in the middle; the scene of these parts, and their skeletons."""
    size = scene.image.shape[-1]
    corner = (scene.joints.mean(1) - TILE / 2).round().clamp(0, size - TILE).long()
    image, skeleton = (torch.stack([one[..., y:y + scale * TILE, x:x + scale * TILE] for one, (x, y) in zip(images, scale * corner)])
                       for images, scale in ((scene.image, 1), (skeletons.movedim(-1, 1), skeletons.shape[1] // size)))
    return replace(scene, image=image, joints=scene.joints - corner[:, None]), skeleton.movedim(1, -1)


def crops(seeds: int) -> dict:
    bench, results = Bench(seeds, 96, 96), {}
    whole, said = bench.images["pose"], bench.scene.prompts()
    part, own = cropped(bench.scene, whole)
    context = torch.cat([bench.clip.encode_from_tokens_scheduled(bench.clip.tokenize(words))[0][0] for words in said])
    latent = {"samples": bench.vae.encode(part.image.movedim(1, -1))}
    for name, image in (("the MODEL from before", None), ("the whole picture's target", whole), ("the crop's own target", own)):
        model = bench.model
        if image is not None:
            bench.images["pose"] = image
            model = guided("evaluate", model, bench.guidance(("pose",), Setting.end, slice(None)), Move())
        out, = host_nodes.common_ksampler(model, NOISE_SEED, STEPS, CFG, bench.sampler, bench.scheduler, [[context, {}]], bench.negative, latent,
                                          denoise=0.6)
        image = bench.vae.decode(out["samples"]).movedim(-1, 1)
        results[name] = {label: judge.pck(image, part.joints, part.height, within).mean().item()
                         for label, within in (("pck", 0.1), ("pck05", 0.05))}
        show("crops", name, results[name])
    return results


@torch.inference_mode()
def parts(seeds: int) -> dict:
    results = {"windows": {}, "tiles": {}, "crops": crops(seeds)}
    bench = Bench(2 * LENGTH)
    whole = bench.model
    for name, model in {"alone": whole, "windows": windowed(whole, LENGTH, 0, False), "windows, causal fix": windowed(whole, LENGTH, 0, True),
                        "windows, overlap 2, causal fix": windowed(whole, LENGTH, 2, True)}.items():
        bench.model = model
        for kinds, setting in (((), Setting()), (("pose",), Setting(Move()))):
            images = bench.sample(kinds, setting)
            for label, part in (("1 to 4", slice(0, LENGTH)), ("5 to 8", slice(LENGTH, 2 * LENGTH))):
                row = f"{'guided' if kinds else 'unguided'}, {name}, {label}"
                results["windows"][row] = judge.figures(images[part], part_of(bench.scene, part), part_of(bench.said, part))
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
