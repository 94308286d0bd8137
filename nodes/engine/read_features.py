"""Asking a model about given images at chosen noise levels, in the host's own way, without sampling anything."""
from collections.abc import Sequence

import comfy.samplers
import torch
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor

from ...rg_core.features import architectures, taps
from ...rg_core.features.raw_features import AS_THEY_ARE
from ..common.log import Log
from .batches import windows
from .calls.conditioning import GAP, uncovered
from .guidance import unguide
from .memory import head_patcher
from .run import KEY
from .schedule.noise_levels import level_embedding
from .step import Step

TIMESTEPS = 1000


class FeatureReader(comfy.samplers.Sampler):
    """Samples nothing: asks the model once about latents, each at a noise level of its own, and keeps what `use` makes of what it
    answers (see `read_features`)."""

    def __init__(self, node: str, levels: Tensor, use, heads: Sequence):
        self.node, self.levels, self.use, self.heads = node, levels, use, heads

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar):
        model, conds, levels = model_wrap.inner_model, model_wrap.conds["positive"], self.levels.to(noise)
        x = model.model_sampling.noise_scaling(levels, noise, latent_image)
        step = Step(Log(self.node), comfy.samplers.calc_cond_batch, model, x, levels, extra_args["model_options"])
        acting = step.active_areas(conds)
        if not acting:
            raise ValueError(f"{self.node}: the conditioning is not active at this noise level, so the model was not called. Connect a conditioning "
                             "without a time limit, or choose another noise level.")
        gap = uncovered(acting, x)
        if gap > GAP:
            raise ValueError(f"{self.node}: the conditioning leaves out {gap:.0%} of the image, where nothing would be read. Connect a conditioning "
                             "for the whole image, from before an area or mask is set; an empty prompt is enough.")
        self.found = self.use(model, step.read(conds, self.heads))
        return latent_image


def read_features(node: str, model, positive: list, samples: Tensor, noise: Tensor, levels: Tensor, use, heads: Sequence = ()):
    """What `use(base_model, reading)` makes of the taps' reading of latents [B, C, H, W] with `noise` of the same shape at the
    sigmas `levels` [B]. MODEL and `heads` are loaded as for sampling; its own guidance and context windows rest."""
    model = model.clone()
    unguide(model)
    windows.undo(model)
    model.set_additional_models(KEY, [head_patcher(head, model) for head in heads])
    asker, guider = FeatureReader(node, levels, use, heads or [AS_THEY_ARE]), comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": positive})
    guider.sample(noise, samples, asker, torch.tensor([float(levels.max()), 0.0]), disable_pbar=True, seed=0)
    return asker.found


def sigma_at(model, percent: float) -> float:
    """The sigma at this share of MODEL's noise schedule, within what the model knows."""
    sampling = model.get_model_object("model_sampling")
    return min(max(sampling.percent_to_sigma(percent), float(sampling.sigma_min)), float(sampling.sigma_max))


def embeddings(model, sigmas: Tensor, reading: taps.Reading, left: bool = False) -> Tensor:
    """The embeddings [N, E] of noise levels [N] as `model`, the host's BaseModel, makes them; like those of `reading`. With `left`, of how many
    timesteps of a generation are done there instead."""
    row = architectures.architecture_of(model.diffusion_model)
    if not row.embedding:
        return level_embedding(model, sigmas).to(reading.emb)
    steps = model.model_sampling.timestep(sigmas)
    sinusoids = timestep_embedding((TIMESTEPS - steps if left else steps).to(reading.emb.device), model.diffusion_model.model_channels)
    return getattr(model.diffusion_model, row.embedding)(sinusoids.to(reading.emb.dtype))


def levels(model, base_model, reading: taps.Reading, count: int) -> Tensor:
    """The embeddings [count, E], float32, at `count` equally distant shares of MODEL's noise schedule, as a LinearHead knows them."""
    sigmas = torch.tensor([sigma_at(model, share) for share in torch.linspace(0, 1, count).tolist()])
    return embeddings(base_model, sigmas, reading).float().cpu()
