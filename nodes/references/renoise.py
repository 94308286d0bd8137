"""Readout Reference: an image under one fixed noise at every level."""
import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import torch
from comfy_api.latest import io

from ...rg_core.guidance import trajectories
from ..common.latents import samples_for
from ..common.types import CATEGORY, ReferenceType
from .reference import CACHE, wrap


class ReadoutReference(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutReference", display_name="Readout Reference", category=CATEGORY,
            search_aliases=["ip adapter", "reference picture"],
            description="Turns an image into a reference by adding the same noise to it at every noise level. This is quick. To drag things in a "
                        "given image, use Readout Invert instead.",
            inputs=[io.Model.Input("model", tooltip="The model that you sample with."),
                    io.Conditioning.Input("positive", tooltip="What the reference shows. An empty prompt is enough."),
                    io.Latent.Input("latent", tooltip="The reference image as a latent, as from VAE Encode."),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip="The seed of the added noise."),
                    CACHE],
            outputs=[ReferenceType.Output(display_name="reference", tooltip="The reference, for Appearance, Structure or Identity Target.")])

    @classmethod
    def execute(cls, model, positive, latent, seed, cache_mb):
        x = model.model.process_latent_in(samples_for("Readout Reference", model, latent).float().cpu())
        noise = comfy.sample.prepare_noise(x, seed, latent.get("batch_index"))
        sampling = model.get_model_object("model_sampling")
        noisiest = sampling.noise_scaling(torch.tensor([sampling.sigma_max]), noise, x)
        trajectory = trajectories.renoised(x, noisiest, float(sampling.sigma_max))
        return io.NodeOutput(wrap(model, trajectory, positive, cache_mb))
