"""The authors' procedure, step by step, as a preset of the guided sampler."""
import json
from dataclasses import replace

import comfy.samplers
from comfy_api.latest import io
from comfy_extras.nodes_custom_sampler import SamplerCustom

from ...rg_core.guidance.updates import PUBLISHED
from ..common.ksampler_inputs import LATENT_OUT, tooltips
from ..common.types import CATEGORY, Guidance, ReferenceType
from ..engine import Trace, guided
from ..engine.schedule.noise_levels import latent_scale
from ..references.recorder import record_trajectory
from ..references.reference import CACHE_MB

NODE = "KSampler (Readout Guidance, published)"


class KSamplerReadoutGuidancePublished(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        said = tooltips()
        return io.Schema(
            node_id="KSamplerReadoutGuidancePublished", display_name=NODE, category=CATEGORY,
            search_aliases=["paper"],
            description="The procedure of the method's authors, for comparison: DDIM, with one step of Adam on the latent before each guided step, "
                        "using the gradients of both branches. It takes nearly nine times as long as KSampler (Readout Guidance).",
            inputs=[io.Model.Input("model", tooltip=said.get("model")),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip=said.get("seed")),
                    io.Int.Input("steps", default=100, min=1, max=1000, tooltip="The number of sampling steps. The authors use 100."),
                    io.Float.Input("cfg", default=7.5, min=0.0, max=100.0, step=0.1, round=0.01,
                                   tooltip="The guidance scale. The authors use 7.5, and 3.5 for a drag on a given image."),
                    io.Float.Input("eta", default=1.0, min=0.0, max=1.0, step=0.01,
                                   tooltip="How much noise each DDIM step adds. The authors use 1 for pose, depth and edges, 0 for drags."),
                    io.Boolean.Input("add_noise", default=True,
                                     tooltip="Whether to add noise to the latent. Turn it off for noise from Readout Invert."),
                    io.Conditioning.Input("positive", tooltip=said.get("positive")),
                    io.Conditioning.Input("negative", tooltip=said.get("negative")),
                    io.Latent.Input("latent_image", tooltip=said.get("latent_image")),
                    Guidance.Input("guidance", optional=True, tooltip="One target or a chain of targets. Without it, the result is the image that "
                                   "the authors' drags start from."),
                    io.Float.Input("strength", default=PUBLISHED.strength, min=0.0, max=1.0, step=0.001,
                                   tooltip="The learning rate of Adam.")],
            outputs=[io.Latent.Output(tooltip=LATENT_OUT),
                     io.String.Output(display_name="trace", tooltip="The energy of each target at each move, as JSON. Readout Trace plots it."),
                     ReferenceType.Output(display_name="reference", tooltip="The image with its whole trajectory, for targets that compare with "
                                          "it. Sample again with the same seed.")])

    @classmethod
    def execute(cls, model, seed, steps, cfg, eta, add_noise, positive, negative, latent_image, strength, guidance=()):
        trace = Trace(sampled=False)
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
