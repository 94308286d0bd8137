"""Fit Readout Head: a head from a handful of pictures, in closed form."""
import time

from comfy_api.latest import io

from ..common import model_checks
from ..common.types import CATEGORY, Head
from . import reports
from .examples import examples, kind_given
from .fitter import fit_head
from .training_set import TrainingSet

NODE = "Fit Readout Head"


class FitReadoutHead(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FitReadoutHead", display_name=NODE, category=CATEGORY, is_input_list=True,
            search_aliases=["train", "probe", "controlnet"],
            description="Makes a readout head for this model from a handful of pictures and what should be read of each, in seconds. Two dozen "
                        "pictures are enough for most kinds.",
            inputs=[io.Model.Input("model"),
                    io.Latent.Input("latents", tooltip="The pictures: a batch, or a list. The model may have sampled them itself."),
                    io.Conditioning.Input("positive", tooltip="What the pictures show: one for all, such as an empty prompt, or a list."),
                    io.Image.Input("image", tooltip="What the head should read of each picture, in the same order: a batch or a list, of any size."),
                    io.String.Input("kind", default="depth", tooltip="What that is: pose, depth, edge, or a name of your own for Map Target."),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip="Of the noise, and of which pictures are held out to judge the head by.")],
            outputs=[Head.Output(display_name="head"), io.String.Output(display_name="report"), io.Image.Output(display_name="held out")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, model, latents, positive, image, kind, seed):
        model, kind, seed, begin = model[0], kind_given(NODE, kind[0]), seed[0], time.monotonic()
        model_checks.heads_fit(NODE, model, [])
        given = examples(NODE, model, latents, positive, image, kind)
        head, found = fit_head(TrainingSet(NODE, model, given, kind), seed)
        report = reports.report(NODE, head, found, f"fitted from {len(given)} pictures in {time.monotonic() - begin:.0f} seconds", given)
        return io.NodeOutput(head, reports.on_the_node(cls, report), reports.sheet(model, head, found))
