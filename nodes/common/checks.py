"""What can be wrong with values, said so that the user knows which node, what it got and what to do."""
import math
import reprlib
from collections.abc import Iterable

import torch
from torch import Tensor

from ...heads import KINDS
from ...rg_core.guidance.targets import Target
from .log import log

HUGE = 1e30  # values with which nothing can be computed
OPAQUE = 2 / 255  # values of a mask up to this are none: Load Image gives opaque images of some formats up to 1/256
MOST_IMAGES = 10_000  # in a batch: what more would mean takes minutes to prepare


class Shown(reprlib.Repr):
    def repr_Tensor(self, x: Tensor, _level: int) -> str:
        return f"a tensor of shape {tuple(x.shape)}"


def shown(x: object) -> str:
    """The beginning of what was given, for a message."""
    text = Shown().repr(x)
    return text if len(text) <= 150 else f"{text[:147]}..."


def dense(x: object) -> bool:
    return isinstance(x, Tensor) and x.layout == torch.strided and not x.is_meta


def text(node: str, name: str, given: object) -> str:
    """The text of the input called `name`. Some of the host's nodes for texts, such as Truncate Text, give a list with one in it."""
    if isinstance(given, list) and len(given) == 1:
        given, = given
    if not isinstance(given, str):
        raise ValueError(f"{node}: {name} is {shown(given)}, but must be text. Check the node it comes from.")
    return given


def image(node: str, image: Tensor, finite: bool = True) -> Tensor:
    """The host's IMAGE [B, H, W, C], a single [H, W, C], or grey ones as masks are, [B, H, W] or [H, W], as [B, 3, H, W]; bytes as 0 to 1, what is
    transparent over black. Raises ValueError for an empty or unusable one, also for one that is not `finite` where it should be."""
    if not dense(image):
        raise ValueError(f"{node}: the image is a {type(image).__name__}, but must be a dense tensor [batch, height, width, channels]. Connect an "
                         "IMAGE, such as from Load Image.")
    if image.ndim == 3 and image.shape[-1] in (1, 3, 4):
        image = image[None]
    elif image.ndim in (2, 3) and image.numel():
        image = image.reshape(-1, *image.shape[-2:], 1)
    if 0 in image.shape:
        raise ValueError(f"{node}: the image is empty (its shape is {tuple(image.shape)}). Connect an image of at least one pixel.")
    if image.ndim != 4 or image.shape[-1] > 4:
        raise ValueError(f"{node}: the image's shape is {tuple(image.shape)}, but must be [batch, height, width, channels] with 1 to 4 channels. "
                         "Check the node it comes from.")
    if len(image) > MOST_IMAGES:
        raise ValueError(f"{node}: the image is a batch of {len(image)} images; the maximum is {MOST_IMAGES}. Use a smaller batch.")
    if finite and not (image.float().abs() < HUGE).all():
        raise ValueError(f"{node}: the image contains NaN, infinite or huge values. Check the node it comes from.")
    if not image.is_floating_point():
        image = image / (1 if image.dtype == torch.bool else 255)
    image = image.movedim(-1, 1)
    if image.shape[1] in (2, 4):
        *image, alpha = image.split([image.shape[1] - 1, 1], 1)
        image = image[0] * alpha
    return image if image.shape[1] == 3 else image.expand(-1, 3, -1, -1)


def brightness(node: str, image: Tensor) -> None:
    """Images go from 0 to 1; filters overshoot a little."""
    low, high = image.min().item(), image.max().item()
    if low < -0.5 or high > 1.5:
        raise ValueError(f"{node}: the image has values from {low:.3g} to {high:.3g}, but images go from 0 (black) to 1 (white). Scale it first, for "
                         "example by 1/255.")


def mask(node: str, mask: Tensor | None, name: str = "mask") -> Tensor | None:
    """The host's MASK [H, W] or [B, H, W] as [B, 1, H, W], without the traces that are left of nothing; one that was checked before may be given
    again."""
    if mask is None:
        return None
    if not dense(mask) or mask.ndim not in (2, 3) and not (mask.ndim == 4 and mask.shape[1] == 1):
        given = f"of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise ValueError(f"{node}: the mask is {given}, but must be a tensor [batch, height, width]. Connect a MASK.")
    if not torch.isfinite(mask).all():
        raise ValueError(f"{node}: the mask contains NaN or infinite values. Check the node it comes from.")
    mask = mask * (mask > OPAQUE)
    if not (mask > 0).any():
        raise ValueError(f"{node}: the mask is empty, so the target would act nowhere. Paint the area where it should act, or disconnect the mask. "
                         "(Load Image outputs the transparent area as its mask; most images have none.)")
    if mask.ndim == 3:
        some_empty(node, mask, name)
    return mask.reshape(-1, 1, *mask.shape[-2:])


def some_empty(node: str, mask: Tensor, name: str) -> None:
    """Says which images a mask [B, H, W] leaves out."""
    empty = [str(k) for k, one in enumerate(mask, 1) if not (one > 0).any()]
    if empty:
        log.warning("%s: the %s is empty for image %s of %d, so this target does nothing there. Paint the area where it should act, or disconnect "
                    "the mask.", node, name, ", ".join(empty), len(mask))


def same_size(node: str, mask: Tensor | None, image: Tensor) -> None:
    """`mask` [B, 1, H, W] must be as large as `image` [B, 3, H, W]."""
    if mask is not None and mask.shape[-2:] != image.shape[-2:]:
        raise ValueError(f"{node}: the mask is {mask.shape[-1]}x{mask.shape[-2]} pixels, but the target is {image.shape[-1]}x{image.shape[-2]}. Make "
                         "them the same size, or disconnect the mask. (For an image without transparency, Load Image outputs a mask of 64x64.)")


def noise_levels(node: str, sigmas: Tensor) -> None:
    """Schedulers that are made for more steps, and nodes for sigmas, may give what is no noise level."""
    if not ((sigmas >= 0) & torch.isfinite(sigmas)).all():
        raise ValueError(f"{node}: the sigmas are {shown([round(s, 3) for s in sigmas.tolist()])}, but noise levels must be finite numbers of 0 or "
                         "more. Choose another scheduler or more steps, or check the node they come from.")


def number(node: str, name: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{node}: {name} is {shown(value)}, but must be a number of 0 or more. Check the node it comes from.")


def check_range(node: str, weight: float, start: float, end: float) -> None:
    """A target's weight and percents, which other nodes may have made."""
    for name, value in (("weight", weight), ("start_percent", start), ("end_percent", end)):
        number(node, name, value)
    if start >= end:
        raise ValueError(f"{node}: start_percent is {start} and end_percent is {end}. Set start_percent below end_percent.")


def effective_start(node: str, head, start: float, end: float) -> float:
    """The start of a target, or of what its head can read, if that is later."""
    if head.start >= end:
        raise ValueError(f"{node}: the {head.kind} head reads nothing useful before percent {head.start:g}, and end_percent is {end:g}. Raise "
                         "end_percent, or make a better head.")
    return max(start, head.start)


def head_kind(node: str, head, kind: str) -> None:
    if head.kind != kind:
        own = "" if head.kind in KINDS.values() else f" For heads of your own kinds, use {'Attribute' if head.pooled else 'Map'} Target."
        raise ValueError(f"{node}: the head reads {head.kind}, but this node needs a head that reads {kind}. Choose one in Load Readout Head.{own}")


def targets(node: str, guidance: Iterable) -> None:
    if not isinstance(guidance, (tuple, list)) or not all(isinstance(target, Target) for target in guidance):
        raise ValueError(f"{node}: guidance is {shown(guidance)}, which is not a list of targets. Connect a target, such as Pose Target.")
