"""Fit Readout Head: a head from a handful of pictures, in closed form."""
import time

import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..rg_core import fitting, taps
from ..rg_core.linear_head import LinearHead, from_maps
from . import checks, quality
from .examples import Example, examples, kind_given
from .material import BANDS, Material, single
from .sampling.ask import embeddings, sigma_at
from .sampling.reader import read
from .types import CATEGORY, Head

NODE = "Fit Readout Head"
# docs/fitting.md has the measurements that chose these.
SHARED = 0.3
RIDGES = (1e-3, 1e-2, 1e-1)
LEVELS = 64       # noise levels that a head can tell apart
PIXELS = 1024     # of each picture at each band, at random where it has more


class Fitter:
    """Reads pictures in each band of noise, and fits heads to what should be read of them."""

    def __init__(self, material: Material, seed: int):
        self.material = material
        self.sums = fitting.Sums(BANDS, sum(material.channels), material.given[0].image.shape[1])
        self.levels: Tensor | None = None
        self.rng = torch.Generator().manual_seed(seed)
        self.progress = comfy.utils.ProgressBar(BANDS * len(material.given))

    def seen(self, base_model, reading: taps.Reading) -> taps.Reading:
        if self.levels is None:
            sigmas = torch.tensor([sigma_at(self.material.model, p) for p in torch.linspace(0, 1, LEVELS).tolist()])
            self.levels = embeddings(base_model, base_model.model_sampling.timestep(sigmas), reading).float().cpu()
        return reading

    def look(self, places: list[int], use) -> None:
        """Calls `use(band, example, reading)` for each of the pictures at `places` in each band, at a level in it at random."""
        for band in range(BANDS):
            for some, reading in self.material.read(places, self.rng, self.seen, band, BANDS):
                for i, example in enumerate(some):
                    use(band, example, single(reading, i))
                self.progress.update(len(some))

    def add(self, band: int, example: Example, reading: taps.Reading) -> None:
        x = fitting.rows(reading.features, self.material.size(example))[0]
        y = self.material.wanted(example)[0].flatten(1).mT
        some = torch.randperm(len(x), generator=self.rng)[:PIXELS]
        self.sums.add(band, x[some.to(x.device)], y[some].to(x.device))

    def head(self, maps: list[tuple[Tensor, Tensor]], start: float = 0.0, **about) -> LinearHead:
        known = self.material.about()
        return from_maps(self.material.kind, self.material.channels, maps, self.levels, start=start,
                         **known | {"config": known["config"] | about})


def fitted(model, given: list[Example], kind: str, seed: int) -> tuple[LinearHead, quality.Quality]:
    """A head, and how well one of the same ridges but without the held-out pictures reads those."""
    material = Material(NODE, model, given, kind)
    fitter = Fitter(material, seed)
    rest, held = material.split(fitter.rng)
    fitter.look(rest, fitter.add)
    solved = [fitter.sums.solve(band, RIDGES, SHARED) for band in range(BANDS)]
    trials = [fitter.head([band[k] for band in solved]) for k in range(len(RIDGES))]
    judge = quality.Judge(BANDS, material.mean(rest))

    def judged(band: int, example: Example, reading: taps.Reading) -> None:
        judge.add(band, example, material.wanted(example), [read_on_cpu(trial, reading, material.size(example)) for trial in trials])
        fitter.add(band, example, reading)

    fitter.look(held, judged)
    best = judge.best()
    found = judge.quality(best)
    maps = [fitter.sums.solve(band, [RIDGES[k]], SHARED)[0] for band, k in enumerate(best)]
    head = fitter.head(maps, found.start, fitted_on={"pictures": len(given), "held_out": len(held), "seed": seed},
                       explained=found.explained())
    return head, found


def read_on_cpu(head: LinearHead, reading: taps.Reading, size: tuple[int, int]) -> Tensor:
    return read(head, taps.Reading(reading.emb.cpu(), [f.cpu() for f in reading.features]), size)


class FitReadoutHead(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FitReadoutHead", display_name=NODE, category=CATEGORY, is_input_list=True,
            description="Makes a readout head for this model from a handful of pictures and what should be read of each, in seconds. Two dozen "
                        "pictures are enough for most kinds.",
            inputs=[io.Model.Input("model"),
                    io.Latent.Input("latents", tooltip="The pictures: a batch, or a list. The model may have sampled them itself."),
                    io.Conditioning.Input("positive", tooltip="What the pictures show: one for all, such as an empty prompt, or a list."),
                    io.Image.Input("image", tooltip="What the head should read of each picture, in the same order: a batch or a list, of any size."),
                    io.String.Input("kind", default="depth", tooltip="What that is: pose, depth, edge, or a name of your own for Map Target."),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip="Of the noise, and of which pictures are held out to judge the head by.")],
            outputs=[Head.Output(display_name="head"), io.String.Output(display_name="report"), io.Image.Output(display_name="held out")])

    @classmethod
    def execute(cls, model, latents, positive, image, kind, seed):
        model, kind, seed, begin = model[0], kind_given(NODE, kind[0]), seed[0], time.monotonic()
        checks.heads_fit(NODE, model, [])
        given = examples(NODE, model, latents, positive, image, kind)
        head, found = fitted(model, given, kind, seed)
        report = quality.report(NODE, head, found, f"fitted from {len(given)} pictures in {time.monotonic() - begin:.0f} seconds")
        return io.NodeOutput(head, report, quality.sheet(model, head, found))
