"""Readout Compare."""
from comfy_api.latest import io, ui

from ..common import checks, drawing
from ..common.types import CATEGORY

MOST_ROWS = 8  # images of a batch that are compared


class ReadoutCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutCompare", display_name="Readout Compare", category=CATEGORY, is_output_node=True,
            search_aliases=["side by side", "before after"],
            description="Shows target, unguided and guided images side by side, large enough to see.",
            inputs=[io.Image.Input("guided", tooltip="The images that were sampled with guidance."),
                    io.Image.Input("unguided", optional=True, tooltip="Images with the same seed and settings, sampled without guidance."),
                    io.Image.Input("target", optional=True, tooltip="What you asked for: the pose, the depth map or the reference."),
                    io.Int.Input("size", default=384, min=64, max=2048, optional=True, tooltip="The longer side of each image, in pixels.")],
            outputs=[io.Image.Output(display_name="comparison", tooltip="The images side by side, in one image.")])

    @classmethod
    def execute(cls, guided, unguided=None, target=None, size=384):
        given = {"target": target, "unguided": unguided, "guided": guided}
        columns = {name: checks.image("Readout Compare", image) for name, image in given.items() if image is not None}
        count = min(MOST_ROWS, max(len(image) for image in columns.values()))
        rows = [[drawing.image(image[i % len(image)][None]) for image in columns.values()] for i in range(count)]
        image = drawing.batch([drawing.side_by_side(list(columns), rows, size)])
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))
