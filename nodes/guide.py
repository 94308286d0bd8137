"""Apply Readout Guidance, and the KSampler that does so by itself."""
import json
from dataclasses import replace

import nodes as host_nodes
from comfy_api.latest import io

from . import checks, ksampler
from .engine import KEY, Engine, Move, Trace, WrappersMP
from .types import CATEGORY, Guidance

STRENGTH = io.Float.Input("strength", default=Move.strength, min=0.0, max=10.0, step=0.01,
                          tooltip="How far each step is moved towards the targets. Higher obeys better; on the demo "
                          "model the picture roughens from 0.2.")


def guided(node: str, model, targets: tuple, move: Move, trace: Trace | None = None):
    """A clone of MODEL that is guided wherever it is sampled; the heads must fit its architecture. If MODEL is guided already,
    all targets act together, each with the strength that it came with."""
    checks.heads_fit(node, model, [target.head for target in targets])
    name = type(model.model.model_config).__name__
    for target in targets:
        if target.reference is not None and target.reference.family != name:
            raise ValueError(f"{node}: the reference of the {target.name} target was made with another model ({target.reference.family}) "
                             f"than this one ({name}). Make the reference with the model that you sample with.")
    guided_model = model.get_non_dynamic_delegate() if model.is_dynamic() else model.clone()
    if not move.strength:
        return guided_model
    for attached in model.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY):
        earlier = attached.__self__
        if replace(earlier.move, strength=move.strength) != move:
            raise ValueError(f"{node}: the model is guided already, in another way than here. Connect the model from before "
                             f"{earlier.node}, and all targets to this node.")
        share = earlier.move.strength / move.strength
        targets = (*(replace(t, weight=t.weight * share) for t in earlier.targets), *targets)
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
        return io.NodeOutput(guided("Apply Readout Guidance", model, guidance, Move(strength)))


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
