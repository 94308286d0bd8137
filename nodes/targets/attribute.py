"""Attribute Target."""
import math

from comfy_api.latest import io

from ...rg_core.guidance.targets import Attribute
from ..common import checks
from ..common.types import CATEGORY, Guidance, Head
from .inputs import CHAIN, OUT, when


class AttributeTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutAttributeTarget", display_name="Attribute Target", category=CATEGORY,
            search_aliases=["slider", "concept"],
            description="A slider for something that Fit Attribute has learned: more of it, or less.",
            inputs=[Head.Input("head", tooltip="A head from Fit Attribute, for the model that you sample with."),
                    io.Float.Input("amount", default=1.0, min=-10.0, max=10.0, step=0.05,
                                   tooltip="Positive for more, negative for less, 0 for off. Values up to 1 set how hard the target pulls, until the "
                                   "image is at the level of the examples. Values above 1 go beyond that level."),
                    *when(Attribute)[1:],
                    io.Mask.Input("mask", optional=True, tooltip="The attribute changes where the mask is white."),
                    CHAIN],
            outputs=[Guidance.Output(display_name="guidance", tooltip=OUT)])

    @classmethod
    def execute(cls, head, amount, start_percent, end_percent, mask=None, guidance=None):
        node = "Attribute Target"
        if not head.pooled:
            raise ValueError(f"{node}: the head reads {head.kind}, which is not an attribute. Connect a head from Fit Attribute.")
        if not isinstance(amount, (int, float)):
            raise ValueError(f"{node}: amount is {checks.shown(amount)}, but must be a number. Check the node it comes from.")
        checks.check_range(node, abs(amount), start_percent, end_percent)
        start = checks.effective_start(node, head, start_percent, end_percent)
        level = math.copysign(max(1.0, abs(amount)), amount)
        target = Attribute(name=head.kind, head=head, weight=abs(amount), level=level, start=start, end=end_percent, mask=checks.mask(node, mask))
        return io.NodeOutput((*(guidance or ()), target))
