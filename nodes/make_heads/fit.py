"""Fit Readout Head: a head from a handful of images, in closed form."""
import time

from comfy_api.latest import io

from ..common import model_checks
from ..common.types import CATEGORY, Head
from . import reports
from .examples import example_inputs, examples, kind_given
from .fitter import fit_head
from .training_set import TrainingSet

NODE = "Fit Readout Head"


class FitReadoutHead(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FitReadoutHead", display_name=NODE, category=CATEGORY, is_input_list=True,
            search_aliases=["train", "probe", "controlnet"],
            description="Makes a readout head for this model in seconds, from a handful of images and what should be read from each. About 24 images "
                        "are enough for most kinds.",
            inputs=[*example_inputs(),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip="The seed of the added noise. It also chooses the images that are held out to evaluate the head.")],
            outputs=[Head.Output(display_name="head", tooltip="The new head, for targets, Readout Estimate or Save Readout Head."),
                     io.String.Output(display_name="report", tooltip="Whether the head is fit for use, and how well it reads at each noise level. "
                                      "Connect it to Preview as Text to keep it in view."),
                     io.Image.Output(display_name="held out", tooltip="Held-out images: the image, what the head should read, and what it reads "
                                     "from the noisiest level to the cleanest.")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, model, latents, positive, image, kind, seed):
        model, kind, seed, begin = model[0], kind_given(NODE, kind[0]), seed[0], time.monotonic()
        model_checks.heads_fit(NODE, model, [])
        given = examples(NODE, model, latents, positive, image, kind)
        head, found = fit_head(TrainingSet(NODE, model, given, kind), seed)
        report = reports.report(NODE, head, found, f"fitted from {len(given)} images in {time.monotonic() - begin:.0f} seconds", given)
        return io.NodeOutput(head, reports.on_the_node(cls, report), reports.sheet(model, head, found))
