"""Apply Readout Guidance, and the KSampler that does so by itself."""
import json

import nodes as host_nodes
from comfy_api.latest import io

from ..rg_core.updates import Move
from . import extension, ksampler
from .log import log
from .sampling import Trace, guided
from .sampling.memory import CHOICES
from .sampling.screen import latents_seen
from .show import readouts
from .types import CATEGORY, Guidance

STRENGTH = io.Float.Input("strength", default=Move.strength, min=0.0, max=10.0, step=0.01,
                          tooltip="How far each step is moved towards the targets. Higher obeys better; on the demo "
                          "model the picture roughens from 0.2.")
RECOMPUTE = io.Combo.Input("recompute", options=CHOICES, default=CHOICES[0], optional=True, advanced=True,
                           tooltip="Whether a guided step computes parts of the model twice to spare memory, which takes about a third "
                           "longer. auto: where memory is short.")
MOVES = io.Int.Input("moves", default=Move.moves, min=0, max=50, optional=True, advanced=True,
                     tooltip="How many moves each guided step makes. 0: automatic, one in runs of 20 steps or more, several in "
                     "shorter ones. More moves obey better and take longer.")


def gives_a_merge_its_weights(prompt: dict, node_id: str) -> bool:
    """Whether the MODEL of a node becomes, itself or by way of other nodes, the second one of a merge, which takes a model's weights alone."""
    behind, found = [node_id], set()
    while behind:
        link = [behind.pop(), 0]
        for taker, node in prompt.items():
            for name, value in node["inputs"].items():
                if value == link and "merge" in node["class_type"].lower() and name == "model2":
                    return True
                if value == link and name.startswith("model") and taker not in found:
                    found.add(taker)
                    behind.append(taker)
    return False


class ApplyReadoutGuidance(io.ComfyNode):
    extension = extension  # where other packs find it

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ApplyReadoutGuidance", display_name="Apply Readout Guidance", category=CATEGORY,
            search_aliases=["controlnet", "steer", "control"],
            description="Attaches targets to a model, so that every sampler that takes the model is guided by them.",
            inputs=[io.Model.Input("model"),
                    Guidance.Input("guidance", tooltip="For the whole picture. Give detailers and tile upscalers, which sample parts of it, the "
                                   "model from before this node."),
                    STRENGTH, RECOMPUTE, MOVES],
            outputs=[io.Model.Output()], hidden=[io.Hidden.unique_id, io.Hidden.prompt])

    @classmethod
    def execute(cls, model, guidance, strength, recompute=CHOICES[0], moves=Move.moves):
        node, asked = "Apply Readout Guidance", cls.hidden
        trace = Trace(shown_on=asked and asked.unique_id)
        if asked and asked.prompt and gives_a_merge_its_weights(asked.prompt, asked.unique_id):
            log.warning("%s: its model becomes model2 of a merge, which takes its weights and no guidance. Put this node behind the merge.", node)
        return io.NodeOutput(guided(node, model, guidance, Move(strength, moves=moves), trace, recompute))


class KSamplerReadoutGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="KSamplerReadoutGuidance", display_name="KSampler (Readout Guidance)", category=CATEGORY,
            search_aliases=["guided sampler", "controlnet", "steer"],
            description="The KSampler, guided by targets. While it samples it shows the picture so far and what heads read of it. The trace lists "
                        "each target's energy at each move.",
            inputs=[*ksampler.inputs(), Guidance.Input("guidance"), STRENGTH, RECOMPUTE, MOVES],
            outputs=[io.Latent.Output(), io.String.Output(display_name="trace", tooltip="For Readout Trace, or as JSON."),
                     io.Image.Output(display_name="readouts", tooltip="Of each move and the first picture: what each target wants, what is "
                                     "read, and where the target pulls.")])

    @classmethod
    def execute(cls, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise, guidance,
                strength, recompute=CHOICES[0], moves=Move.moves):
        trace, node = Trace(), "KSampler (Readout Guidance)"
        ksampler.compare_denoise(node, steps, denoise, latent_image)
        model = guided(node, model, guidance, Move(strength, moves=moves), trace, recompute)
        latent, = host_nodes.common_ksampler(model, seed, steps, cfg, sampler_name, scheduler, positive, negative,
                                             latent_image, denoise=denoise)
        return io.NodeOutput(latent, json.dumps(trace.rows), readouts(trace, latents_seen(model.model.latent_format)))
