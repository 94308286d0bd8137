"""How far the defaults move an image: `python run.py evaluate --displacement`, on each family of models, and by each sampler and number of steps.

The sum of the lengths of all moves, in units of the variance-preserving latent and of the strength, with the noise levels that the host gives each
family: of those of latents, and of what lands of the shifts in the latents of the host's own sampler. It is arithmetic, for a move is as long as
it is meant to be (rms, docs/measurements/moves.md); what lands is found by a model that predicts nothing but the shifts, all in one direction.
"""
import math
from types import SimpleNamespace

import comfy.model_base
import comfy.samplers
import comfy.supported_models
import torch
from comfy.model_base import ModelType
from comfy.samplers import KSampler

from readout_guidance_pack.nodes.demo.demo_model import DemoFlow
from readout_guidance_pack.nodes.engine.schedule.landing import APART, Landed, landings, rehearsed, remaining
from readout_guidance_pack.nodes.engine.schedule.moves import Moves, planned
from readout_guidance_pack.nodes.engine.schedule.noise_levels import known_range, latent_scale, prediction_scale
from readout_guidance_pack.rg_core.guidance.targets import Spatial

HOST = comfy.supported_models
FAMILIES = {"Stable Diffusion 1.5, XL": (HOST.SD15, ModelType.EPS), "Flux.1, Chroma": (HOST.Flux, ModelType.FLUX),
            "Qwen-Image": (HOST.QwenImage, ModelType.FLUX), "SD 3": (HOST.SD3, ModelType.FLOW), "Z-Image": (HOST.ZImage, ModelType.FLOW),
            "Flux.2": (HOST.Flux2, ModelType.FLUX), "Lumina 2": (HOST.Lumina2, ModelType.FLOW), "Flux.1 schnell": (HOST.FluxSchnell, ModelType.FLOW),
            "HunyuanImage 2.1": (HOST.HunyuanImage21, ModelType.FLOW), "the demo's transformer": (DemoFlow, ModelType.FLOW)}
END = Spatial.end
COUNTS = (4, 6, 8, 12, 20)


class Known:
    """What a sampler asks of a guider besides predictions, of a model that has but noise levels."""

    def __init__(self, sampling):
        self.inner_model = SimpleNamespace(model_sampling=sampling)
        self.model_patcher = SimpleNamespace(model=self.inner_model, get_model_object=lambda _: sampling)
        self.cfg = 1.0


def displacement(sampling, sampler: str, scheduler: str, steps: int) -> float | None:
    """That of targets which act until END; None where it depends on what is predicted."""
    guider, sigmas = Known(sampling), comfy.samplers.calculate_sigmas(sampling, scheduler, steps)
    options = {"model_options": {"transformer_options": {"sample_sigmas": sigmas}}, "seed": 0}
    model, end, host = guider.inner_model, float(sampling.percent_to_sigma(END)), comfy.samplers.sampler_object(sampler)
    known = landings(host, guider, sigmas, options)
    if not known:
        return None
    place = torch.device("cpu"), torch.float32 if "uni_pc" in sampler else torch.float64
    (_, found), (_, plain) = (rehearsed(host, guider, sigmas, options, place, marks) for marks in (True, False))
    lands, landed, shifts, ways = (found - plain).double(), Landed(known), [], {}
    for call, expected in enumerate(known):
        landing = landed.next(expected.sigma, sigmas)
        again = landed.again(landing, torch.zeros(1, 1), None)
        acts = landing.start >= end and prediction_scale(model, landing.start)
        moves = planned(model, landing, sigmas, (math.inf, end), known_range(sampling), 0) if acts else Moves(0, 0.0, None)
        shifts.append((moves.prediction or 0.0) * bool(moves.count) + (0.0 if again is None else again.item()))
        landed.keep(torch.full((1, 1), shifts[-1]), torch.zeros(1, 1), None)
        if landing.after:
            base = max(i for i in range(call + 1) if known[i].sigma > landing.after * APART)
            left = remaining(model, lands, base, call, known[base].sigma, landing.after)
            there = sum(shift * (lands[call + 1, i] - left * lands[base, i]).item() for i, shift in enumerate(shifts))
            latents = max(0, moves.count - 1) * moves.latent / latent_scale(model, landing.sigma)
            ways[f"{landing.after:.4g}"] = there / latent_scale(model, landing.after) + latents  # of trial points the last one counts
        elif moves.count:
            ways["0"] = moves.count * moves.latent / latent_scale(model, landing.sigma)
    return sum(ways.values())


def displacements(seeds: int) -> dict:
    """`seeds` is not used: nothing is drawn."""
    results = {}

    def note(name: str, sampling, sampler: str, scheduler: str) -> None:
        with torch.inference_mode():
            ways = {steps: displacement(sampling, sampler, scheduler, steps) for steps in COUNTS}
        results[name] = {f"{steps} steps": {"way": round(way, 2)} for steps, way in ways.items() if way is not None}
        print(f"{name:40} " + "  ".join(f"{steps} steps: {'-' if way is None else f'{way:.2f}'}" for steps, way in ways.items()), flush=True)

    samplings = {name: comfy.model_base.model_sampling(SimpleNamespace(sampling_settings=family.sampling_settings), kind)
                 for name, (family, kind) in FAMILIES.items()}
    for name, sampling in samplings.items():
        note(name, sampling, "euler", "simple")
    for family in ("Stable Diffusion 1.5, XL", "the demo's transformer"):
        for sampler in KSampler.SAMPLERS:
            note(f"{family}, {sampler}", samplings[family], sampler, "simple")
    return results
