"""Signs that a MODEL is sampled for a part of the picture that its targets are of: a tile or a crop, as upscalers and detailers
make them. Nobody says so, but such a part shows, enlarged, some of what was made before, where the same picture once more shows all of it."""
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ...common.latents import one_frame
from ...common.log import Log

SIDE, CHANNELS, LEAST = 64, 4, 8           # of what is kept of a picture, and the side of what is looked for in it
SHARES = [0.9**i for i in range(20)]       # of the side of a picture that a part of it has
SAME, SHOWN, PLAIN = 0.25, 0.6, 0.1        # correlations of the same pictures, and of a part; a share of the contrast, below which anything would fit
MOST = 16                                  # samplings, and pictures of each, that are remembered


@dataclass(frozen=True, eq=False)
class Sampling:
    """One of a guided MODEL: in which node's execution, the latents' size (H, W), what it began with and ended with, made small, and how far the
    run, of which it may be a step alone, has come: asked, acting, said, guided."""
    where: object
    size: tuple[int, int]
    reached: set[str]
    pictures: list[Tensor] = field(default_factory=list)

    def keep(self, latents: Tensor) -> None:
        if latents.any():
            self.pictures.append(small(latents))


class SamplingHistory:
    """Those of one guided MODEL so far, in one run of the workflow, what was said there, and the last pictures of earlier runs, which the host need
    not sample again."""

    def __init__(self, node: str):
        self.node, self.prompt, self.log, self.seen, self.earlier = node, None, Log(node), [], []

    def add(self, latents: Tensor, noise: Tensor) -> Sampling:
        """One that begins with `latents` and this `noise`. Warns, once, if these look like a part of what was sampled before."""
        where = get_executing_context()
        prompt = where and where.prompt_id
        if prompt != self.prompt:
            self.earlier = [*self.earlier, *self.pictures()][-MOST:]
            self.prompt, self.log, self.seen = prompt, Log(self.node), []
        before = self.before(latents, where) if latents.any() else None
        goes_on = before and (before.where == where is not None or not noise.any())
        sampling = Sampling(where, tuple(latents.shape[-2:]), before.reached if goes_on else set())
        sampling.keep(latents)
        self.seen[:] = [*self.seen[1 - MOST:], sampling]
        return sampling

    def before(self, latents: Tensor, where) -> Sampling | None:
        """The last one that the picture which `latents` show was sampled in."""
        given, size = small(latents)[:1], tuple(latents.shape[-2:])
        for sampling in reversed(self.seen):
            if any(likeness(given, picture) > SAME for picture in sampling.pictures):
                return sampling
        if "part" in self.log.issued:
            return None
        if any(likeness_of_parts(given, picture) > SHOWN for picture in [*self.earlier, *self.pictures()]):
            self.warn("its MODEL samples what looks like part of an image that it sampled before")
        elif any(sampling.where == where is not None for sampling in self.seen):
            self.warn("one node samples with its MODEL more than once, from given images")
        elif any(math.prod(size) < 0.9 * math.prod(sampling.size) for sampling in self.seen):
            self.warn(f"its MODEL samples {size[1]}x{size[0]} latents, smaller than before, from a given image")
        return None

    def pictures(self) -> list[Tensor]:
        return [picture for sampling in self.seen for picture in sampling.pictures]

    def warn(self, sign: str) -> None:
        self.log.warn(f"{sign}. If these are parts of the image (tiles, a detailer's crops), each part is steered toward the whole target, which is "
                      "wrong. Give that node the MODEL from before guidance, or one that is guided by targets cropped the same way.", "part")


def small(latents: Tensor) -> Tensor:
    """[B, C, h, w] of latents, no side longer than SIDE."""
    x = one_frame(latents[:MOST])[:, :CHANNELS].float().cpu()
    return resized(x, min(1.0, SIDE / max(x.shape[-2:])))


def resized(x: Tensor, scale: float) -> Tensor:
    return F.interpolate(x, [max(1, round(n * scale)) for n in x.shape[-2:]], mode="bilinear", antialias=True)


def likeness(given: Tensor, picture: Tensor) -> float:
    """How well `given` [1, C, h, w] correlates with the pictures [B, C, H, W], which have its shape, or -1."""
    sought = resized(given, largest(given, picture))
    return correlation(sought, picture) if covers(sought, picture) else -1.0


def likeness_of_parts(given: Tensor, picture: Tensor) -> float:
    """How well `given` [1, C, h, w] correlates with a part of the pictures [B, C, H, W]."""
    parts = [resized(given, largest(given, picture) * share) for share in SHARES]
    return max((correlation(part, picture) for part in parts if min(part.shape[-2:]) >= LEAST and not covers(part, picture)), default=-1.0)


def largest(given: Tensor, picture: Tensor) -> float:
    """The scale at which `given` just fits into the picture."""
    return min(n / m for n, m in zip(picture.shape[-2:], given.shape[-2:]))


def covers(part: Tensor, picture: Tensor) -> bool:
    return all(m >= 0.95 * n for m, n in zip(part.shape[-2:], picture.shape[-2:]))


def correlation(sought: Tensor, picture: Tensor) -> float:
    """The largest of how `sought` [1, C, h, w] changes from place to place with how any part of the pictures [B, C, H, W] does that is as large."""
    if sought.shape[1] != picture.shape[1]:
        return -1.0
    sought, picture = changes(sought), changes(picture)
    (height, width), whole = sought.shape[-2:], picture.shape[-2:]
    product = torch.fft.rfft2(picture) * torch.fft.rfft2(sought, s=whole).conj()
    found = torch.fft.irfft2(product.sum(1), s=whole)[:, :whole[0] - height + 1, :whole[1] - width + 1]
    contrast = F.avg_pool2d(picture.square().sum(1), (height, width), 1) * (height * width)
    plain = PLAIN * contrast.amax((1, 2), keepdim=True) + 1e-12
    return float((found / (contrast * sought.square().sum() + 1e-12).sqrt()).where(contrast > plain, 0).max())


def changes(x: Tensor) -> Tensor:
    """[B, 2C, H - 1, W - 1]"""
    return torch.cat([(x[..., 1:] - x[..., :-1])[..., :-1, :], (x[..., 1:, :] - x[..., :-1, :])[..., :-1]], 1)
