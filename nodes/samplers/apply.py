"""Apply Readout Guidance."""
from comfy_api.latest import io

from ...rg_core.guidance.updates import Move
from ..common.log import log
from ..common.types import CATEGORY, Guidance
from ..engine import Trace, guided
from ..engine.memory import CHOICES
from ..targets import extension
from .move_inputs import MOVES, RECOMPUTE, STRENGTH


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
            description="Attaches targets to a model. Every sampler that uses this model is then guided by them.",
            inputs=[io.Model.Input("model", tooltip="The model to guide. LoRAs and other patches on it are kept."),
                    Guidance.Input("guidance", tooltip="One target or a chain of targets, for the whole image. Detailers and tile upscalers sample "
                                   "only parts of it, so give them the model from before this node."),
                    STRENGTH, RECOMPUTE, MOVES],
            outputs=[io.Model.Output(tooltip="The guided model, for any sampler.")], hidden=[io.Hidden.unique_id, io.Hidden.prompt])

    @classmethod
    def execute(cls, model, guidance, strength, recompute=CHOICES[0], moves=Move.moves):
        node, asked = "Apply Readout Guidance", cls.hidden
        trace = Trace(shown_on=asked and asked.unique_id, sampled=False)
        if asked and asked.prompt and gives_a_merge_its_weights(asked.prompt, asked.unique_id):
            log.warning("%s: its model becomes model2 of a merge, which uses the weights but not the guidance. Put this node after the merge.", node)
        return io.NodeOutput(guided(node, model, guidance, Move(strength, moves=moves), trace, recompute))
