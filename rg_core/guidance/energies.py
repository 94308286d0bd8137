"""Energies: how far a readout is from what the user asked for. Lower is better.

Source: Luo et al., "Readout Guidance", CVPR 2024, section 3.3, with the scaling of the published code.
"""
import torch
import torch.nn.functional as F
from torch import Tensor


def latent_range(latent: Tensor) -> Tensor:
    """max - min of each image's VP-scaled latent [B, C, H, W], the L of the published loss scaling. Returns [B]."""
    flat = latent.flatten(1)
    return flat.amax(1) - flat.amin(1)


def spatial(readout: Tensor, target: Tensor, span: Tensor, control_range: tuple[float, float],
            mask: Tensor | None = None) -> Tensor:
    """mean((readout - target)^2) * (L / C)^2 of each image, [B].

    `readout` and `target` are [B, channels, H, W] in the control range, whose width is C; `span` [B] is L (see
    `latent_range`). With `mask` [B, 1, H, W], 0 to 1, the mean is taken over the masked area; an empty mask gives 0.
    """
    weighted_mean = masked_mean((readout - target) ** 2, mask).mean(1)
    return weighted_mean * (span / (control_range[1] - control_range[0])) ** 2


def appearance(guided: Tensor, reference: Tensor, span: Tensor, mask: Tensor | None = None) -> Tensor:
    """mean over pixels of (1 - cos(f_guided, f_reference)) * L^2 of each image, [B].

    `guided` and `reference` are readouts [B, C, H, W] compared pixel by pixel, `span` [B] is L. With `mask`
    [B, 1, H, W], 0 to 1, the mean is taken over the masked area.
    """
    difference = 1 - F.cosine_similarity(guided, reference)[:, None]
    return masked_mean(difference, mask)[:, 0] * span**2


def identity(guided: Tensor, reference: Tensor, span: Tensor, mask: Tensor | None = None,
             reference_mask: Tensor | None = None) -> Tensor:
    """(1 - cos(mean f_guided, mean f_reference)) * L^2 of each image, [B]: who is there, wherever they stand.

    `guided` [B, C, H, W] and `reference` [B, C, h, w] are readouts, each averaged over its own mask [B, 1, ...] or the
    whole image; `span` [B] is L. Our own form of the paper's identity consistency (section 4.2).
    """
    return (1 - F.cosine_similarity(masked_mean(guided, mask), masked_mean(reference, reference_mask))) * span**2


def correspondence(guided: Tensor, reference: Tensor, start: Tensor, end: Tensor, counts: Tensor) -> Tensor:
    """-1/2 mean s(f_reference[p], f_guided[q]) + 1/2 mean s(f_reference[p], f_guided[p]) of each image, [B].

    The means are over the drags from p = `start` to q = `end`, [B, K, 2] (x, y) in shares of the image, that count:
    `counts` [B, K] is 1 for those and 0 for the others. s is the cosine moved to 0 to 1. The first term wants what was
    at p to be at q, the second discourages a ghost at p. Readouts are [B, C, H, W].
    """
    arrived, left = cosines(guided, reference, start, end)
    return weighted_mean((left - arrived) / 4, counts)


def bounded_correspondence(guided: Tensor, reference: Tensor, start: Tensor, end: Tensor, counts: Tensor) -> Tensor:
    """`correspondence` that has an end: mean of 1 - cos(f_reference[p], f_guided[q]) + max(0, cos(f_reference[p], f_guided[p])), [B], from 3 to
    0, where drags have arrived. A place that is unlike what was there, by a cosine below 0, has no ghost, and being still less like it is no
    aim."""
    arrived, left = cosines(guided, reference, start, end)
    return weighted_mean(1 - arrived + left.clamp(min=0), counts)


def cosines(guided: Tensor, reference: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Of f_reference[p] to f_guided[q] and to f_guided[p], [B, K] each."""
    wanted, there, here = at(reference, start), at(guided, end), at(guided, start)
    return F.cosine_similarity(wanted, there, dim=-1), F.cosine_similarity(wanted, here, dim=-1)


def weighted_mean(terms: Tensor, counts: Tensor) -> Tensor:
    return (terms * counts).sum(1) / counts.sum(1).clamp(min=1)


def color(image: Tensor, wanted: Tensor, cells: int, mask: Tensor | None = None) -> Tensor:
    """How far the coarse colors of `image` are from those of `wanted`, both [B, C, H, W]: mean over the cells of a grid, `cells` along
    the shorter side, of the squared difference of their means. [B]

    With `mask` [B, 1, H, W], 0 to 1, a cell's mean is over what the mask has of it, and so much the cell counts.
    """
    difference = image - wanted
    if mask is None:
        return coarse(difference, cells).square().flatten(1).mean(1)
    cover = coarse(mask, cells)
    means = coarse(difference * mask, cells) / cover.clamp(min=1e-6)
    return masked_mean(means.square(), cover).mean(1)


def coarse(x: Tensor, cells: int) -> Tensor:
    """The means of `x` [B, C, H, W] over the cells of a grid, `cells` along the shorter side: [B, C, h, w]."""
    height, width = x.shape[-2:]
    shorter = min(height, width)
    return F.adaptive_avg_pool2d(x, (max(1, round(cells * height / shorter)), max(1, round(cells * width / shorter))))


def at(x: Tensor, points: Tensor) -> Tensor:
    """`x` [B, C, H, W] at `points` [B, K, 2] (x, y), shares of the image, bilinearly between pixel centres: [B, K, C].

    By indexing, whose gradient is the same each time on a GPU, as grid_sample's is not.
    """
    last = torch.tensor([x.shape[-1] - 1, x.shape[-2] - 1], device=x.device)
    place = (points * (last + 1) - 0.5).clamp(min=0).minimum(last)
    low = place.floor()
    share, low = place - low, low.long()
    high, image, x = (low + 1).minimum(last), torch.arange(len(x), device=x.device)[:, None], x.movedim(1, -1)
    above, below = (torch.lerp(x[image, row, low[..., 0]], x[image, row, high[..., 0]], share[..., :1]) for row in (low[..., 1], high[..., 1]))
    return torch.lerp(above, below, share[..., 1:])


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of `x` [B, C, H, W] over its pixels, [B, C], weighted by `mask` [B, 1, H, W] where there is one."""
    if mask is None:
        return x.flatten(2).mean(2)
    return (x * mask).flatten(2).sum(2) / mask.flatten(2).sum(2).clamp(min=1e-6)
