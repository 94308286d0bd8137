"""Map Target."""
from comfy_api.latest import io

from ..common import checks
from ..common.types import CATEGORY, Guidance
from ..inputs import bars
from ..inputs.empty_images import mask_empty_images
from ..inputs.maps import ADVICE_MAP, KNOWN, maps_of
from .inputs import OUT, Acting, inputs, map_target


class MapTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutMapTarget", display_name="Map Target", category=CATEGORY,
            search_aliases=["segmentation", "normal map", "controlnet"],
            description="Steers toward a map of whatever a head reads, such as one from Fit Readout Head: normals, hair, a floor plan.",
            inputs=inputs([io.Image.Input("image", tooltip="The map that the head should read, in the same colors as the images that the head was "
                                          "made from.")],
                          "a map"),
            outputs=[Guidance.Output(display_name="guidance", tooltip=OUT)])

    @classmethod
    def execute(cls, head, image, weight, start_percent, end_percent, mask=None, guidance=None):
        node = "Map Target"
        if head.output_head is None or head.pooled or head.kind == "keypoints":
            raise ValueError(f"{node}: a head that reads {head.kind} outputs no map to steer toward. Choose a head that reads a map, such as one "
                             "from Fit Readout Head.")
        image = checks.image(node, image)
        if head.kind in (*KNOWN, "depth"):
            image, mask = bars.left_out(node, head.kind, image, mask)
        maps, = maps_of(node, head.kind, [image], ADVICE_MAP)
        if head.kind in KNOWN:
            mask = mask_empty_images(node, maps[0], checks.mask(node, mask), head.kind)
        return map_target(node, head, maps, Acting(weight, start_percent, end_percent, mask, guidance))
