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
OPAQUE = 2 / 255  # values of a mask up to this are none: Load Image gives opaque pictures of some formats up to 1/256
MOST_PICTURES = 10_000  # in a batch: what more would mean takes minutes to prepare


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
        raise ValueError(f"{node}: {name} is {shown(given)}, and should be a text. Check the node that gives it.")
    return given


def picture(node: str, image: Tensor, finite: bool = True) -> Tensor:
    """The host's IMAGE [B, H, W, C], a single [H, W, C], or grey ones as masks are, [B, H, W] or [H, W], as [B, 3, H, W]; bytes as 0 to 1, what is
    transparent over black. Raises ValueError for an empty or unusable one, also for one that is not `finite` where it should be."""
    if not dense(image):
        raise ValueError(f"{node}: the image is a {type(image).__name__}, and a picture is a dense tensor [batch, height, width, channels]. "
                         "Connect an IMAGE, such as Load Image gives.")
    if image.ndim == 3 and image.shape[-1] in (1, 3, 4):
        image = image[None]
    elif image.ndim in (2, 3) and image.numel():
        image = image.reshape(-1, *image.shape[-2:], 1)
    if 0 in image.shape:
        raise ValueError(f"{node}: the image is empty (its shape is {tuple(image.shape)}). Connect a picture of at least "
                         "one pixel.")
    if image.ndim != 4 or image.shape[-1] > 4:
        raise ValueError(f"{node}: the image's shape is {tuple(image.shape)}, and a picture's is [batch, height, width, channels] with 1 to "
                         "4 channels. Check the node that made it.")
    if len(image) > MOST_PICTURES:
        raise ValueError(f"{node}: the image is a batch of {len(image)} pictures, and the most is {MOST_PICTURES}. Take fewer of them at a time.")
    if finite and not (image.float().abs() < HUGE).all():
        raise ValueError(f"{node}: the image holds NaN, infinite or huge values. Check the node that made it.")
    if not image.is_floating_point():
        image = image / (1 if image.dtype == torch.bool else 255)
    image = image.movedim(-1, 1)
    if image.shape[1] in (2, 4):
        *image, alpha = image.split([image.shape[1] - 1, 1], 1)
        image = image[0] * alpha
    return image if image.shape[1] == 3 else image.expand(-1, 3, -1, -1)


def brightness(node: str, image: Tensor) -> None:
    """Pictures go from 0 to 1; filters overshoot a little."""
    low, high = image.min().item(), image.max().item()
    if low < -0.5 or high > 1.5:
        raise ValueError(f"{node}: the image holds values from {low:.3g} to {high:.3g}, and pictures go from 0 (black) to 1 (white). Scale it "
                         "before, for example by 1/255.")


def mask(node: str, mask: Tensor | None, name: str = "mask") -> Tensor | None:
    """The host's MASK [H, W] or [B, H, W] as [B, 1, H, W], without the traces that are left of nothing; one that was checked before may be given
    again."""
    if mask is None:
        return None
    if not dense(mask) or mask.ndim not in (2, 3) and not (mask.ndim == 4 and mask.shape[1] == 1):
        given = f"of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise ValueError(f"{node}: the mask is {given}, and a mask is a tensor [batch, height, width]. Connect a MASK.")
    if not torch.isfinite(mask).all():
        raise ValueError(f"{node}: the mask holds NaN or infinite values. Check the node that made it.")
    mask = mask * (mask > OPAQUE)
    if not (mask > 0).any():
        raise ValueError(f"{node}: the mask is empty, so the target would act nowhere. Paint the area where it should act, "
                         "or disconnect the mask. (A Load Image node gives what is transparent: nothing, of most pictures.)")
    if mask.ndim == 3:
        some_empty(node, mask, name)
    return mask.reshape(-1, 1, *mask.shape[-2:])


def some_empty(node: str, mask: Tensor, name: str) -> None:
    """Says which pictures a mask [B, H, W] leaves out."""
    empty = [str(k) for k, one in enumerate(mask, 1) if not (one > 0).any()]
    if empty:
        log.warning("%s: the %s is empty for picture %s of %d, where this target does nothing. Paint the area where it should act there, or "
                    "disconnect the mask.", node, name, ", ".join(empty), len(mask))


def same_size(node: str, mask: Tensor | None, image: Tensor) -> None:
    """`mask` [B, 1, H, W] must be as large as `image` [B, 3, H, W]."""
    if mask is not None and mask.shape[-2:] != image.shape[-2:]:
        raise ValueError(f"{node}: the mask is {mask.shape[-1]}x{mask.shape[-2]} pixels and the target is "
                         f"{image.shape[-1]}x{image.shape[-2]}. Make them the same size, or disconnect the mask. (A Load "
                         "Image node gives a mask of 64x64 for a picture without transparency.)")


def noise_levels(node: str, sigmas: Tensor) -> None:
    """Schedulers that are made for more steps, and nodes for sigmas, may give what is no noise level."""
    if not ((sigmas >= 0) & torch.isfinite(sigmas)).all():
        raise ValueError(f"{node}: the sigmas are {shown([round(s, 3) for s in sigmas.tolist()])}, and noise levels are numbers from 0 upwards. "
                         "Choose another scheduler or more steps, or check the node that made them.")


def number(node: str, name: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{node}: {name} is {shown(value)}, and should be a number from 0 upwards. Check the node that gives it.")


def check_range(node: str, weight: float, start: float, end: float) -> None:
    """A target's weight and percents, which other nodes may have made."""
    for name, value in (("weight", weight), ("start_percent", start), ("end_percent", end)):
        number(node, name, value)
    if start >= end:
        raise ValueError(f"{node}: start_percent is {start} and end_percent {end}. Let it start before it ends.")


def effective_start(node: str, head, start: float, end: float) -> float:
    """The start of a target, or of what its head can read, if that is later."""
    if head.start >= end:
        raise ValueError(f"{node}: the {head.kind} head reads nothing worth guiding by before percent {head.start:g}, and end_percent is {end:g}. "
                         "Raise end_percent, or fit a better head.")
    return max(start, head.start)


def head_kind(node: str, head, kind: str) -> None:
    if head.kind != kind:
        own = "" if head.kind in KINDS.values() else f" {'Attribute' if head.pooled else 'Map'} Target takes heads of your own kinds."
        raise ValueError(f"{node}: the head reads {head.kind}, and this node needs one that reads {kind}. Choose such a head in Load Readout "
                         f"Head.{own}")


def targets(node: str, guidance: Iterable) -> None:
    if not isinstance(guidance, (tuple, list)) or not all(isinstance(target, Target) for target in guidance):
        raise ValueError(f"{node}: guidance is {shown(guidance)}. Connect a target, such as Pose Target.")
