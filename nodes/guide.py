"""Apply Readout Guidance, and the KSampler that does so by itself."""
import json

import nodes as host_nodes
from comfy_api.latest import io

from ..rg_core import taps
from . import ksampler
from .engine import Engine, Move, Trace
from .types import CATEGORY, Guidance

STRENGTH = io.Float.Input("strength", default=Move.strength, min=0.0, max=10.0, step=0.01,
                          tooltip="How far each step is moved towards the targets. Higher obeys better and, past a point, "
                          "roughens the picture.")


def guided(node: str, model, targets: tuple, move: Move, trace: Trace):
    """A clone of MODEL that is guided wherever it is sampled; the heads must fit its architecture."""
    unet, name = model.model.diffusion_model, type(model.model.model_config).__name__
    try:
        channels = taps.channels(unet)
    except taps.NoTaps as error:
        raise ValueError(f"{node}: this model ({name}) cannot be guided by readout heads: {error}. Use a model with a UNet, "
                         "such as Stable Diffusion 1.5 or SDXL.") from error
    for target in targets:
        if target.head.channels != channels:
            raise ValueError(f"{node}: the {target.head.kind} head was trained on {target.head.base_model or 'another model'} "
                             f"with features of {target.head.channels} channels, and this model ({name}) has {channels}. "
                             "Load a head that was trained on the model you sample with.")
        if target.reference is not None and target.reference.family != name:
            raise ValueError(f"{node}: the reference of the {target.name} target was made with another model ({target.reference.family}) "
                             f"than this one ({name}). Make the reference with the model that you sample with.")
    guided_model = model.get_non_dynamic_delegate() if model.is_dynamic() else model.clone()
    Engine(node, model, targets, move, trace).attach(guided_model)
    return guided_model


class ApplyReadoutGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ApplyReadoutGuidance", display_name="Apply Readout Guidance", category=CATEGORY,
            description="Attaches targets to a model, so that every sampler that takes the model is guided by them.",
            inputs=[io.Model.Input("model"), Guidance.Input("guidance"), STRENGTH],
            outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model, guidance, strength):
        return io.NodeOutput(guided("Apply Readout Guidance", model, guidance, Move(strength), Trace()))


class KSamplerReadoutGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="KSamplerReadoutGuidance", display_name="KSampler (Readout Guidance)", category=CATEGORY,
            description="The KSampler, guided by targets. The trace lists each target's energy at each guided step.",
            inputs=[*ksampler.INPUTS, Guidance.Input("guidance"), STRENGTH],
            outputs=[io.Latent.Output(), io.String.Output(display_name="trace")])

    @classmethod
    def execute(cls, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise, guidance,
                strength):
        trace = Trace()
        model = guided("KSampler (Readout Guidance)", model, guidance, Move(strength), trace)
        latent, = host_nodes.common_ksampler(model, seed, steps, cfg, sampler_name, scheduler, positive, negative,
                                             latent_image, denoise=denoise)
        return io.NodeOutput(latent, json.dumps(trace.rows))
