"""Whether images and what should be read of them come in the same order, by where something changes in both."""
import torch
import torch.nn.functional as F
from torch import Tensor

from .examples import Example

SIDE = 32           # of the small images that are compared
CLEARLY = 0.4       # deviations, by which the best matches must be above those with mirrored images, which belong to nobody


def differs(given: list[Example]) -> bool:
    """Whether most of what should be read fits other images clearly better than those that it came with."""
    shown = changes([example.latent for example in given])
    likeness, *mirrored = (shown @ changes([example.image.flip(dims) for example in given]).mT for dims in ((), (-1,), (-2,)))
    own, best = likeness.diag().mean(), likeness.amax(0).mean()
    return bool(own - likeness.mean() < (best - likeness.mean()) / 2 and best > max(x.amax(0).mean() for x in mirrored) + CLEARLY * likeness.std())


def changes(images: list[Tensor]) -> Tensor:
    """How much each [1, C, ..., H, W] changes in places of it, beside what all do: [N, P] of length 1."""
    found = []
    for x in images:
        x = F.interpolate(x.flatten(1, -3).float(), (SIDE + 1, SIDE + 1), mode="bilinear", antialias=True)
        steps = (x[..., 1:, 1:] - x[..., :-1, 1:]).square() + (x[..., 1:, 1:] - x[..., 1:, :-1]).square()
        found.append(F.avg_pool2d(steps.sum(1).sqrt(), 2).flatten())
    found = torch.stack(found)
    found = found - found.mean(0)
    return F.normalize(found - found.mean(1, keepdim=True), dim=1)
