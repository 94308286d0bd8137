"""Drag Target: what should be where in a reference's image."""
from comfy_api.latest import io, ui

from ...rg_core.guidance.targets import Drag
from ..common import checks
from ..common.types import CATEGORY, Drags, Guidance
from ..inputs import beside_reference, drag_paths, track_points
from .inputs import CHAIN, OUT, when
from .likeness import REFERENCE, comparing, optional_head

# A run shows the image to draw on even where the cache has the rest. An old host shows so only what it always runs.
SHOWS_WHAT_IS_CACHED = {"has_intermediate_output" if hasattr(io.Schema, "has_intermediate_output") else "is_output_node": True}
# ComfyUI's own text field, so that its page keeps what is drawn whether or not the editor in web/ lies over it.
AS_TEXT = {"widgetType": "STRING", "multiline": True, "dynamicPrompts": False, "default": "[]"}


class DragTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutDragTarget", display_name="Drag Target", category=CATEGORY,
            search_aliases=["dragdiffusion", "draggan", "move", "point", "arrow"],
            **SHOWS_WHAT_IS_CACHED,
            description="Moves things in a reference image. Draw arrows from where things are to where they should go.",
            inputs=[
                REFERENCE,
                Drags.Input("drags", extra_dict=AS_TEXT, tooltip="Arrows from where things are to where they should go. Draw them on the image, or "
                            "type them as text: [[[x, y], [x, y]], ...] from 0 to 1. If this input is promoted to a subgraph node, draw there."),
                *when(Drag),
                optional_head("correspondence"),
                io.Image.Input("image", optional=True, tooltip="The reference as an image, to draw on."),
                io.String.Input("drags_json", optional=True, force_input=True,
                                tooltip="More drags as text: [[[x, y], [x, y]], ...], each from its first to its last point, from 0 to 1 or in "
                                "pixels of image (without an image, of the reference). Points may also be {\"x\": x, \"y\": y}, as from "
                                "spline editors."),
                io.Tracks.Input("tracks", optional=True, tooltip="More drags: each point moves from its first to its last position, in "
                                "pixels of image (without an image, of the reference)."),
                io.Mask.Input("mask", optional=True, tooltip="The image may change where the mask is white. The rest follows the reference."),
                CHAIN,
            ],
            outputs=[Guidance.Output(display_name="guidance", tooltip=OUT)])

    @classmethod
    def execute(cls, reference, drags, weight, start_percent, end_percent, head=None, image=None, drags_json=None, tracks=None,
                mask=None, guidance=None):
        node = "Drag Target"
        head = comparing(node, head, "correspondence")
        checks.check_range(node, weight, start_percent, end_percent)
        start_percent = checks.effective_start(node, head, start_percent, end_percent)
        size = beside_reference.pixels(reference) if image is None else tuple(checks.image(node, image).shape[-2:])
        found = [] if drags == "" else drag_paths.from_json(node, drags, size)  # a text that somebody emptied
        if drags_json is not None:
            found += drag_paths.from_json(node, drags_json, size)
        if tracks is not None:
            found += track_points.paths(node, tracks, size)
        targets = ()
        if found:  # none drawn yet: the first run only shows the image to draw on
            beside_reference.check_aspect(node, size, reference)
            targets = (Drag(name="drag", head=head, weight=weight, start=start_percent, end=end_percent, reference=reference,
                            paths=drag_paths.usable(node, found), mask=beside_reference.mask_of(node, mask, reference)),)
        shown = {} if image is None else {"readout_picture": ui.PreviewImage(image[:1], cls=cls).as_dict()["images"]}
        return io.NodeOutput((*(guidance or ()), *targets), ui=shown)
