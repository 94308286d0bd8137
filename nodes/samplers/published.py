"""The authors' procedure, step by step, as a preset of the guided sampler."""
import json
from dataclasses import replace

import comfy.samplers
from comfy_api.latest import io
from comfy_extras.nodes_custom_sampler import SamplerCustom

from ...rg_core.guidance.updates import PUBLISHED
from ..common.types import CATEGORY, Guidance, ReferenceType
from ..engine import Trace, guided
from ..engine.schedule.noise_levels import latent_scale
from ..references.recorder import record_trajectory
from ..references.reference import CACHE_MB

NODE = "KSampler (Readout Guidance, published)"


class KSamplerReadoutGuidancePublished(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="KSamplerReadoutGuidancePublished", display_name=NODE, category=CATEGORY,
            search_aliases=["paper"],
            description="The procedure of the method's authors, for comparison: DDIM, and before each guided step one step of Adam on "
                        "the latent, by the gradients of both branches. It takes nearly nine times as long as KSampler (Readout Guidance).",
            inputs=[io.Model.Input("model"),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True),
                    io.Int.Input("steps", default=100, min=1, max=1000),
                    io.Float.Input("cfg", default=7.5, min=0.0, max=100.0, step=0.1, round=0.01,
                                   tooltip="The authors' is 7.5, and 3.5 for a drag on a given picture."),
                    io.Float.Input("eta", default=1.0, min=0.0, max=1.0, step=0.01,
                                   tooltip="Of DDIM's noise. The authors' is 1 for pose, depth and edges, and 0 for drags."),
                    io.Boolean.Input("add_noise", default=True, tooltip="Off for the noise that Readout Invert found."),
                    io.Conditioning.Input("positive"),
                    io.Conditioning.Input("negative"),
                    io.Latent.Input("latent_image"),
                    Guidance.Input("guidance", optional=True, tooltip="Without it the picture is the one that the authors' drags start from."),
                    io.Float.Input("strength", default=PUBLISHED.strength, min=0.0, max=1.0, step=0.001,
                                   tooltip="Adam's learning rate.")],
            outputs=[io.Latent.Output(), io.String.Output(display_name="trace"),
                     ReferenceType.Output(display_name="reference", tooltip="The picture with its whole path there, for targets that compare "
                                          "with it. Sample again with the same seed.")])

    @classmethod
    def execute(cls, model, seed, steps, cfg, eta, add_noise, positive, negative, latent_image, strength, guidance=()):
        trace = Trace()
        sampled = guided(NODE, model, guidance, replace(PUBLISHED, strength=strength, eta=eta), trace)
        reference = record_trajectory(sampled)
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", steps)
        sigmas[-1] = sampling.sigma_min  # their scheduler's last step ends at the first timestep's noise, not at none
        sampler = comfy.samplers.ksampler("euler_ancestral", {"eta": eta})
        sampler.max_denoise = lambda *_: True  # they start from noise of variance 1, whatever the first noise level
        latent, _ = SamplerCustom.execute(sampled, add_noise, seed, cfg, positive, negative, sampler, sigmas, latent_image).args
        samples = latent["samples"] / latent_scale(model.model, float(sigmas[-1]))
        return io.NodeOutput(latent | {"samples": samples}, json.dumps(trace.rows), reference(NODE, samples, positive, CACHE_MB))
