"""Fit Attribute: a head that tells what sets two sets of images apart."""
import math
import time
from dataclasses import replace

import torch
from comfy_api.latest import io
from torch import Tensor

from ...heads import KINDS
from ...rg_core.features import taps
from ...rg_core.readout.linear_head import LinearHead
from ..common import model_checks
from ..common.latents import samples_for
from ..common.types import CATEGORY, Head
from ..engine.reader import read
from . import reports
from .examples import Example, conditionings, kind_given, said_of_batches
from .fitter import fit_head
from .held_out import distinct
from .training_set import TrainingSet

NODE = "Fit Attribute"
LEAST, JUDGED = 3, 100  # images of each sort: needed, and judged by at most


class Sides(TrainingSet):
    """Images with something and without it, for a head that tells which by its taps' means; `image` of an example is 1 or -1."""

    outputs, pooled = 1, True
    control_range = -1.0, 1.0

    def __init__(self, *about):
        super().__init__(*about)
        self.judged = [[self.given[side[places[0]]] for places in distinct([self.given[i].latent for i in side])[:JUDGED]] for side in self.groups()]
        self.rows: dict[Example, list[Tensor]] = {example: [] for side in self.judged for example in side}  # features [F] of each band

    def groups(self) -> list[list[int]]:
        return [[i for i, example in enumerate(self.given) if example.image.item() == sign] for sign in (1, -1)]

    def wanted(self, example: Example) -> Tensor:
        return example.image

    def pairs(self, example: Example, reading: taps.Reading) -> tuple[Tensor, Tensor]:
        x = torch.cat(means(reading.features), 1)[..., 0, 0]
        if example in self.rows:
            self.rows[example].append(x[0].cpu())
        return x, example.image.flatten(1)

    def sides(self) -> list[Tensor]:
        """The features [N, bands, F] of some images with it and some without, after a head was fitted."""
        return [torch.stack([torch.stack(self.rows[example]) for example in side]) for side in self.judged]

    def sizes(self) -> list[Tensor]:
        """Of the same images, as features [N, 1, F] by which they should not be told."""
        return [torch.stack([size_of(example.latent) for example in side])[:, None] for side in self.judged]

    def readout(self, head: LinearHead, example: Example, reading: taps.Reading) -> Tensor:
        return read(head, replace(reading, features=means(reading.features)), (1, 1))


def size_of(latent: Tensor) -> Tensor:
    height, width = (math.log2(n) for n in latent.shape[-2:])
    return torch.tensor([height, width, height * height, height * width, width * width])


def means(features: list[Tensor]) -> list[Tensor]:
    """[B, C, 1, 1] of each."""
    return [f.float().mean((2, 3), keepdim=True) for f in features]


class FitAttribute(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FitReadoutAttribute", display_name=NODE, category=CATEGORY, is_input_list=True,
            search_aliases=["slider", "classifier", "concept"],
            description="Learns in seconds the difference between images with something (smiling, rain, old) and images without it. "
                        "Attribute Target turns it into a slider.",
            inputs=[io.Model.Input("model", tooltip="The model that you will sample with. LoRAs on it count; guidance on it does not."),
                    io.Latent.Input("pictures_with", tooltip="Images with the attribute, as a batch or a list of latents. Ten or more work well."),
                    io.Latent.Input("pictures_without", tooltip="Images without the attribute, but otherwise of the same kinds."),
                    io.Conditioning.Input("positive", tooltip="An empty prompt, so that the attribute is read from the images and not from words."),
                    io.String.Input("name", default="smiling", tooltip="The name of the attribute. The trace and messages use it."),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip="The seed of the added noise. It also sets the order in which images are held out to evaluate the head.")],
            outputs=[Head.Output(display_name="head", tooltip="The new head, for Attribute Target, Readout Estimate or Save Readout Head."),
                     io.String.Output(display_name="report", tooltip="How many images are classified correctly at each noise level, and whether that "
                                      "is enough. Connect it to Preview as Text to keep it in view.")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, model, pictures_with, pictures_without, positive, name, seed):
        model, name, begin = model[0], kind_given(NODE, name[0], "name"), time.monotonic()
        if name in KINDS.values():
            raise ValueError(f"{NODE}: name is {name}, which is what other heads read. Choose another name.")
        model_checks.heads_fit(NODE, model, [])
        sides = [[x[None].cpu() for latent in latents for x in samples_for(NODE, model, latent)] for latents in (pictures_with, pictures_without)]
        if min(map(len, sides)) < LEAST:
            raise ValueError(f"{NODE}: got {len(sides[0])} images with it and {len(sides[1])} without it, but needs at least {LEAST} of each. Ten or "
                             f"more of each work well.{said_of_batches(model)}")
        wanted = [torch.full((1, 1, 1, 1), sign) for side, sign in zip(sides, (1.0, -1.0)) for _ in side]
        said = conditionings(NODE, positive, [len(latent["samples"]) for latents in (pictures_with, pictures_without) for latent in latents])
        given = [Example(*parts) for parts in zip(sides[0] + sides[1], said, wanted)]
        data = Sides(NODE, model, given, name)
        head, found = fit_head(data, seed[0])
        report = reports.attribute_report(NODE, head, found, (data.sides(), data.sizes()), time.monotonic() - begin)
        return io.NodeOutput(head, reports.on_the_node(cls, report))
