"""Edge Target."""
from comfy_api.latest import io

from ..common import checks
from ..common.types import CATEGORY, Guidance
from ..inputs import bars
from ..inputs.empty_images import mask_empty_images
from ..inputs.maps import prepare_edges
from .inputs import OUT, Acting, inputs, spatial_target


class EdgeTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutEdgeTarget", display_name="Edge Target", category=CATEGORY,
            search_aliases=["canny", "lineart", "hed", "controlnet"],
            description="Steers toward edges, drawn as white lines on black.",
            inputs=inputs([io.Image.Input("image", tooltip="Edges as white lines on black, as from HED or Canny.")], "edges"),
            outputs=[Guidance.Output(display_name="guidance", tooltip=OUT)])

    @classmethod
    def execute(cls, head, image, weight, start_percent, end_percent, mask=None, guidance=None):
        node = "Edge Target"
        image, mask = bars.left_out(node, "edge", checks.image(node, image), mask)
        image, = prepare_edges(node, [image])
        mask = mask_empty_images(node, image, checks.mask(node, mask), "edge")
        return spatial_target("edge", head, image, Acting(weight, start_percent, end_percent, mask, guidance))
