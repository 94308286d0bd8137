"""Update rules: from a gradient to a move. Each keeps images of a batch apart."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-8


def rms(gradient: Tensor) -> Tensor:
    """The gradient [B, ...] of each image over its root mean square: direction kept, size 1."""
    size = gradient.float().flatten(1).square().mean(1).sqrt().clamp(min=1e-30)
    return gradient.float() / size.view(-1, *[1] * (gradient.ndim - 1))


def sign(gradient: Tensor) -> Tensor:
    """g / (|g| + eps), element by element: the first step of Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1)
    from a fresh state, which is what the published code of Readout Guidance does."""
    gradient = gradient.float()
    return gradient / (gradient.abs() + EPSILON)


FORMS = {"rms": rms, "sign": sign}


@dataclass(frozen=True)
class Move:
    """How a gradient becomes a shift of the image. The defaults are what the measurements in docs/measurements/moves.md chose.

    With `per_step` the shift is the published one, made on the VP-scaled latent before each step; otherwise it is made on the
    prediction of the denoised image, in as many moves as the step is long.
    """
    strength: float = 0.1           # size of the shift, in units of the VP-scaled latent
    form: str = "rms"               # one of FORMS
    per_step: bool = False
    fresh: bool = False             # with `per_step`: predicts again from the moved latent
    eta: float = 0.0                # with `per_step`: of the sampler's ancestral noise
    both: bool = False              # reads the unconditional branch too
    published_energy: bool = False  # energies add with the published weights, scaled by L of the image and its references
    # together, which are read in full precision; otherwise each target pulls as hard as its weight says
    moves: int = 0                  # at each noise level; 0: as many as the fall of the noise asks for; not with `per_step`

    def displacement(self, gradient: Tensor, scale: float, weights: Sequence[float | Tensor]) -> Tensor:
        """The shift [B, C, H, W] that lowers the energies whose `gradient` with respect to the VP-scaled latent this is.

        What is shifted is larger by `scale` than the VP-scaled latent. The targets' `weights`, of all images or [B],
        multiply the size; in the published procedure they only weigh the energies.
        """
        length = 1 if self.published_energy else sum(w**2 for w in weights) ** 0.5
        if isinstance(length, Tensor):
            length = length.view(-1, *[1] * (gradient.ndim - 1))
        return -self.strength * length * scale * FORMS[self.form](gradient)

    def approach(self, gradient: Tensor, energy: Tensor, scale: float, weight: float) -> Tensor:
        """The shift [B, C, H, W] of a prediction that lowers the `energy` [B] whose `gradient` with respect to the prediction this is: as
        large as `displacement` by this `scale`, but nowhere longer than 2 E / |g|^2 times the gradient, which takes an energy that is the square of
        a distance to 0 (Polyak, "Introduction to Optimization", 1987, section 5.3, with 0 as the least value)."""
        squares = gradient.float().flatten(1).square()
        size = squares.mean(1).sqrt().clamp(min=1e-30)
        step = torch.minimum(self.strength * weight * scale / size, 2 * energy / squares.sum(1).clamp(min=1e-30))
        return -gradient.float() * step.view(-1, *[1] * (gradient.ndim - 1))


# Luo et al., "Readout Guidance", CVPR 2024, section 3.3 and their code.
PUBLISHED = Move(0.02, "sign", per_step=True, fresh=True, both=True, published_energy=True)
