"""Tiny transformers, sampled; and a head for them."""
import comfy.quant_ops
import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import torch

from readout_guidance_pack.nodes.engine.schedule.noise_levels import EMBEDDED
from readout_guidance_pack.nodes.make_heads.training_set import of_model
from readout_guidance_pack.rg_core.features import taps
from readout_guidance_pack.rg_core.readout.linear_head import LinearHead, from_maps
from tiny_transformers import TINY, conditioning


def sampled(model, name: str, steps: int = 4, cfg: float = 3.0, size: tuple[int, int] | None = None, count: int = 2):
    latent = torch.zeros(count, *TINY[name].shape[:-2], *(size or TINY[name].shape[-2:]))
    noise = comfy.sample.prepare_noise(latent, 5)
    return comfy.sample.sample(model, noise, steps, cfg, "euler", "simple", conditioning(name, 1), conditioning(name, 2), latent, disable_pbar=True)


def depth_head(model) -> LinearHead:
    """A head such as Fit Readout Head makes, with random weights."""
    about, rng = of_model(model), torch.Generator().manual_seed(3)
    unet = model.model.diffusion_model
    channels = taps.channels(unet)
    maps = [(torch.randn(sum(channels), 3, generator=rng), torch.zeros(3)) for _ in range(5)]
    return from_maps("depth", channels, maps, torch.randn(8, taps.embedding_width(unet) or EMBEDDED, generator=rng), **about)
