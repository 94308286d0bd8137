"""Nodes that show what guidance did."""
import json

from comfy_api.latest import io, ui
from torch import Tensor

from . import checks, seeing
from .sampling.trace import Trace
from .types import CATEGORY

MOST_ROWS = 8  # pictures of a batch that are compared


def readouts(trace: Trace, rgb) -> Tensor:
    """An IMAGE for each prediction that `trace` has views of, or one that says that there is none; `rgb` as in seeing.sheet."""
    seen = [seeing.sheet(views, rgb, caption=f"move {number} of {trace.count}") for number, views in trace.seen]
    return seeing.batch(seen or [seeing.words("nothing was guided")])


class ReadoutTrace(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutTrace", display_name="Readout Trace", category=CATEGORY, is_output_node=True,
            search_aliases=["plot", "energy", "curve"],
            description="How near a guided run came to its targets: their energies over the moves of its steps, as a picture.",
            inputs=[io.String.Input("trace", force_input=True, tooltip="From KSampler (Readout Guidance).")],
            outputs=[io.Image.Output(display_name="plot")])

    @classmethod
    def execute(cls, trace):
        node = "Readout Trace"
        trace = checks.text(node, "trace", trace)
        try:
            rows = json.loads(trace)
            good = isinstance(rows, list) and all(isinstance(row["target"], str) and row["energy"] and sum([row["sigma"], *row["energy"]]) is not None
                                                  for row in rows)
        except (ValueError, TypeError, KeyError):
            good = False
        if not good:
            raise ValueError(f"{node}: this is not the trace of a guided run: {str(trace)[:60]!r}. Connect the trace of KSampler (Readout Guidance).")
        image = seeing.batch([seeing.plot(rows) if rows else seeing.words("nothing was guided")])
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


class ReadoutCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutCompare", display_name="Readout Compare", category=CATEGORY, is_output_node=True,
            search_aliases=["side by side", "before after"],
            description="Target, unguided and guided pictures side by side, at a size that can be seen.",
            inputs=[io.Image.Input("guided"),
                    io.Image.Input("unguided", optional=True, tooltip="The same seed and settings without guidance."),
                    io.Image.Input("target", optional=True, tooltip="What was asked for: the pose, the depth map, the reference."),
                    io.Int.Input("size", default=384, min=64, max=2048, optional=True, tooltip="Pixels along the longer side of each picture.")],
            outputs=[io.Image.Output(display_name="comparison")])

    @classmethod
    def execute(cls, guided, unguided=None, target=None, size=384):
        given = {"target": target, "unguided": unguided, "guided": guided}
        columns = {name: checks.picture("Readout Compare", image) for name, image in given.items() if image is not None}
        count = min(MOST_ROWS, max(len(image) for image in columns.values()))
        rows = [[seeing.picture(image[i % len(image)][None]) for image in columns.values()] for i in range(count)]
        image = seeing.batch([seeing.side_by_side(list(columns), rows, size)])
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))
