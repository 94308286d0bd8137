"""Heads fitted in closed form to given pictures, by asking the host's model about them."""
import comfy.utils
import torch
from torch import Tensor

from ..heads.config import CONTROL_RANGES, DEFAULT_RANGE
from ..rg_core import fitting, taps
from ..rg_core.head import resize
from ..rg_core.linear_head import LinearHead, from_maps
from ..rg_core.pictures import fit, to_range
from .examples import Example, batches
from .quality import Judge, Quality
from .references import family
from .sampling.ask import asked, embeddings, sigma_at
from .sampling.reader import read

# docs/fitting.md has the measurements that chose these.
BANDS, SHARED = 5, 0.3
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
LEVELS = 64       # noise levels that a head can tell apart
PIXELS = 1024     # of each picture at each band, at random where it has more
HELD_OUT = 0.2    # of the pictures
MOST_HELD_OUT = 16


class Fitter:
    """Reads the pictures `given` in each band of noise, and fits heads that read a map of `kind` of them. `node` is for messages."""

    outputs, pooled = 3, False

    def __init__(self, node: str, model, given: list[Example], kind: str, seed: int):
        self.node, self.model, self.given, self.kind = node, model, given, kind
        # Where latents are pixels, reading at half their size is fine enough.
        self.stride = 2 if model.get_model_object("latent_format").spacial_downscale_ratio == 1 else 1
        self.channels = taps.channels(model.model.diffusion_model)
        self.sums = fitting.Sums(BANDS, sum(self.channels), self.outputs)
        self.levels: Tensor | None = None
        self.seed, self.rng = seed, torch.Generator().manual_seed(seed)
        self.progress = comfy.utils.ProgressBar(BANDS * len(given))

    @property
    def control_range(self) -> tuple[float, float]:
        return CONTROL_RANGES.get(self.kind, DEFAULT_RANGE)

    def groups(self) -> list[list[int]]:
        """The places of pictures that differ in what should be read of them; some of each are held out."""
        return [list(range(len(self.given)))]

    def size(self, example: Example) -> tuple[int, int]:
        """(H, W) of the readout of it."""
        return tuple(max(1, n // self.stride) for n in example.latent.shape[-2:])

    def wanted(self, example: Example) -> Tensor:
        """What should be read of it, [1, outputs, H, W]."""
        return to_range(fit(example.image, self.size(example)), self.control_range)

    def read(self, head: LinearHead, example: Example, reading: taps.Reading) -> Tensor:
        """What is read of it, likewise."""
        return read(head, reading, self.size(example))

    def rows(self, example: Example, reading: taps.Reading) -> Tensor:
        """[P, F] for the P places of `wanted`."""
        return fitting.rows(reading.features, self.size(example))[0]

    def add(self, band: int, example: Example, reading: taps.Reading) -> None:
        x, y = self.rows(example, reading), self.wanted(example)[0].flatten(1).mT
        some = torch.randperm(len(x), generator=self.rng)[:PIXELS]
        self.sums.add(band, x[some.to(x.device)], y[some].to(x.device))

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
                        one = taps.Reading(reading.emb[i:i + 1].cpu(), [f[i:i + 1] for f in reading.features])
                        use(band, example, one)

                asked(self.node, self.model, some[0].positive, samples, noise, levels, seen)
                self.progress.update(len(part))

    def head(self, maps: list[tuple[Tensor, Tensor]], **more) -> LinearHead:
        config = {"text_width": self.model.model.model_config.unet_config.get("context_dim"), **more.pop("about", {})}
        return from_maps(self.kind, self.channels, maps, self.levels, control_range=self.control_range, base_model=family(self.model),
                         stride=self.stride, pooled=self.pooled, config=config, **more)


def fitted(fitter: Fitter) -> tuple[LinearHead, Quality]:
    """A head, and how well one of the same ridges but without the held-out pictures reads those."""
    given, held, rest = fitter.given, [], []
    for group in fitter.groups():
        order = [group[i] for i in torch.randperm(len(group), generator=fitter.rng)]
        most = max(1, min(MOST_HELD_OUT, round(HELD_OUT * len(group))))
        held, rest = held + order[:most], rest + order[most:]
    fitter.look(rest, fitter.add)
    solved = [fitter.sums.solve(band, RIDGES, SHARED) for band in range(BANDS)]
    trials = [fitter.head([band[k] for band in solved]) for k in range(len(RIDGES))]
    wanted = [fitter.wanted(given[i]) for i in rest]
    judge = Judge(BANDS, torch.stack([resize(x, wanted[0].shape[-2:]) for x in wanted]).mean(0))

    def judged(band: int, example: Example, reading: taps.Reading) -> None:
        on_cpu = taps.Reading(reading.emb, [f.cpu() for f in reading.features])
        judge.add(band, example, fitter.wanted(example), [fitter.read(trial, example, on_cpu) for trial in trials])
        fitter.add(band, example, reading)

    fitter.look(held, judged)
    best = judge.best()
    found = judge.quality(best)
    maps = [fitter.sums.solve(band, [RIDGES[k]], SHARED)[0] for band, k in enumerate(best)]
    about = {"fitted_on": {"pictures": len(given), "held_out": len(held), "seed": fitter.seed},
             "explained": {f"{p:.1f}": round(share, 3) for p, share in zip(found.percents, found.shares)}}
    return fitter.head(maps, start=found.start, about=about), found
