"""What can be wrong with inputs, said so that the user knows which node, what it got and what to do."""
from collections.abc import Iterable

import torch
from torch import Tensor

from ..heads import base_models
from ..rg_core import taps


def picture(node: str, image: Tensor) -> Tensor:
    """The host's IMAGE [B, H, W, C] as [B, 3, H, W]. Raises ValueError for an empty or unusable one."""
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"{node}: the image is empty (its shape is {tuple(image.shape)}). Connect a picture of at least "
                         "one pixel.")
    if not torch.isfinite(image).all():
        raise ValueError(f"{node}: the image holds NaN or infinite values. Check the node that made it.")
    image = image.movedim(-1, 1)
    return image[:, :3] if image.shape[1] >= 3 else image[:, :1].expand(-1, 3, -1, -1)


def mask(node: str, mask: Tensor | None) -> Tensor | None:
    """The host's MASK [H, W] or [B, H, W] as [B, 1, H, W]."""
    if mask is None:
        return None
    if not torch.isfinite(mask).all():
        raise ValueError(f"{node}: the mask holds NaN or infinite values. Check the node that made it.")
    if not (mask > 0).any():
        raise ValueError(f"{node}: the mask is empty, so the target would act nowhere. Paint the area where it should act, "
                         "or disconnect the mask.")
    return mask.reshape(-1, 1, *mask.shape[-2:])


def same_size(node: str, mask: Tensor | None, image: Tensor) -> None:
    """`mask` [B, 1, H, W] must be as large as `image` [B, 3, H, W]."""
    if mask is not None and mask.shape[-2:] != image.shape[-2:]:
        raise ValueError(f"{node}: the mask is {mask.shape[-1]}x{mask.shape[-2]} pixels and the target is "
                         f"{image.shape[-1]}x{image.shape[-2]}. Make them the same size, or disconnect the mask. (A Load "
                         "Image node gives a mask of 64x64 for a picture without transparency.)")


def latent(node: str, samples: Tensor) -> None:
    if samples.ndim != 4 or 0 in samples.shape:
        raise ValueError(f"{node}: the latent's shape is {tuple(samples.shape)}, and a picture's is [batch, channels, height, "
                         "width]. Connect the latent of a picture.")
    if not torch.isfinite(samples).all():
        raise ValueError(f"{node}: the latent holds NaN or infinite values. Check the node that made it.")


def pixels(reference) -> tuple[int, int]:
    """(H, W) of the reference's picture."""
    height, width = reference.trajectory.size
    return height * reference.downscale, width * reference.downscale


def percents(node: str, start: float, end: float) -> None:
    if start >= end:
        raise ValueError(f"{node}: start_percent is {start} and end_percent {end}. Let it start before it ends.")


def head_kind(node: str, head, kind: str) -> None:
    if head.kind != kind:
        raise ValueError(f"{node}: the head reads {head.kind}, and this node needs one that reads {kind}. Choose a {kind} "
                         "head in Load Readout Head.")


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


def heads_fit(node: str, model, heads: Iterable) -> None:
    """`model` must have features to read, and each head must have been trained on ones like them."""
    name = type(model.model.model_config).__name__
    try:
        channels = taps.channels(model.model.diffusion_model)
    except taps.NoTaps as error:
        raise ValueError(f"{node}: this model ({name}) cannot be guided by readout heads: {error}. Use a model with a UNet, "
                         "such as Stable Diffusion 1.5 or SDXL.") from error
    for head in heads:
        if head.channels != channels:
            raise ValueError(f"{node}: the {head.kind} head was trained on {head.base_model or 'another model'} "
                             f"with features of {head.channels} channels, and this model ({name}) has {channels}. "
                             "Load a head that was trained on the model you sample with.")
        base = base_models.named(head.base_model)  # some have taps of the same channels
        if base is not None and model.model.model_config.unet_config.get("context_dim") != base.text_width:
            raise ValueError(f"{node}: the {head.kind} head was trained on {head.base_model}, and this model is of another family ({name}). "
                             "Load a head that was trained on the model you sample with.")
