"""What can be wrong with inputs, said so that the user knows which node, what it got and what to do."""
import math
import reprlib
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..heads import KINDS, base_models
from ..rg_core import taps
from ..rg_core.architectures import NoTaps
from ..rg_core.regions import repeat
from ..rg_core.targets import Target, heads
from .log import log

HUGE = 1e30  # values with which nothing can be computed
OPAQUE = 2 / 255  # values of a mask up to this are none: Load Image gives opaque pictures of some formats up to 1/256
RIM, GROWN = 2, 4  # latents at the rim of a mask that what is around it shows in, and pixels that the host adds to a mask
FLAT = 0.1  # of the deviation of what is around them: latents that vary less show nothing
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


def mask_of(node: str, given: Tensor | None, reference, name: str = "mask") -> Tensor | None:
    """`mask`, which must have the shape of the reference's picture."""
    checked, (height, width) = mask(node, given, name), pixels(reference)
    if checked is not None and another_shape(checked.shape[-2:], reference):
        raise ValueError(f"{node}: the {name} is {checked.shape[-1]}x{checked.shape[-2]} pixels and the reference's picture {width}x{height}, "
                         "which is of another shape. Make the mask as large as the picture, or disconnect it. (A Load Image node gives a mask "
                         "of 64x64 for a picture without transparency.)")
    return checked


def drawn_on(node: str, size: tuple[int, int], reference) -> None:
    """The picture of `size` (H, W) that drags are meant for must have the shape of the reference's."""
    if another_shape(size, reference):
        height, width = pixels(reference)
        raise ValueError(f"{node}: the image is {size[1]}x{size[0]} pixels and the reference's picture {width}x{height}, which is of another shape, "
                         "so drags would be misplaced. Connect the picture that went into VAE Encode (behind any resizing and cropping) or came out "
                         "of VAE Decode, and look whether the arrows are still where they should be.")


def another_shape(size: tuple[int, int], reference) -> bool:
    """Whether `size` (H, W) has other proportions than the reference's picture; encoding cuts off a few pixels."""
    height, width = pixels(reference)
    return abs(math.log(size[1] * height / (size[0] * width))) > 0.03


def latent(node: str, given: dict, model=None) -> Tensor:
    """The samples of the host's LATENT, [B, C, H, W], or [B, C, 1, H, W] as models take them that make videos too; `model` is the MODEL that they
    are for, if there is one."""
    samples = given.get("samples") if isinstance(given, dict) else None
    if not dense(samples) or samples.ndim not in (4, 5) or 0 in samples.shape:
        shape = tuple(samples.shape) if isinstance(samples, Tensor) else shown(given)
        raise ValueError(f"{node}: the latent's shape is {shape}, and a picture's is [batch, channels, height, "
                         "width]. Connect the latent of a picture.")
    no_video(node, samples, model)
    if not torch.isfinite(samples).all():
        raise ValueError(f"{node}: the latent holds NaN or infinite values. Check the node that made it.")
    return samples


def noise_levels(node: str, sigmas: Tensor) -> None:
    """Schedulers that are made for more steps, and nodes for sigmas, may give what is no noise level."""
    if not ((sigmas >= 0) & torch.isfinite(sigmas)).all():
        raise ValueError(f"{node}: the sigmas are {shown([round(s, 3) for s in sigmas.tolist()])}, and noise levels are numbers from 0 upwards. "
                         "Choose another scheduler or more steps, or check the node that made them.")


def pixels(reference) -> tuple[int, int]:
    """(H, W) of the reference's picture."""
    height, width = reference.trajectory.size
    return height * reference.downscale, width * reference.downscale


def number(node: str, name: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{node}: {name} is {shown(value)}, and should be a number from 0 upwards. Check the node that gives it.")


def when(node: str, weight: float, start: float, end: float) -> None:
    """A target's weight and percents, which other nodes may have made."""
    for name, value in (("weight", weight), ("start_percent", start), ("end_percent", end)):
        number(node, name, value)
    if start >= end:
        raise ValueError(f"{node}: start_percent is {start} and end_percent {end}. Let it start before it ends.")


def later_start(node: str, head, start: float, end: float) -> float:
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


def references_fit(node: str, model, targets: Iterable) -> None:
    """The references of `targets` must have been made with a model of this family."""
    name = type(model.model.model_config).__name__
    for target in targets:
        if target.reference is not None and target.reference.family != name:
            raise ValueError(f"{node}: the reference of the {target.name} target was made with another model ({target.reference.family}) "
                             f"than this one ({name}). Make the reference with the model that you sample with.")


def one_background(node: str, targets: Iterable) -> None:
    """Where targets keep the rest of the picture as a reference is, it must be the same one."""
    kept = [t for t in targets if t.free is not None]
    if len({id(t.reference) for t in kept}) > 1:
        raise ValueError(f"{node}: {' and '.join(t.name for t in kept)} targets with masks keep the rest of the picture as two different "
                         "references are, and it cannot be both. Use one reference, or disconnect one of the masks.")


def can_shift(node: str, per_step: bool, targets: Iterable) -> None:
    """The published procedure moves latents by what heads read, and nothing else."""
    without = [t.name for t in targets if t.head is None]
    if per_step and without:
        raise ValueError(f"{node}: the published procedure goes by heads alone, and the {without[0]} target has none. Use KSampler (Readout "
                         "Guidance), or take that target out.")


def targets_fit(node: str, model, targets: tuple) -> None:
    """`model` must have what `targets` are compared with."""
    if heads(targets):
        heads_fit(node, model, heads(targets))
    made = model.get_model_object("latent_format")
    for target in targets:
        if target.channels not in (None, made.latent_channels) or target.channels and made.latent_dimensions == 1:
            raise ValueError(f"{node}: what the {target.name} target was given was encoded to {target.channels} channels in 2 dimensions, and this "
                             f"model ({type(model.model.model_config).__name__}) works with {made.latent_channels} in {made.latent_dimensions}. "
                             "Connect the VAE that belongs to the model.")


def no_hole(node: str, latent: dict, samples: Tensor, downscale: int) -> None:
    """Warns where `samples` [B, C, H, W] are flat inside of the LATENT's mask: some nodes encode grey there, to be painted over. `downscale` is how
    many pixels there are for each latent."""
    if latent.get("noise_mask") is None:
        return
    mask, rim = latent["noise_mask"], max(RIM, GROWN // downscale)
    mask = F.interpolate(mask.reshape(-1, 1, *mask.shape[-2:]).float(), samples.shape[-2:], mode="bilinear")
    inside = 1 - F.max_pool2d(1 - mask, 2 * rim + 1, 1, rim) > 0.5
    for x, hole, masked in zip(samples.float(), repeat(inside, len(samples)), repeat(mask, len(samples)), strict=True):
        known, rest = x[:, hole[0]], x[:, masked[0] < 0.5]
        if min(known.shape[1], rest.shape[1]) > 1 and known.std(1).norm() < FLAT * rest.std(1).norm():
            log.warning("%s: the latent is flat inside of its mask. VAE Encode (for Inpainting) encodes grey there, and this node takes that "
                        "for a part of the picture. Encode the picture with VAE Encode.", node)
            return


def no_video(node: str, samples: Tensor, model=None) -> None:
    """Latents must be of pictures, [B, C, T, H, W] of models that make videos too; `model` is the MODEL that they are for, if there is one."""
    if samples.ndim not in (4, 5):
        raise ValueError(f"{node}: the latent's shape is {tuple(samples.shape)}, as of a sound or of a video with its sound, which cannot be guided. "
                         "Sample pictures, or take the MODEL from before guidance.")
    if samples.ndim == 5 and samples.shape[2] > 1:
        frames, batches = samples.shape[2], "put Rebatch Images (batch_size 1) before VAE Encode and Rebatch Latents behind it."
        if model is not None and type(model.model.model_config).__name__ == "QwenImage":
            raise ValueError(f"{node}: the latent has {frames} frames, as Qwen-Image Layered has for a picture and its {frames - 1} layers, and "
                             "layers cannot be guided yet. Sample single pictures (a latent of one frame), or take the MODEL from before guidance. "
                             f"If these are pictures: this VAE takes batches for frames; {batches}")
        raise ValueError(f"{node}: the latent has {frames} frames, and videos cannot be guided yet. Sample single pictures with this model "
                         "(a latent of one frame), or take the MODEL from before guidance. If these are pictures: this VAE takes batches for videos; "
                         f"{batches}")


def heads_fit(node: str, model, heads: Iterable) -> None:
    """`model` must have features to read, and each head must have been trained on ones like them."""
    name, network = type(model.model.model_config).__name__, model.model.diffusion_model
    try:
        taps.channels(network)
    except NoTaps as error:
        raise ValueError(f"{node}: this model ({name}) cannot be guided by its features: {error}. Use one of the models in the README's table, "
                         "such as Stable Diffusion 1.5, SDXL or Flux.") from error
    for head in heads:
        about = getattr(head, "config", {})  # modules of other packs say nothing of themselves
        made_on = about.get("model")
        if made_on and made_on != taps.fingerprint(network):
            raise ValueError(f"{node}: the {head.kind} head was made on {head.base_model} with the features of a {made_on}, and this model "
                             f"({name}) is a {taps.fingerprint(network)}. Load a head that was made on the model you sample with, or make one "
                             "with Fit Readout Head.")
        try:
            channels = taps.channels(network, head.taps)
        except NoTaps as error:
            raise ValueError(f"{node}: the {head.kind} head does not fit this model ({name}): {error}. Load a head that was made on the model you "
                             "sample with, or make one with Fit Readout Head.") from error
        if head.channels is not None and head.channels != channels:
            raise ValueError(f"{node}: the {head.kind} head was trained on {head.base_model or 'another model'} "
                             f"with features of {head.channels} channels, and this model ({name}) has {channels}. "
                             "Load a head that was trained on the model you sample with.")
        base = base_models.named(head.base_model)  # some have taps of the same channels
        width = base.text_width if base else about.get("text_width")
        if width is not None and model.model.model_config.unet_config.get("context_dim") != width:
            raise ValueError(f"{node}: the {head.kind} head was trained on {head.base_model}, and this model is of another family ({name}). "
                             "Load a head that was trained on the model you sample with.")
