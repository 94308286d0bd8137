"""How well a new head reads pictures that it was not made from: figures, words and a picture of it."""
from collections.abc import Sequence
from dataclasses import dataclass

import latent_preview
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..rg_core.estimates import from_range
from ..rg_core.head import resize
from . import order
from .examples import Example
from .log import log
from .sampling.screen import page

# Shares of what differs between pictures that a head must read to guide at a noise level, to be of use at all, and to be good. Even one that reads
# worse than the mean picture there is better begun with than not: docs/fitting.md.
ACTS, USEFUL, GOOD = -0.3, 0.3, 0.6
TURNS, RIDGE = 5, 0.1  # how pictures with something and without it are told, each by the others
FEW, ROUGHLY, WELL = 10, 0.65, 0.8  # of a sort, to be judged by at all; shares of them that are told rightly
SHOWN, SIDE = 4, 128  # pictures on the sheet, and pixels of a picture's shorter side


@dataclass
class Quality:
    percents: list[float]  # the middles of the bands
    shares: list[float]    # of the variance of what should be read, around its mean picture, that is read there; at most 1
    start: float           # from which on the head should act
    seen: list[tuple[Example, Tensor, list[Tensor]]]  # held-out pictures, what was wanted and what is read in each band

    def explained(self) -> dict[str, float]:
        """The shares by percent, for a head's file."""
        return {f"{p:.1f}": round(share, 3) for p, share in zip(self.percents, self.shares)}


class Judge:
    """Compares what several trial heads read of held-out pictures with what was wanted, by band."""

    def __init__(self, bands: int, mean: Tensor):
        self.mean, self.errors, self.spread = mean, [[] for _ in range(bands)], [0.0] * bands
        self.seen: dict[int, tuple] = {}

    def add(self, band: int, example: Example, wanted: Tensor, readouts: list[Tensor]) -> None:
        """`wanted` and each trial's readout are [1, 3, H, W]."""
        self.errors[band].append([(x - wanted).square().mean().item() for x in readouts])
        self.spread[band] += (resize(self.mean, wanted.shape[-2:]) - wanted).square().mean().item()
        self.seen.setdefault(id(example), (example, wanted, []))[2].append(readouts)

    def best(self) -> list[int]:
        """The trial with the least error, for each band."""
        return [int(np.argmin(np.sum(errors, 0))) for errors in self.errors]

    def quality(self, chosen: list[int]) -> Quality:
        bands = len(self.errors)
        shares = [1 - sum(e[k] for e in errors) / max(spread, 1e-12) for errors, spread, k in zip(self.errors, self.spread, chosen)]
        acting = next((band for band, share in enumerate(shares) if share >= ACTS), bands - 1)
        seen = [(example, wanted, [trials[k] for trials, k in zip(read, chosen)]) for example, wanted, read in self.seen.values()]
        return Quality([(band + 0.5) / bands for band in range(bands)], shares, acting / bands, seen)


def report(node: str, head, found: Quality, made: str, given: list[Example]) -> str:
    """In words; `made` says how it was made from the pictures `given`."""
    best = max(found.shares)
    words = ("It reads well." if best >= GOOD else "It reads roughly: guiding by it should work, though not exactly." if best >= USEFUL else
             "It is not fit for use: it reads hardly anything. Give it more pictures, or ones that differ more; perhaps the model does not know "
             "what should be read.")
    if best < GOOD and order.differs(given):
        words += (" The pictures and the images of what should be read of them come in different orders: most of these fit another picture than the "
                  "one in their place. Give both in the same order.")
    if best < USEFUL:
        log.warning("%s: the %s head is not fit for use; see the report.", node, head.kind)
    levels = "\n".join(f"  percent {p:.1f}: {max(0.0, share):.2f}" for p, share in zip(found.percents, found.shares))
    return (f"A head that reads {head.kind} of {head.base_model}, {made}.\n{words}\n"
            f"Targets that use it act from percent {found.start:.1f} on, or later.\n"
            f"Of what differs between {len(found.seen)} held-out pictures, {'it' if len(found.seen) > 1 else 'which is few to judge by, it'} reads, "
            f"from noise (percent 0) to the clean picture (1):\n{levels}\n1 is all, 0 no more than their average.")


def on_the_node(cls, words: str) -> str:
    """`words`, shown on the node of class `cls` that is being executed too, as the host's Get Image Size does, but only in the page that runs it."""
    server, node_id = page(), cls.hidden and cls.hidden.unique_id
    if server is not None and node_id:
        server.send_progress_text(words, node_id, sid=server.client_id)
    return words


def in_turn(sides: Sequence[Tensor]) -> Tensor:
    """What ridge regression reads of each picture, in each band, from the features [N, bands, F] of those with something and those without it:
    [N of both, bands], above 0 where rightly. A fifth of each side is read at a time, by what the rest tell."""
    sign = torch.cat([torch.full((len(side),), value, dtype=torch.float64) for side, value in zip(sides, (1, -1))])
    turns = torch.cat([torch.arange(len(side)) % TURNS for side in sides])
    x = torch.cat(list(sides)).double().movedim(1, 0)  # [bands, N, F]
    x = F.normalize(x - x.mean(1, keepdim=True), dim=1)
    gram, readouts = x @ x.mT, torch.zeros(len(sign), len(x), dtype=torch.float64)
    for turn in range(TURNS):
        held, rest = (turns == turn).nonzero()[:, 0], (turns != turn).nonzero()[:, 0]
        mean, known = sign[rest].mean(), gram[:, rest]
        wanted = (sign[rest] - mean).expand(len(x), -1)[..., None]
        found = torch.linalg.solve(known[..., rest] + RIDGE * torch.eye(len(rest), dtype=torch.float64), wanted)
        readouts[held] = mean + (known[..., held].mT @ found)[..., 0].mT
    return readouts * sign[:, None]


def told_rightly(sides: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Which pictures are, of those with features [N, bands, F] with something and without it, and what share of them; each side counts alike, however
    many it has."""
    rights = in_turn(sides) > 0
    return rights, sum(side.double().mean().item() for side in rights.split([len(side) for side in sides])) / 2


def told(node: str, head, found: Quality, features: tuple[Sequence[Tensor], Sequence[Tensor]], seconds: float) -> str:
    """The report on a head that tells pictures with something from those without it, by the features of some of each [N, bands, F], and by those of
    their sizes [N, 1, F]. All bands count: the best of five praises chance. docs/attributes.md has how often this does."""
    sides, (rights, share), (_, by_size) = features[0], *map(told_rightly, features)
    if by_size >= WELL:
        log.warning("%s: the pictures with %s and those without it are of different sizes, by which alone %.0f%% of them can be told, and the head "
                    "may have learnt that. Give it pictures of the same sizes on both sides.", node, head.kind, 100 * by_size)
    elif share < ROUGHLY:
        log.warning("%s: the head for %s is not fit for use; see the report.", node, head.kind)
    words = ("It may tell their sizes alone, which differ. Give it pictures of the same sizes on both sides." if by_size >= WELL else
             "It is not fit for use: it hardly tells them apart. Give it more pictures, alike but for this." if share < ROUGHLY else
             f"It may tell them, but so few pictures cannot show it. Give it {FEW} of each or more." if min(map(len, sides)) < FEW else
             "It tells them well." if share >= WELL else "It tells them roughly.")
    levels = "\n".join(f"  percent {p:.1f}: {right} of {len(rights)}" for p, right in zip(found.percents, rights.sum(0).tolist()))
    return (f"A head that tells whether a picture of {head.base_model} has: {head.kind}. "
            f"Fitted from {head.config['fitted_on']['pictures']} pictures in {seconds:.0f} seconds.\n"
            f"{words}\nAttribute Target acts from percent {found.start:.1f} on, or later.\n"
            f"Told rightly, each by the others, from noise (percent 0) to the clean picture (1):\n{levels}\nChance tells half of them.")


def sheet(model, head, found: Quality) -> Tensor:
    """Held-out pictures below each other [1, H, W, 3]: the picture, what was wanted, and what is read from the noisiest band to the
    cleanest."""
    rows = []
    for example, wanted, readouts in found.seen[:SHOWN]:
        shown = [preview(model, example.latent), *(from_range(x, head.control_range) for x in (wanted, *readouts))]
        rows.append(row(shown, wanted.shape[-2:]))
    return below(rows)


def row(shown: list[Tensor], shape: tuple[int, int]) -> Tensor:
    """Pictures [B, 3, h, w] of any sizes beside each other, in the `shape` (H, W) of that which they show."""
    size = [round(n * SIDE / min(shape)) for n in shape]
    return torch.cat([torch.nn.functional.interpolate(x, size, mode="nearest-exact") for x in shown], -1)


def below(rows: list[Tensor]) -> Tensor:
    """Pictures [1, 3, h, w] below each other [1, H, W, 3], with black beside those that are narrower."""
    widest = max(x.shape[-1] for x in rows)
    return torch.cat([torch.nn.functional.pad(x, (0, widest - x.shape[-1])) for x in rows], -2).movedim(1, -1)


def preview(model, latent: Tensor) -> Tensor:
    """[1, 3, h, w], as the host shows latents while it samples; grey where it cannot."""
    form = model.get_model_object("latent_format")
    if form.latent_rgb_factors is None:
        return torch.full((1, 3, 1, 1), 0.5)
    painter = latent_preview.Latent2RGBPreviewer(form.latent_rgb_factors, form.latent_rgb_factors_bias, form.latent_rgb_factors_reshape)
    picture = np.asarray(painter.decode_latent_to_preview(form.process_in(latent.float().cpu())))
    return torch.from_numpy(picture / 255).float().movedim(-1, 0)[None]
