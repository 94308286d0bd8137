"""How much noise a latent has, whatever scale the host's model keeps it in.

A variance-preserving latent is cos(a) of the image plus sin(a) of noise, and the angle a tells the noise level: tan(a) is the sigma of
the host's models of noise and velocity. Flow models keep 1 - sigma of the image plus sigma of noise.
"""
import math

import numpy as np
import torch
from comfy.k_diffusion.sampling import get_ancestral_step
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from comfy.model_sampling import CONST
from torch import Tensor

EMBEDDED = 256     # channels of a noise level's embedding
MOST_NOISE = 15  # sigma beyond which an image tells too little; Stable Diffusion 1.5 begins at 14.6. docs/measurements/transformers.md


def is_flow(sampling) -> bool:
    """Whether latents are kept as flow models do, by the host's model_sampling."""
    return isinstance(sampling, CONST)


def latent_scale(model, sigma: float) -> float:
    """What the sampler's latents are larger by than those of a variance-preserving model."""
    return math.hypot(1 - sigma, sigma) if is_flow(model.model_sampling) else math.sqrt(1 + sigma**2)


def prediction_scale(model, sigma: float) -> float:
    """What a shift of the predicted image is larger by than the one of a variance-preserving latent that does the same work: 1 / cos(a).

    Beyond MOST_NOISE it grows no more: models with a zero terminal SNR begin at a sigma of 4518 and step to 20, where a shift of its size would be
    all there is (docs/measurements/moves.md). Flow models begin with noise alone, and those for large images stay near it for long: beyond
    MOST_NOISE times their noise halfway the shift fades, as (1 + r^2)^-1, to nothing."""
    if not is_flow(model.model_sampling):
        return latent_scale(model, min(sigma, MOST_NOISE))
    if sigma >= 1:
        return 0.0
    ratio = noise_ratio(model, sigma)
    return math.hypot(1, ratio) / (1 + (ratio / (MOST_NOISE * halfway(model)))**2)


def depth(model, sigma: float) -> float:
    """How far from no noise `sigma` is, on a scale on which guidance goes equally far everywhere: a short step to `after` moves a
    variance-preserving latent by depth(sigma) - depth(after) times the strength. It is the logarithm of the noise over the image, and grows less
    where prediction_scale does."""
    ratio = noise_ratio(model, sigma)
    if is_flow(model.model_sampling):
        return -0.5 * math.log(ratio**-2 + (MOST_NOISE * halfway(model))**-2)
    if ratio <= MOST_NOISE:
        return math.log(ratio)
    return math.log(MOST_NOISE) + math.hypot(1, MOST_NOISE) * (math.asinh(1 / MOST_NOISE) - math.asinh(1 / ratio))


def noise_ratio(model, sigma: float) -> float:
    """What a latent has of noise over what it has of the image."""
    if not is_flow(model.model_sampling):
        return sigma
    return sigma / (1 - sigma) if sigma < 1 else math.inf


def at_percent(sampling, percent: float) -> float:
    """The sigma at this share of the schedule, in single precision: so the host compares a ControlNet's with a step's."""
    return float(np.float32(float(sampling.percent_to_sigma(percent))))


def known_range(sampling) -> tuple[float, float]:
    """The highest and the lowest sigma that the host's model_sampling knows."""
    return float(sampling.sigma_max), float(sampling.sigma_min)


def halfway(model) -> float:
    """The noise ratio of a flow model halfway through its schedule."""
    return noise_ratio(model, float(model.model_sampling.percent_to_sigma(0.5)))


def sigma_down(model, sigma: float, after: float, eta: float) -> float:
    """Where the host's ancestral Euler step from `sigma` to `after` goes before it adds noise again."""
    return after * (1 + (after / sigma - 1) * eta) if is_flow(model.model_sampling) else get_ancestral_step(sigma, after, eta=eta)[0]


def euler_ratio(model, sigma: float, after: float, eta: float) -> float:
    """What shifting the prediction must be multiplied by to equal a shift of x, in an Euler step from `sigma` to `after`."""
    down = sigma_down(model, sigma, after, eta)
    return down / (sigma - down)


def level_embedding(model, sigmas: Tensor) -> Tensor:
    """Noise levels [B] as heads are told them where a model has no embedding of its own: sinusoids [B, 256] of the angle, from 0 for none to
    1000 for nothing else."""
    angle = torch.atan2(sigmas, 1 - sigmas if is_flow(model.model_sampling) else torch.ones_like(sigmas))
    return timestep_embedding(angle * (2000 / math.pi), EMBEDDED)
