"""Heads fitted from a few drawn pictures beside the shipped ones: `python run.py evaluate --fit [--seeds N]`."""
import time

import comfy.model_management
import torch
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding

from readout_guidance_pack.rg_core import fitting, taps
from readout_guidance_pack.rg_core.linear_head import LinearHead
from readout_guidance_pack.rg_core.updates import Move
from tools.control import Bench, Setting, show
from tools.train_demo import CONTROL_RANGES, SIZE, scenes

COUNTS = (10, 25, 100, 300)
SEED = 7000
BANDS, LEVELS = 5, 64
RIDGE, SHARED = 1e-3, 0.3
TIMESTEPS = 999
PART = 16  # pictures that are read at a time


def features(unet, sampling, latents: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, rng: torch.Generator) -> list:
    """The taps of noised latents at `timesteps` [B], by the empty prompt."""
    sigma = sampling.sigma(timesteps).view(-1, 1, 1, 1)
    x = sampling.calculate_input(sigma, latents + sigma * torch.randn(latents.shape, generator=rng))
    with taps.record(unet) as readings:
        unet(x.to(unet.dtype), timesteps, context=context.expand(len(x), -1, -1).to(unet.dtype), transformer_options={})
    return readings[0].features


def fit(bench: Bench, count: int) -> dict[str, LinearHead]:
    """A head for each spatial kind, from `count` drawn pictures."""
    sample, wanted = scenes(count, SEED)
    comfy.model_management.load_models_gpu([bench.model])
    unet, sampling = bench.model.model.diffusion_model, bench.model.get_model_object("model_sampling")
    latents, context = bench.vae.encode(sample.image.movedim(1, -1)), bench.negative[0][0]
    targets = torch.cat([wanted[kind] for kind in CONTROL_RANGES], 1)
    sums, rng = fitting.Sums(BANDS, sum(taps.channels(unet)), targets.shape[1]), torch.Generator().manual_seed(0)
    for band in range(BANDS):
        for part in torch.arange(count).split(PART):
            timesteps = (TIMESTEPS * (BANDS - 1 - band + torch.rand(len(part), generator=rng)) / BANDS).round().clamp(min=1)
            seen = features(unet, sampling, latents[part], timesteps, context, rng)
            sums.add(band, fitting.rows(seen, SIZE), targets[part].movedim(1, -1).flatten(0, 2))
    maps, bias = sums.solve(RIDGE, SHARED)
    levels = unet.time_embed(timestep_embedding(torch.linspace(TIMESTEPS, 0, LEVELS), unet.model_channels).to(unet.dtype)).float()
    heads = {}
    with torch.inference_mode(False):
        for i, (kind, span) in enumerate(CONTROL_RANGES.items()):
            own = slice(3 * i, 3 * i + 3)
            weights = [w.mT.float().clone() for w in maps[..., own].split(taps.channels(unet), 1)]
            heads[kind] = LinearHead(kind, levels.clone(), weights, bias[:, own].float().clone(), control_range=span).requires_grad_(False)
    return heads


@torch.inference_mode()
def fits(seeds: int) -> dict:
    bench, results = Bench(seeds), {kind: {} for kind in CONTROL_RANGES}
    shipped, unguided = bench.heads, bench.measure((), Setting())
    for setting in ("unguided", "shipped", *(f"fit {count}" for count in COUNTS)):
        start = time.monotonic()
        bench.heads = fit(bench, int(setting.split()[1])) if setting.startswith("fit") else shipped
        took = {"fitted_in": round(time.monotonic() - start, 1)} if setting.startswith("fit") else {}
        for kind in CONTROL_RANGES:
            results[kind][setting] = unguided if setting == "unguided" else bench.measure((kind,), Setting(Move())) | took
            show(kind, setting, results[kind][setting])
    return results
