"""References: a given image at every noise level, to compare the image being made with."""
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..images.resize import size_of

EXACT = 0.02  # of what a step of an inversion should lead back to, it may miss
SMALL = 0.1   # root mean square of latents of which shares mean little


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A latent's way from clean to noise.

    `sigmas` [S] ascend from 0, S at least 2; `latents` [S, B, C, H, W] are scaled as samplers hold them: the clean
    latent plus sigma times its noise, or, for flow models, (1 - sigma) of it plus sigma times its noise.
    """
    sigmas: Tensor
    latents: Tensor

    def segment(self, sigma: float) -> tuple[Tensor, Tensor]:
        """The latent [B, C, H, W] at `sigma`, and what a denoiser would have to predict there to stay on the way.

        Between two knots, and beyond the last one, the way is the straight line that an Euler step (Karras et al.,
        arXiv 2206.00364, algorithm 1), or DDIM, takes from one to the other. So a trajectory serves sigmas that it was
        not recorded at, and two knots are enough for noise that is merely added.
        """
        upper = int(torch.searchsorted(self.sigmas, sigma).clamp(1, len(self.sigmas) - 1))
        low, high = self.sigmas[upper - 1].item(), self.sigmas[upper].item()
        below, above = self.latents[upper - 1], self.latents[upper]
        slope = (above - below) / (high - low)
        latent = below + slope * (sigma - low)
        return latent, latent - slope * sigma

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the latents."""
        return size_of(self.latents)


def renoised(clean: Tensor, noisiest: Tensor, sigma_max: float) -> Trajectory:
    """The way of `clean` [B, C, H, W] with one fixed noise at every level, which makes it `noisiest` at `sigma_max`."""
    return Trajectory(torch.tensor([0.0, sigma_max]), torch.stack([clean, noisiest]))


def invert(clean: Tensor, sigmas: Tensor, denoise, refine: int, report=lambda step, latent, off: None) -> Trajectory:
    """DDIM inversion: the latents [S, B, C, H, W] from which Euler steps along `sigmas` lead to `clean` [B, C, H, W].

    `sigmas` [S] ascend from 0; `denoise(x, sigma)` predicts the clean latent. Source: Song et al., arXiv 2010.02502,
    section 4.3. There the noise predicted before a step stands in for the one after it; here that is only the first
    guess, and `refine` more predictions solve for the latent whose own step leads back (fixed-point iteration, as in
    Pan et al., arXiv 2309.04907, section 3.2). Long steps near the clean image need more: in all steps together as many
    as there are steps, while they help. `report(step, latent, off)` is called after each step, whose way back misses by up to
    about the share `off` of what it should lead to.
    """
    latents = [clean]
    noise, spare = None, len(sigmas) - 1 if refine else 0
    for step, (low, high) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist())):
        before, off = latents[-1], math.inf
        x = before if noise is None else before + (high - low) * noise
        for tries in itertools.count():
            noise = (x - denoise(x, high)) / high
            last, x = x, before + (high - low) * noise
            was, off = off, (rms(x - last) / rms(before).clamp(min=SMALL)).max().item()
            if tries >= refine:
                if off < EXACT or off >= was or spare == 0:
                    break
                spare -= 1
        latents.append(x)
        report(step, x, off)
    return Trajectory(sigmas.cpu(), torch.stack(latents))


def rms(x: Tensor) -> Tensor:
    """The root mean square of each image of [B, C, H, W], [B]."""
    return x.flatten(1).square().mean(1).sqrt()
