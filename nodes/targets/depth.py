"""Depth Target."""
from comfy_api.latest import io

from ...rg_core.guidance.targets import Spatial
from ..common import checks
from ..common.types import CATEGORY, Geometry, Guidance
from ..inputs import bars
from ..inputs.depth_maps import GREYS, INVERSE, Advice, depth_maps, from_geometry
from ..inputs.maps import known
from .inputs import OUT, Acting, inputs, spatial_target

ADVICE = Advice(turn="switch invert", metres="choose 'distance, near black' in greys", holes="are left out")


class DepthTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutDepthTarget", display_name="Depth Target", category=CATEGORY,
            search_aliases=["depth map", "controlnet"],
            description="Steers toward a depth map, in which white is near and black is far.",
            inputs=[*inputs([io.Image.Input("image", optional=True, tooltip="A depth map, white near and black far, as from MiDaS or MoGe. "
                                            "For other maps, set greys.")], "depth",
                            io.Boolean.Input("invert", default=False, optional=True, tooltip="Turn on for depth maps in which white is far.")),
                    Geometry.Input("geometry", optional=True, tooltip="Use instead of image: the output of Run MoGe Inference or Run Depth "
                                   "Anything 3. Its distances are known and converted to what heads read."),
                    io.Combo.Input("greys", options=list(GREYS), default=INVERSE, optional=True, tooltip="What the gray values of the image mean. "
                                   "inverse distance: MiDaS, MoGe, Depth Anything 1 and 2. distance: Depth Anything 3. distance, near black: "
                                   "meters.")],
            outputs=[Guidance.Output(display_name="guidance", tooltip=OUT)])

    @classmethod
    def execute(cls, head, image=None, weight=1.0, start_percent=0.0, end_percent=Spatial.end, invert=False, mask=None, guidance=None, geometry=None,
                greys=INVERSE):
        node = "Depth Target"
        if (image is None) == (geometry is None):
            raise ValueError(f"{node}: got {'neither image nor' if image is None else 'both image and'} geometry. Connect one of them.")
        if image is None:
            maps = from_geometry(node, geometry)
        else:
            image, mask = bars.left_out(node, "depth", checks.image(node, image, finite=False), mask)
            maps, = depth_maps(node, [image], greys, invert, ADVICE)
        mask = checks.mask(node, mask)
        known(node, maps, mask)
        return spatial_target("depth", head, maps, Acting(weight, start_percent, end_percent, mask, guidance))
