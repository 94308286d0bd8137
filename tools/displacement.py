"""How far the defaults move a picture on each family of models: `python run.py evaluate --displacement`.

The sum over Euler steps of the shifts' sizes, in units of the variance-preserving latent and of the strength, with the noise levels that the
host gives each family; arithmetic, for a shift is as large as it is meant to be (rms, docs/moves.md).
"""
from types import SimpleNamespace

import comfy.model_base
import comfy.samplers
import comfy.supported_models
from comfy.model_base import ModelType

from readout_guidance_pack.nodes.demo_model import DemoFlow
from readout_guidance_pack.nodes.sampling.noise import latent_scale, prediction_scale
from tools.control import STEPS
from tools.transformer import FEW

HOST = comfy.supported_models
FAMILIES = {"Stable Diffusion 1.5, XL": (HOST.SD15, ModelType.EPS), "Flux.1, Chroma": (HOST.Flux, ModelType.FLUX),
            "Qwen-Image": (HOST.QwenImage, ModelType.FLUX), "SD 3": (HOST.SD3, ModelType.FLOW), "Z-Image": (HOST.ZImage, ModelType.FLOW),
            "Flux.2": (HOST.Flux2, ModelType.FLUX), "Lumina 2": (HOST.Lumina2, ModelType.FLOW), "Flux.1 schnell": (HOST.FluxSchnell, ModelType.FLOW),
            "HunyuanImage 2.1": (HOST.HunyuanImage21, ModelType.FLOW), "the demo's transformer": (DemoFlow, ModelType.FLOW)}
ENDS = 0.5, 0.8, 0.9


def displacement(sampling, steps: int, end: float) -> float:
    """That of targets which act until percent `end`, in so many steps of the scheduler "simple"."""
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", steps).tolist()
    last, model, way = sampling.percent_to_sigma(end), SimpleNamespace(model_sampling=sampling), 0.0
    for sigma, after in zip(sigmas, sigmas[1:]):
        if sigma >= last and after:  # the step that ends without noise is left out
            way += prediction_scale(model, sigma) * (1 - after / sigma) / latent_scale(model, after)
    return way


def displacements(seeds: int) -> dict:
    """`seeds` is not used: nothing is drawn."""
    results = {}
    for name, (family, kind) in FAMILIES.items():
        config = SimpleNamespace(sampling_settings=family.sampling_settings)
        sampling = comfy.model_base.model_sampling(config, kind)
        results[name] = {f"until {end}, {steps} steps": round(displacement(sampling, steps, end), 2) for steps in (STEPS, FEW) for end in ENDS}
        print(f"{name:28} " + "  ".join(f"{setting}: {way:.1f}" for setting, way in results[name].items()), flush=True)
    return results
