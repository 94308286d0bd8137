"""Signs that a MODEL is sampled for a part of the image that its targets are of: a tile or a crop, as upscalers and detailers
make them. Nobody says so, but such a part shows, enlarged, some of what was made before, where the same image once more shows all of it."""
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ...common.latents import one_frame
from ...common.log import Log

SIDE, CHANNELS, LEAST = 64, 4, 8           # of what is kept of an image, and the side of what is looked for in it
SHARES = [0.9**i for i in range(20)]       # of the side of an image that a part of it has
SAME, SHOWN, PLAIN = 0.25, 0.6, 0.1        # correlations of the same images, and of a part; a share of the contrast, below which anything would fit
MOST = 16                                  # samplings, and images of each, that are remembered


@dataclass(frozen=True, eq=False)
class Sampling:
    """One of a guided MODEL: in which node's execution, the latents' size (H, W), what it began with and ended with, made small, and how far the
    run, of which it may be a step alone, has come: asked, acting, said, guided."""
    where: object
    size: tuple[int, int]
    reached: set[str]
    images: list[Tensor] = field(default_factory=list)

    def keep(self, latents: Tensor) -> None:
        if latents.any():
            self.images.append(small(latents))


class SamplingHistory:
    """Those of one guided MODEL so far, in one run of the workflow, what was said there, and the last images of earlier runs, which the host need
    not sample again."""

    def __init__(self, node: str):
        self.node, self.prompt, self.log, self.seen, self.earlier = node, None, Log(node), [], []

    def add(self, latents: Tensor, noise: Tensor) -> Sampling:
        """One that begins with `latents` and this `noise`. Warns, once, if these look like a part of what was sampled before."""
        where = get_executing_context()
        prompt = where and where.prompt_id
        if prompt != self.prompt:
            self.earlier = [*self.earlier, *self.images()][-MOST:]
            self.prompt, self.log, self.seen = prompt, Log(self.node), []
        before = self.before(latents, where) if latents.any() else None
        goes_on = before and (before.where == where is not None or not noise.any())
        sampling = Sampling(where, tuple(latents.shape[-2:]), before.reached if goes_on else set())
        sampling.keep(latents)
        self.seen[:] = [*self.seen[1 - MOST:], sampling]
        return sampling

    def before(self, latents: Tensor, where) -> Sampling | None:
        """The last one that the image which `latents` show was sampled in."""
        given, size = small(latents)[:1], tuple(latents.shape[-2:])
        for sampling in reversed(self.seen):
            if any(likeness(given, image) > SAME for image in sampling.images):
                return sampling
        if "part" in self.log.issued:
            return None
        if any(likeness_of_parts(given, image) > SHOWN for image in [*self.earlier, *self.images()]):
            self.warn("its MODEL samples what looks like part of an image that it sampled before")
        elif any(sampling.where == where is not None for sampling in self.seen):
            self.warn("one node samples with its MODEL more than once, from given images")
        elif any(math.prod(size) < 0.9 * math.prod(sampling.size) for sampling in self.seen):
            self.warn(f"its MODEL samples {size[1]}x{size[0]} latents, smaller than before, from a given image")
        return None

    def images(self) -> list[Tensor]:
        return [image for sampling in self.seen for image in sampling.images]

    def warn(self, sign: str) -> None:
        self.log.warn(f"{sign}. If these are parts of the image (tiles, a detailer's crops), each part is steered toward the whole target, which is "
                      "wrong. Give that node the MODEL from before guidance, or one that is guided by targets cropped the same way.", "part")


def small(latents: Tensor) -> Tensor:
    """[B, C, h, w] of latents, no side longer than SIDE."""
    x = one_frame(latents[:MOST])[:, :CHANNELS].float().cpu()
    return resized(x, min(1.0, SIDE / max(x.shape[-2:])))


def resized(x: Tensor, scale: float) -> Tensor:
    return F.interpolate(x, [max(1, round(n * scale)) for n in x.shape[-2:]], mode="bilinear", antialias=True)


def likeness(given: Tensor, image: Tensor) -> float:
    """How well `given` [1, C, h, w] correlates with the images [B, C, H, W], which have its shape, or -1."""
    sought = resized(given, largest(given, image))
    return correlation(sought, image) if covers(sought, image) else -1.0


def likeness_of_parts(given: Tensor, image: Tensor) -> float:
    """How well `given` [1, C, h, w] correlates with a part of the images [B, C, H, W]."""
    parts = [resized(given, largest(given, image) * share) for share in SHARES]
    return max((correlation(part, image) for part in parts if min(part.shape[-2:]) >= LEAST and not covers(part, image)), default=-1.0)


def largest(given: Tensor, image: Tensor) -> float:
    """The scale at which `given` just fits into the image."""
    return min(n / m for n, m in zip(image.shape[-2:], given.shape[-2:]))


def covers(part: Tensor, image: Tensor) -> bool:
    return all(m >= 0.95 * n for m, n in zip(part.shape[-2:], image.shape[-2:]))


def correlation(sought: Tensor, image: Tensor) -> float:
    """The largest of how `sought` [1, C, h, w] changes from place to place with how any part of the images [B, C, H, W] does that is as large."""
    if sought.shape[1] != image.shape[1]:
        return -1.0
    sought, image = changes(sought), changes(image)
    (height, width), whole = sought.shape[-2:], image.shape[-2:]
    product = torch.fft.rfft2(image) * torch.fft.rfft2(sought, s=whole).conj()
    found = torch.fft.irfft2(product.sum(1), s=whole)[:, :whole[0] - height + 1, :whole[1] - width + 1]
    contrast = F.avg_pool2d(image.square().sum(1), (height, width), 1) * (height * width)
    plain = PLAIN * contrast.amax((1, 2), keepdim=True) + 1e-12
    return float((found / (contrast * sought.square().sum() + 1e-12).sqrt()).where(contrast > plain, 0).max())


def changes(x: Tensor) -> Tensor:
    """[B, 2C, H - 1, W - 1]"""
    return torch.cat([(x[..., 1:] - x[..., :-1])[..., :-1, :], (x[..., 1:, :] - x[..., :-1, :])[..., :-1]], 1)
