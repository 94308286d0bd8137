"""Attribute Target."""
import math

from comfy_api.latest import io

from ...rg_core.guidance.targets import Attribute
from ..common import checks
from ..common.types import CATEGORY, Guidance, Head
from .inputs import CHAIN, when


class AttributeTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutAttributeTarget", display_name="Attribute Target", category=CATEGORY,
            search_aliases=["slider", "concept"],
            description="More of something that Fit Attribute has learnt, or less of it.",
            inputs=[Head.Input("head", tooltip="From Fit Attribute, for the model that you sample with."),
                    io.Float.Input("amount", default=1.0, min=-10.0, max=10.0, step=0.05,
                                   tooltip="More of it above 0, less below. Up to 1 it is how hard it pulls, until the picture has as much of it as "
                                   "those that it was learnt from; above 1 the picture gets more of it than those. 0 turns it off."),
                    *when(Attribute)[1:],
                    io.Mask.Input("mask", optional=True, tooltip="Where it should be more or less: white."),
                    CHAIN],
            outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, amount, start_percent, end_percent, mask=None, guidance=None):
        node = "Attribute Target"
        if not head.pooled:
            raise ValueError(f"{node}: the head reads {head.kind}, which is no attribute. Connect one from Fit Attribute.")
        if not isinstance(amount, (int, float)):
            raise ValueError(f"{node}: amount is {checks.shown(amount)}, and should be a number. Check the node that gives it.")
        checks.check_range(node, abs(amount), start_percent, end_percent)
        start = checks.effective_start(node, head, start_percent, end_percent)
        level = math.copysign(max(1.0, abs(amount)), amount)
        target = Attribute(name=head.kind, head=head, weight=abs(amount), level=level, start=start, end=end_percent, mask=checks.mask(node, mask))
        return io.NodeOutput((*(guidance or ()), target))
