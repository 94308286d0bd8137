"""Heads fitted from a few images beside the shipped ones: `python run.py evaluate --fit [--seeds N]`.

Images are drawn, or sampled by the demo model itself with an empty prompt. What should be read of drawn images is known; of sampled ones the
world's rules tell depth and edges, and the shipped pose head, at percent 0.95, poses: in the place of the detectors that people have.
"""
import time

import nodes as host_nodes
import torch

from readout_guidance_pack.heads.demo import judge, world
from readout_guidance_pack.nodes.make_heads.estimate import ReadoutEstimate
from readout_guidance_pack.nodes.make_heads.examples import Example
from readout_guidance_pack.nodes.make_heads.fitter import fit_head
from readout_guidance_pack.nodes.make_heads.training_set import TrainingSet
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import BATCH, Bench, Setting, show
from tools.train_demo import DEMO_RANGES, scenes

COUNTS = (10, 25, 100, 300)
SEED = 7000


def drawn(bench: Bench, count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Images [N, 3, H, W], and what each spatial head should read of them, likewise, 0 to 1."""
    sample, wanted = scenes(count, SEED)
    return sample.image, {kind: (wanted[kind] - low) / (high - low) for kind, (low, high) in DEMO_RANGES.items()}


def sampled(bench: Bench, count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    latents = [host_nodes.common_ksampler(bench.model, SEED + first, 20, 1.0, "dpmpp_2m", "karras", bench.negative, bench.negative,
                                          {"samples": torch.zeros(min(BATCH, count - first), 3, 64, 64)})[0]["samples"]
               for first in range(0, count, BATCH)]
    images = bench.vae.decode(torch.cat(latents)).cpu()
    poses = torch.cat([ReadoutEstimate.execute(bench.model, bench.heads["pose"], bench.negative, 0.95, 0, image=part, vae=bench.vae)[0]
                       for part in images.split(BATCH)])
    images = images.movedim(-1, 1)
    grey = {"depth": judge.nearness(images), "edge": world.edges(images)}
    return images, {"pose": poses.movedim(-1, 1)} | {kind: x[:, None].expand(-1, 3, -1, -1) for kind, x in grey.items()}


SOURCES = {"": drawn, " sampled": sampled}


@torch.inference_mode()
def fits(seeds: int) -> dict:
    bench, results = Bench(seeds), {kind: {} for kind in DEMO_RANGES}
    shipped, unguided = bench.heads, bench.measure((), Setting())
    for kind in DEMO_RANGES:
        results[kind] = {"unguided": unguided, "shipped": bench.measure((kind,), Setting(Move()))}
        for setting, result in results[kind].items():
            show(kind, setting, result)
    for source, make in SOURCES.items():
        bench.heads = shipped
        images, wanted = make(bench, max(COUNTS))
        latents = bench.vae.encode(images.movedim(1, -1))
        for count in COUNTS:
            for kind in DEMO_RANGES:
                given = [Example(latents[i:i + 1], bench.negative, wanted[kind][i:i + 1]) for i in range(count)]
                start = time.monotonic()
                head, quality = fit_head(TrainingSet("evaluate", bench.model, given, kind), 0)
                took, bench.heads = time.monotonic() - start, shipped | {kind: head}
                result = bench.measure((kind,), Setting(Move())) | {"fitted_in": round(took, 1), "start": quality.start,
                                                                    "reads": round(max(quality.shares), 3)}
                results[kind][f"fit {count}{source}"] = result
                show(kind, f"fit {count}{source}", result)
    return results
