"""The published preset beside the default: `python run.py evaluate --presets [--seeds N]`.

Each with the sampler that it is meant for: the default with DPM++ 2M, 20 steps, cfg 3; the published one through its node,
100 DDIM steps with eta 1, at the authors' cfg and at the demo model's.
"""
import torch

from readout_guidance_pack.heads.demo import judge
from readout_guidance_pack.nodes.published import KSamplerReadoutGuidancePublished
from readout_guidance_pack.rg_core.updates import PUBLISHED, Move
from tools.control import BATCH, CFG, CONTROLS, NOISE_SEED, Bench, Setting, show

END = 0.5  # the authors' range

def presets(seeds: int) -> dict:
    bench, results = Bench(seeds), {}

    @torch.inference_mode()
    def published(kinds: tuple[str, ...], cfg: float) -> torch.Tensor:
        pictures = []
        for first in range(0, seeds, BATCH):
            part = slice(first, min(first + BATCH, seeds))
            latent = {"samples": torch.zeros(part.stop - first, 3, *bench.size), "batch_index": list(range(first, part.stop))}
            latent = KSamplerReadoutGuidancePublished.execute(
                bench.model, NOISE_SEED, 100, cfg, 1.0, True, [[bench.said_context[part], {}]], bench.negative, latent,
                guidance=bench.guidance(kinds, END, part), strength=PUBLISHED.strength)[0]
            pictures.append(bench.vae.decode(latent["samples"]).movedim(-1, 1).cpu())
        return torch.cat(pictures)

    for name in ("pose", "depth", "edge"):
        kinds = CONTROLS[name]
        rows = {"unguided": lambda: bench.sample((), Setting()), "guided": lambda: bench.sample(kinds, Setting(Move())),
                "published": lambda: published(kinds, CFG), "published, cfg 7.5": lambda: published(kinds, 7.5)}
        results[name] = {}
        for setting, make in rows.items():
            results[name][setting] = judge.figures(make(), bench.scene, bench.said)
            show(name, setting, results[name][setting])
    return results
