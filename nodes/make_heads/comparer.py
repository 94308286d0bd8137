"""Heads that compare, fitted in closed form to images beside changed copies of themselves, by asking the host's model about them."""
from dataclasses import dataclass, replace

import comfy.utils
import torch
from torch import Tensor

from ...rg_core.features import taps
from ...rg_core.fitting import comparing
from ...rg_core.fitting.pairs import RULES, Comparison
from ...rg_core.images.control_images import fit
from ...rg_core.images.resize import resize
from ...rg_core.readout.linear_head import LinearHead, from_maps
from ..common.latents import encoded, samples_for
from ..engine.calls.inpainting import with_holes
from ..engine.read_features import levels, read_features, sigma_at
from ..engine.reader import read
from .fitter import LEVELS, SHARED
from .held_out import distinct, split
from .training_set import BANDS, check_finite, fold_for, of_model, readout_size, solving_device

# docs/measurements/comparing.md has the measurements that chose these.
RIDGE = 0.1
TIMES = 2  # that each image is compared in each band


@dataclass(frozen=True, eq=False)
class Images:
    images: list[Tensor]                 # each [1, 3, H, W], 0 to 1
    positive: list[list]                 # the host's CONDITIONING of each
    groups: list[str] | None = None      # who is in each
    tracks: tuple[Tensor, Tensor] | None = None  # points [N, K, 2] in shares of each image, and whether they are seen there [N, K]


@dataclass
class Found:
    """What a head makes of held-out images: the share that is right in each band, of how many comparisons, from when it should act, and a
    comparison of each image with its readouts [2 or 3, C, h, w] by band."""
    shares: list[float]
    count: int
    start: float
    seen: list[tuple[Comparison, list[Tensor]]]


class Comparer:
    """Makes comparisons of `given`, reads them in each band of noise, and fits heads of `kind`. `node` is for messages."""

    def __init__(self, node: str, model, vae, given: Images, kind: str, seed: int):
        self.node, self.model, self.vae, self.given, self.kind, self.rule = node, model, vae, given, kind, RULES[kind]
        self.about = of_model(model)
        self.about["stride"] *= fold_for(model)  # finer than taps are there is nothing to compare
        self.channels = taps.channels(model.model.diffusion_model)
        self.differences = comparing.Differences(BANDS, sum(self.channels))
        self.levels: Tensor | None = None
        self.seed, self.rng = seed, torch.Generator().manual_seed(seed)
        # Frames of a video are alike, and are no copies. From -1 to 1 a white image is as near to others as a black one.
        self.several = [[i] for i in range(len(given.images))] if given.tracks is not None else distinct([image * 2 - 1 for image in given.images])
        self.copies = {i: places for places in self.several for i in places}

    def one_of(self, places: list[int]) -> int:
        return places[int(torch.randint(len(places), (), generator=self.rng))]

    def picked(self, places: list[int], like: Tensor) -> Tensor:
        """One of the images at `places`, in the size of the image `like`."""
        return fit(self.given.images[self.one_of(places)], like.shape[-2:])

    def comparison(self, i: int, among: list[int]) -> Comparison:
        """One of image `i`, with others `among` the images where they are grouped."""
        image, who = self.given.images[i], self.given.groups
        others = [k for k in among if k not in self.copies[i]]
        made = self.rule.comparison(image, self.picked(others or [i], image), self.rng)
        if who is None:
            return made
        like, unlike = ([k for k in others if (who[k] == who[i]) == same] for same in (True, False))
        return Comparison(torch.cat([image, self.picked(like, image) if like else made.images[1:2],
                                     self.picked(unlike, image) if unlike else made.images[2:]]))

    def tracked(self, i: int, among: list[int]) -> list[Comparison]:
        """One of frame `i` with another one, by the points that are seen in both; none where there are no two such points."""
        if self.given.tracks is None or among == [i]:
            return []
        path, seen = self.given.tracks
        k = self.one_of([k for k in among if k != i])
        both = seen[i] & seen[k]
        return [Comparison(torch.cat([self.given.images[j] for j in (i, k)]), path[[i, k]][:, both])] if both.sum() > 1 else []

    def comparisons(self, i: int, among: list[int]) -> list[Comparison]:
        return [self.comparison(i, among) for _ in range(TIMES)] + self.tracked(i, among)

    def encoded(self, made: list[Comparison]) -> list[Comparison]:
        """The same with latents for images."""
        whole = {"samples": encoded(self.vae, torch.cat([c.images for c in made]))}
        latents = samples_for(self.node, self.model, whole).cpu().split([len(c.images) for c in made])
        return [replace(c, images=x) for c, x in zip(made, latents)]

    def look(self, band: int, comparison: Comparison, positive: list, use) -> None:
        """Calls `use(band, comparison, reading)` at a level in the band at random, each image under noise of its own. What inpainting models are to
        make is the same part of all, as in a guided run."""
        samples = comparison.images
        percent = (band + torch.rand((), generator=self.rng).item()) / BANDS
        sigmas = torch.full((len(samples),), sigma_at(self.model, percent))

        def seen(base_model, reading):
            if self.levels is None:
                self.levels = levels(self.model, base_model, reading, LEVELS)
            use(band, comparison, reading)

        noise = torch.randn(samples.shape, generator=self.rng)
        read_features(self.node, self.model, with_holes(self.model, positive, samples, self.rng, 1), samples, noise, sigmas, seen)

    def size(self, comparison: Comparison) -> tuple[int, int]:
        """(H, W) of readouts of it."""
        return readout_size(comparison.images, self.about["stride"])

    def add(self, band: int, comparison: Comparison, reading: taps.Reading) -> None:
        size = self.size(comparison)
        maps = torch.cat([resize(x.float(), size) for x in reading.features], 1)
        check_finite(self.node, band, maps)
        self.differences.add(band, *self.rule.rows(maps, comparison.points, self.rng))

    def head(self, **more) -> LinearHead:
        maps = self.differences.maps(self.rule.outputs, RIDGE, SHARED, solving_device(self.model, sum(self.channels)))
        config = self.about["config"] | more.pop("about", {})
        return from_maps(self.kind, self.channels, maps, self.levels, compares=True, **self.about | {"config": config}, **more)


def fit_head(comparer: Comparer) -> tuple[LinearHead, Found]:
    """A head, and how one that was made without the held-out images does on those."""
    given, rule = comparer.given, comparer.rule
    rest, held = split(comparer.node, comparer.several, comparer.rng)
    everything = held + rest
    progress = comfy.utils.ProgressBar(BANDS * len(rest) + len(held) + BANDS * len(everything))  # encoded, and looked at

    def encoded(i: int, among: list[int]) -> list[Comparison]:
        found = comparer.encoded(comparer.comparisons(i, among))
        progress.update(1)
        return found

    made = {i: [encoded(i, rest) for _ in range(BANDS)] for i in rest}
    judged = {i: encoded(i, everything) for i in held}
    for band in range(BANDS):
        for i, parts in made.items():
            for comparison in parts[band]:
                comparer.look(band, comparison, given.positive[i], comparer.add)
            progress.update(1)
    trial, right = comparer.head().to(comparer.model.load_device), [[] for _ in range(BANDS)]
    seen = {id(part[0]): (part[0], []) for part in judged.values()}

    def judge(band: int, comparison: Comparison, reading: taps.Reading) -> None:
        readout = read(trial, reading, comparer.size(comparison)).cpu()
        right[band].append(rule.right(readout, comparison.points))
        if id(comparison) in seen:
            seen[id(comparison)][1].append(readout)
        comparer.add(band, comparison, reading)

    for band in range(BANDS):
        for i, part in judged.items():
            for comparison in part:
                comparer.look(band, comparison, given.positive[i], judge)
            progress.update(1)
    shares = [sum(one) / len(one) for one in right]
    start = next((band for band, share in enumerate(shares) if share >= rule.acts), BANDS - 1) / BANDS
    about = {"fitted_on": {"pictures": len(everything), "held_out": len(held), "seed": comparer.seed},
             rule.measure: {f"{(band + 0.5) / BANDS:.1f}": round(share, 3) for band, share in enumerate(shares)}}
    return comparer.head(start=start, about=about), Found(shares, len(right[0]), start, list(seen.values()))
