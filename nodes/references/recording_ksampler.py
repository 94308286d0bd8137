"""KSampler (Readout Reference)."""
import nodes as host_nodes
from comfy_api.latest import io

from ..common import ksampler_inputs
from ..common.types import CATEGORY, ReferenceType
from .recorder import record_trajectory
from .reference import CACHE


class KSamplerReadoutReference(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="KSamplerReadoutReference", display_name="KSampler (Readout Reference)", category=CATEGORY,
            search_aliases=["reference picture"],
            description="A KSampler that also records its image as a reference, with the whole trajectory from the noise. To change that image, "
                        "sample again with the same seed, this time guided.",
            inputs=[*ksampler_inputs.inputs(), CACHE],
            outputs=[io.Latent.Output(tooltip=ksampler_inputs.LATENT_OUT),
                     ReferenceType.Output(display_name="reference", tooltip="The image with its whole trajectory, for targets that compare with a "
                                          "reference.")])

    @classmethod
    def execute(cls, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise, cache_mb):
        recorded, node = model.clone(), "KSampler (Readout Reference)"
        ksampler_inputs.compare_denoise(node, steps, denoise, latent_image)
        reference = record_trajectory(recorded)
        latent, = host_nodes.common_ksampler(recorded, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image,
                                             denoise=denoise)
        return io.NodeOutput(latent, reference(node, latent["samples"], positive, cache_mb))
