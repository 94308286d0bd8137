"""Trains readout heads on a frozen diffusion model.

Works on any model that has taps: the caller hands over a function that noises its own latents and reads the taps.
Source of the recipe: Luo et al., "Readout Guidance", CVPR 2024, section 3.2 (features at random noise levels; a mean
squared error against the property's image, a contrastive loss over tracked points, or triplets).
"""
import time
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..features.taps import Reading
from ..guidance import energies
from ..images.resize import size_of
from ..readout.head import ReadoutHead
from .trainer import Losses, Trainer

Read = Callable[[Tensor, Tensor], Reading]
ROUNDING = 2.0**-8  # of bfloat16


def train(heads: dict[str, ReadoutHead], losses: Losses, steps: int, *, lr: float = 1e-3, seed: int = 0,
          report: Callable[[str], None] = print) -> None:
    """Trains `heads` in place from nothing to the end; see Trainer."""
    trainer = Trainer(heads, losses, steps, lr=lr, seed=seed)
    rolling, start = {}, time.monotonic()
    while trainer.done < steps:
        for name, loss in trainer.step().items():
            rolling[name] = 0.98 * rolling.get(name, loss) + 0.02 * loss
        if trainer.done % 50 == 0:
            report(f"heads: step {trainer.done} of {steps}, "
                   + ", ".join(f"{name} {loss:.4f}" for name, loss in rolling.items())
                   + f", {time.monotonic() - start:.0f} s")
    trainer.finish()


def deviations(readings: Iterable[Reading]) -> list[tuple[Tensor, Tensor]]:
    """For each tap the mean [C] and deviation [C] of its channels over all places of all `readings`. A deviation is no smaller than what
    half-precision rounds a channel of that mean by."""
    count, sums = 0, []
    for reading in readings:
        flat = [f.double().movedim(1, -1).flatten(0, -2) for f in reading.features]
        sums = sums or [(0.0, 0.0)] * len(flat)
        count += 1  # maps of one tap may differ in size, and each image counts alike
        sums = [(one + f.mean(0), two + f.square().mean(0)) for (one, two), f in zip(sums, flat, strict=True)]
    found = []
    for one, two in sums:
        mean = one / count
        deviation = (two / count - mean**2).clamp(min=0).sqrt()
        found.append((mean.float(), deviation.maximum(mean.abs() * ROUNDING).clamp(min=1e-6).float()))
    return found


def readout(head: ReadoutHead, reading: Reading, size: tuple[int, int]) -> Tensor:
    """What `head` reads, in single precision."""
    return head([f.float() for f in reading.of(head)], reading.embedding().float(), size)


def spatial_loss(head: ReadoutHead, reading: Reading, wanted: Tensor, balanced: bool = False) -> Tensor:
    """The mean squared error of what `head` reads against `wanted` [B, channels, H, W], both in units of its control range. Where it is
    `balanced`, what is empty (at the low end of the range, as the ground of edges) counts as much as all the rest, however much there is of it."""
    low, high = head.control_range
    error = ((readout(head, reading, size_of(wanted)) - wanted) / (high - low)).square()
    if not balanced:
        return error.mean()
    empty = wanted <= low
    share = empty.float().mean()
    sides = (share > 0).float() + (share < 1).float()
    return (error / torch.where(empty, share, 1 - share)).mean() / sides


def spatial_losses(heads: dict[str, ReadoutHead], read: Read, targets: dict[str, Tensor], timesteps: int, batch: int = 16):
    """Losses for `train`: the mean squared error of each spatial head, in units of its control range, squared.

    `read(indices [B], t [B])` noises the latents with these indices to these timesteps, 0 to `timesteps` - 1, and
    returns the taps' reading; `targets[name]` [N, channels, H, W] is what head `name` should read, in its control
    range, for latent 0 to N - 1. The heads decide the device. All read the same features, so that these are paid for once.
    """
    count = len(next(iter(targets.values())))

    def losses(rng: torch.Generator) -> Iterator[dict[str, Tensor]]:
        pick = torch.randint(count, (batch,), generator=rng)
        reading = read(pick, torch.randint(timesteps, (batch,), generator=rng))
        found = {}
        for name, head in heads.items():
            found[name] = spatial_loss(head, reading, targets[name][pick].to(reading.embedding().device))
        yield found

    return losses


def correspondence_losses(head: ReadoutHead, read: Read, pairs: Tensor, tracks: Tensor, timesteps: int,
                          size: tuple[int, int], batch: int = 8, temperature: float = 0.07):
    """Losses for `train`: the contrastive loss of a correspondence head over tracked points.

    `pairs` [N, 2] are indices of latents that show the same things, `tracks` [N, 2, K, 2] where: (x, y) in shares of
    the image, in both. What is read at a point of one image must be told, by its cosine, from what is read at any
    other pixel of the other one (InfoNCE, van den Oord et al., arXiv 1807.03748, equation 4), in both directions.
    `size` (H, W) is the readout's.
    """
    height, width = size

    def losses(rng: torch.Generator) -> Iterator[dict[str, Tensor]]:
        pick = torch.randint(len(pairs), (batch,), generator=rng)
        t = torch.randint(timesteps, (batch,), generator=rng)
        reading = read(pairs[pick].T.flatten(), t.repeat(2))
        seen = F.normalize(readout(head, reading, size), dim=1).chunk(2)
        points = tracks[pick].to(reading.embedding().device).unbind(1)
        total = 0.0
        for one, other in ((0, 1), (1, 0)):
            query = F.normalize(energies.at(seen[one], points[one]), dim=-1)
            logits = query @ seen[other].flatten(2) / temperature
            cell = (points[other] * torch.tensor([width, height], device=logits.device)).long()
            answer = cell[..., 1].clamp(0, height - 1) * width + cell[..., 0].clamp(0, width - 1)
            total = total + F.cross_entropy(logits.flatten(0, 1), answer.flatten())
        yield {"correspondence": total / 2}

    return losses


def triplet_losses(head: ReadoutHead, read: Read, triplets: Tensor, energy: Callable[[Tensor, Tensor, Tensor], Tensor],
                   timesteps: int, size: tuple[int, int], batch: int = 8, temperature: float = 0.1):
    """Losses for `train`: an anchor must be nearer to its positive than to its negative.

    `triplets` [N, 3] are indices of latents (anchor, positive, negative), `energy(readouts, readouts, span)` is what
    guidance will use the head with: `energies.appearance` or `energies.identity`.
    """
    def losses(rng: torch.Generator) -> Iterator[dict[str, Tensor]]:
        pick = torch.randint(len(triplets), (batch,), generator=rng)
        t = torch.randint(timesteps, (batch,), generator=rng)
        anchor, positive, negative = readout(head, read(triplets[pick].T.flatten(), t.repeat(3)), size).chunk(3)
        one = torch.ones(batch, device=anchor.device)
        gap = energy(anchor, positive, one) - energy(anchor, negative, one)
        yield {head.kind: F.softplus(gap / temperature).mean()}

    return losses


@torch.no_grad()
def explained(head: ReadoutHead, read: Read, target: Tensor, t: int, *, batch: int = 32) -> float:
    """How much of `target`'s variance [N, channels, H, W] around its mean image `head` reads at timestep `t`; at most 1."""
    error = spread = 0.0
    mean = target.mean(0, keepdim=True)
    for pick in torch.arange(len(target)).split(batch):
        reading = read(pick, torch.full((len(pick),), t))
        error += (readout(head, reading, size_of(target)).cpu() - target[pick]).square().sum().item()
        spread += (mean - target[pick]).square().sum().item()
    return 1 - error / spread


@torch.no_grad()
def point_accuracy(head: ReadoutHead, read: Read, pairs: Tensor, tracks: Tensor, t: int, size: tuple[int, int], within: float, *,
                   batch: int = 32) -> float:
    """Share of tracked points that a correspondence `head` finds in the other image, by the best cosine over all
    pixels, `within` this distance (a share of the image), at timestep `t`. Arguments as for `correspondence_losses`."""
    hits = []
    for part in torch.arange(len(pairs)).split(batch):
        reading = read(pairs[part].T.flatten(), torch.full((2 * len(part),), t))
        here, there = F.normalize(readout(head, reading, size), dim=1).cpu().chunk(2)
        query = energies.at(here, tracks[part, 0])
        best = (query @ there.flatten(2)).argmax(-1)
        place = torch.stack([best % size[1] + 0.5, best // size[1] + 0.5], -1) / torch.tensor([size[1], size[0]])
        hits.append(((place - tracks[part, 1]).norm(dim=-1) <= within).float().mean(1))
    return torch.cat(hits).mean().item()


@torch.no_grad()
def ordered(head: ReadoutHead, read: Read, triplets: Tensor, energy: Callable[[Tensor, Tensor, Tensor], Tensor], t: int,
            size: tuple[int, int], *, batch: int = 32) -> float:
    """Share of `triplets` whose positive is nearer to the anchor than their negative, at timestep `t`; 0.5 is chance."""
    right = []
    for part in triplets.split(batch):
        anchor, positive, negative = readout(head, read(part.T.flatten(), torch.full((3 * len(part),), t)), size).chunk(3)
        one = torch.ones(len(part), device=anchor.device)
        right.append((energy(anchor, positive, one) < energy(anchor, negative, one)).float())
    return torch.cat(right).mean().item()
