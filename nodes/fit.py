"""Fit Readout Head: a head from a handful of pictures, in closed form."""
import time

import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..heads.config import CONTROL_RANGES, DEFAULT_RANGE
from ..rg_core import fitting, taps
from ..rg_core.head import resize
from ..rg_core.linear_head import LinearHead, from_maps
from ..rg_core.pictures import fit, to_range
from . import checks, quality
from .examples import Example, batches, examples, kind_given
from .references import family
from .sampling.ask import asked, embeddings, sigma_at
from .sampling.reader import read
from .types import CATEGORY, Head

NODE = "Fit Readout Head"
# docs/fitting.md has the measurements that chose these.
BANDS, SHARED = 5, 0.3
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
LEVELS = 64       # noise levels that a head can tell apart
PIXELS = 1024     # of each picture at each band, at random where it has more
HELD_OUT = 0.2    # of the pictures
MOST_HELD_OUT = 16


class Fitter:
    """Reads the pictures `given` in each band of noise, and fits heads of `kind` to what should be read of them."""

    def __init__(self, model, given: list[Example], kind: str, seed: int):
        self.model, self.given, self.kind = model, given, kind
        self.control_range = CONTROL_RANGES.get(kind, DEFAULT_RANGE)
        # Where latents are pixels, reading at half their size is fine enough.
        self.stride = 2 if model.get_model_object("latent_format").spacial_downscale_ratio == 1 else 1
        self.channels = taps.channels(model.model.diffusion_model)
        self.sums = fitting.Sums(BANDS, sum(self.channels), given[0].image.shape[1])
        self.levels: Tensor | None = None
        self.rng = torch.Generator().manual_seed(seed)
        self.progress = comfy.utils.ProgressBar(BANDS * len(given))

    def size(self, example: Example) -> tuple[int, int]:
        """(H, W) of the readout of it."""
        return tuple(max(1, n // self.stride) for n in example.latent.shape[-2:])

    def wanted(self, example: Example) -> Tensor:
        """What should be read of it, [1, 3, H, W], in the control range."""
        return to_range(fit(example.image, self.size(example)), self.control_range)

    def look(self, places: list[int], use) -> None:
        """Calls `use(band, example, reading)` for each of the pictures at `places` in each band, at a level in it at random."""
        given = [self.given[i] for i in places]
        for band in range(BANDS):
            for part in batches(given):
                some = [given[i] for i in part]
                samples = torch.cat([e.latent for e in some]).cpu()
                percents = (band + torch.rand(len(some), generator=self.rng)) / BANDS
                levels = torch.tensor([sigma_at(self.model, p) for p in percents.tolist()])
                noise = torch.randn(samples.shape, generator=self.rng)

                def seen(base_model, reading):
                    if self.levels is None:
                        sigmas = torch.tensor([sigma_at(self.model, p) for p in torch.linspace(0, 1, LEVELS).tolist()])
                        self.levels = embeddings(base_model, base_model.model_sampling.timestep(sigmas), reading).float().cpu()
                    for i, example in enumerate(some):
                        use(band, example, taps.Reading(reading.emb[i:i + 1], [f[i:i + 1] for f in reading.features]))

                asked(NODE, self.model, some[0].positive, samples, noise, levels, seen)
                self.progress.update(len(part))

    def add(self, band: int, example: Example, reading: taps.Reading) -> None:
        x, y = fitting.rows(reading.features, self.size(example))[0], self.wanted(example)[0].flatten(1).mT
        some = torch.randperm(len(x), generator=self.rng)[:PIXELS]
        self.sums.add(band, x[some.to(x.device)], y[some].to(x.device))

    def head(self, maps: list[tuple[Tensor, Tensor]], start: float = 0.0, **about) -> LinearHead:
        config = {"text_width": self.model.model.model_config.unet_config.get("context_dim"), **about}
        return from_maps(self.kind, self.channels, maps, self.levels, control_range=self.control_range, base_model=family(self.model),
                         stride=self.stride, start=start, config=config)


def fitted(model, given: list[Example], kind: str, seed: int) -> tuple[LinearHead, quality.Quality]:
    """A head, and how well one of the same ridges but without the held-out pictures reads those."""
    fitter = Fitter(model, given, kind, seed)
    order = torch.randperm(len(given), generator=fitter.rng).tolist()
    held = order[:max(1, min(MOST_HELD_OUT, round(HELD_OUT * len(given))))]
    fitter.look(order[len(held):], fitter.add)
    solved = [fitter.sums.solve(band, RIDGES, SHARED) for band in range(BANDS)]
    trials = [fitter.head([band[k] for band in solved]) for k in range(len(RIDGES))]
    judge = quality.Judge(BANDS, mean_picture([fitter.wanted(given[i]) for i in order[len(held):]]))

    def judged(band: int, example: Example, reading: taps.Reading) -> None:
        judge.add(band, example, fitter.wanted(example), [read_on_cpu(trial, reading, fitter.size(example)) for trial in trials])
        fitter.add(band, example, reading)

    fitter.look(held, judged)
    best = judge.best()
    found = judge.quality(best)
    maps = [fitter.sums.solve(band, [RIDGES[k]], SHARED)[0] for band, k in enumerate(best)]
    head = fitter.head(maps, found.start, fitted_on={"pictures": len(given), "held_out": len(held), "seed": seed},
                       explained={f"{p:.1f}": round(share, 3) for p, share in zip(found.percents, found.shares)})
    return head, found


def read_on_cpu(head: LinearHead, reading: taps.Reading, size: tuple[int, int]) -> Tensor:
    return read(head, taps.Reading(reading.emb.cpu(), [f.cpu() for f in reading.features]), size)


def mean_picture(wanted: list[Tensor]) -> Tensor:
    """[1, 3, H, W] of the first one's size."""
    return torch.stack([resize(x, wanted[0].shape[-2:]) for x in wanted]).mean(0)


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
        if len(given) < 2:
            raise ValueError(f"{NODE}: got one picture, and it needs two at least, one to fit and one to judge by. Ten make a head, and more a "
                             "better one.")
        if all((e.image.amax((2, 3)) - e.image.amin((2, 3))).max() < 1 / 255 for e in given):
            raise ValueError(f"{NODE}: every image of what should be read has one colour all over, so there is nothing to read. Check the node "
                             "that made them.")
        head, found = fitted(model, given, kind, seed)
        report = quality.report(NODE, head, found, len(given), time.monotonic() - begin)
        return io.NodeOutput(head, report, quality.sheet(model, head, found))
