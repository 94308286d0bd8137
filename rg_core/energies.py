"""Energies: how far a readout is from what the user asked for. Lower is better.

Source: Luo et al., "Readout Guidance", CVPR 2024, section 3.3, with the scaling of the published code.
"""
from torch import Tensor


def latent_range(latent: Tensor) -> Tensor:
    """max - min of each picture's VP-scaled latent [B, C, H, W], the L of the published loss scaling. Returns [B]."""
    flat = latent.flatten(1)
    return flat.amax(1) - flat.amin(1)


def spatial(readout: Tensor, target: Tensor, span: Tensor, control_range: tuple[float, float],
            mask: Tensor | None = None) -> Tensor:
    """mean((readout - target)^2) * (L / C)^2 of each picture, [B].

    `readout` and `target` are [B, channels, H, W] in the control range, whose width is C; `span` [B] is L (see
    `latent_range`). With `mask` [B, 1, H, W], 0 to 1, the mean is taken over the masked area; an empty mask gives 0.
    """
    error = (readout - target) ** 2
    if mask is None:
        mean = error.flatten(1).mean(1)
    else:
        area = mask.flatten(1).sum(1) * error.shape[1]
        mean = (error * mask).flatten(1).sum(1) / area.clamp(min=1)
    return mean * (span / (control_range[1] - control_range[0])) ** 2
