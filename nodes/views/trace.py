"""Readout Trace."""
import json

from comfy_api.latest import io, ui

from ..common import checks, drawing
from ..common.types import CATEGORY


class ReadoutTrace(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutTrace", display_name="Readout Trace", category=CATEGORY, is_output_node=True,
            search_aliases=["plot", "energy", "curve"],
            description="Plots how close a guided run came to its targets: the energy of each target over the moves of the run.",
            inputs=[io.String.Input("trace", force_input=True, tooltip="The trace from KSampler (Readout Guidance).")],
            outputs=[io.Image.Output(display_name="plot", tooltip="The plot as an image.")])

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
            raise ValueError(f"{node}: this is not the trace of a guided run: {str(trace)[:60]!r}. Connect the trace output of KSampler (Readout "
                             "Guidance).")
        image = drawing.batch([drawing.plot(rows) if rows else drawing.words("nothing was guided")])
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))
