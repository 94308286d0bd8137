"""How well a new head reads pictures that it was not made from: figures, words and a picture of it."""
import logging
from dataclasses import dataclass

import latent_preview
import numpy as np
import torch
from torch import Tensor

from ..rg_core.estimates import from_range
from ..rg_core.head import resize
from .examples import Example
from .sampling.screen import client

# Shares of what differs between pictures that a head must read to guide at a noise level, to be of use at all, and to be good. Even one that reads
# worse than the mean picture there is better begun with than not: docs/fitting.md.
ACTS, USEFUL, GOOD = -0.3, 0.3, 0.6
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


def report(node: str, head, found: Quality, made: str) -> str:
    """In words; `made` says from what and how."""
    best = max(found.shares)
    words = ("It reads well." if best >= GOOD else "It reads roughly: guiding by it should work, though not exactly." if best >= USEFUL else
             "It is not fit for use: it reads hardly anything. Give it more pictures, or ones that differ more; perhaps the model does not know "
             "what should be read.")
    if best < USEFUL:
        logging.warning("%s: the %s head is not fit for use; see the report.", node, head.kind)
    levels = "\n".join(f"  percent {p:.1f}: {max(0.0, share):.2f}" for p, share in zip(found.percents, found.shares))
    return (f"A head that reads {head.kind} of {head.base_model}, {made}.\n{words}\n"
            f"Targets that use it act from percent {found.start:.1f} on, or later.\n"
            f"Of what differs between {len(found.seen)} held-out pictures, {'it' if len(found.seen) > 1 else 'which is few to judge by, it'} reads, "
            f"from noise (percent 0) to the clean picture (1):\n{levels}\n1 is all, 0 no more than their average.")


def on_the_node(cls, words: str) -> str:
    """`words`, shown on the node of class `cls` that is being executed too, as the host's Get Image Size does."""
    server, node_id = client(), cls.hidden and cls.hidden.unique_id
    if server is not None and node_id:
        server.send_progress_text(words, node_id)
    return words


def told(node: str, head, found: Quality, count: int, seconds: float) -> str:
    """The report on a head that tells pictures with something from those without it."""
    rights = [sum(bool(readouts[band] * wanted > 0) for _, wanted, readouts in found.seen) for band in range(len(found.shares))]
    held, best = len(found.seen), max(rights)
    if best <= 0.7 * held:
        logging.warning("%s: the head for %s is not fit for use; see the report.", node, head.kind)
    words = ("It tells them well." if best >= 0.85 * held else "It tells them roughly." if best > 0.7 * held else
             "It is not fit for use: it hardly tells them apart. Give it more pictures, alike but for this.")
    levels = "\n".join(f"  percent {p:.1f}: {right} of {held}" for p, right in zip(found.percents, rights))
    return (f"A head that tells whether a picture of {head.base_model} has: {head.kind}. Fitted from {count} pictures in {seconds:.0f} seconds.\n"
            f"{words}\nAttribute Target acts from percent {found.start:.1f} on, or later.\n"
            f"Of {held} held-out pictures it tells rightly, from noise (percent 0) to the clean picture (1):\n{levels}")


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
