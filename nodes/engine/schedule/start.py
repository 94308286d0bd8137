"""Where a sampling begins that adds no noise."""
import torch
from comfy.patcher_extension import WrappersMP

from .noise_levels import is_flow

KEY = "readout_guidance_start"


def attach(model) -> None:
    """Has MODEL, in place, begin with the latent that it is given where no noise is added."""
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)  # it may come from a node like this one
    if is_flow(model.get_model_object("model_sampling")):
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, start_from_latent)


def start_from_latent(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    """Flow models begin with sigma of the noise and 1 - sigma of the latent: where that is nothing, as in the noise that Readout Invert finds,
    the latent takes the noise's place."""
    patcher = executor.class_obj.model_patcher
    if len(sigmas) and sigmas[0] >= 1 and not noise.any() and latent_image.any():
        one = patcher.get_model_object("model_sampling").noise_scaling(sigmas[:1].cpu(), torch.ones(1), torch.zeros(1))
        noise, latent_image = patcher.model.process_latent_in(latent_image).to(noise) / one.to(noise), torch.zeros_like(latent_image)
    return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
