"""KSampler (Readout Guidance)."""
import json

import nodes as host_nodes
from comfy_api.latest import io

from ...rg_core.guidance.updates import Move
from ..common import ksampler_inputs
from ..common.previews import latents_to_rgb
from ..common.types import CATEGORY, Guidance
from ..engine import Trace, guided
from ..engine.memory import CHOICES
from ..views.readouts import readouts
from .move_inputs import MOVES, RECOMPUTE, STRENGTH


class KSamplerReadoutGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="KSamplerReadoutGuidance", display_name="KSampler (Readout Guidance)", category=CATEGORY,
            search_aliases=["guided sampler", "controlnet", "steer"],
            description="A KSampler that is guided by targets. While it samples, it shows the current image and what the heads read from it. The "
                        "trace lists the energy of each target at each move.",
            inputs=[*ksampler_inputs.inputs(), Guidance.Input("guidance", tooltip="One target or a chain of targets."), STRENGTH, RECOMPUTE, MOVES],
            outputs=[io.Latent.Output(tooltip=ksampler_inputs.LATENT_OUT),
                     io.String.Output(display_name="trace", tooltip="The energy of each target at each move, as JSON. Readout Trace plots it."),
                     io.Image.Output(display_name="readouts", tooltip="One image per move, for the first image of the batch: what each target "
                                     "wants, what is read, and where the target pulls.")])

    @classmethod
    def execute(cls, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise, guidance,
                strength, recompute=CHOICES[0], moves=Move.moves):
        trace, node = Trace(), "KSampler (Readout Guidance)"
        ksampler_inputs.compare_denoise(node, steps, denoise, latent_image)
        model = guided(node, model, guidance, Move(strength, moves=moves), trace, recompute)
        latent, = host_nodes.common_ksampler(model, seed, steps, cfg, sampler_name, scheduler, positive, negative,
                                             latent_image, denoise=denoise)
        return io.NodeOutput(latent, json.dumps(trace.rows), readouts(trace, latents_to_rgb(model.model.latent_format)))
