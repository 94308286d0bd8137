"""Taps: the decoder features that readout heads read.

A tap is the output of the second convolution stack of a decoder residual block, before the residual sum
(Luo et al., "Readout Guidance", CVPR 2024, section 3.1). In a UNet laid out like Stable Diffusion's, that is
`output_blocks[i][0].out_layers`.
"""
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NoTaps(ValueError):
    """The diffusion model has no decoder blocks that a head could read."""


def modules(unet: nn.Module) -> list[nn.Module]:
    """The tapped modules of `unet`, in decoding order. Raises NoTaps for any other architecture."""
    blocks = getattr(unet, "output_blocks", ())
    found = [block[0].out_layers for block in blocks if hasattr(block[0], "out_layers")]
    if not found or len(found) != len(blocks) or not hasattr(unet, "time_embed"):
        raise NoTaps(f"a {type(unet).__name__} has no decoder residual blocks to read features from")
    return found


def channels(unet: nn.Module) -> list[int]:
    """Channels of each tap, for example [1280] * 6 + [640] * 3 + [320] * 3 for Stable Diffusion 1.5."""
    return [module[-1].out_channels for module in modules(unet)]


@dataclass
class Reading:
    """What one call of the UNet left at the taps."""
    emb: Tensor                                           # [B, E], the timestep's embedding without any label
    features: list[Tensor] = field(default_factory=list)  # each [B, C_l, H_l, W_l]
    options: dict = field(default_factory=dict)           # the call's transformer_options
    x: Tensor | None = None                               # its input [B, C, H, W]


def blocks(unet: nn.Module) -> list[nn.Module]:
    """The parts of `unet` to compute again in a backward pass where memory is short (see recompute.computed_again): none is
    inside another, and taps are outputs of theirs."""
    found = []
    for module in unet.modules():
        if hasattr(module, "out_layers"):
            found += [module.in_layers, module.out_layers]
        found += getattr(module, "transformer_blocks", ())
    return found


@contextmanager
def record(unet: nn.Module) -> Iterator[list[Reading]]:
    """Collects one Reading for each call of `unet` made inside the context. Nothing after the last tap gets a graph."""
    readings: list[Reading] = []
    tapped, state = modules(unet), {}

    def begin(_module, args, kwargs) -> None:
        state.update(options=kwargs.get("transformer_options", {}), gradients=torch.is_grad_enabled(), x=args[0] if args else kwargs.get("x"))

    def embedded(_module, _args, out: Tensor) -> None:
        readings.append(Reading(out, [], state["options"], state["x"]))

    def tap(module, _args, out: Tensor) -> None:
        readings[-1].features.append(out)
        if module is tapped[-1]:
            torch.set_grad_enabled(False)

    def end(_module, _args, _out) -> None:
        torch.set_grad_enabled(state["gradients"])

    hooks = [unet.register_forward_pre_hook(begin, with_kwargs=True), unet.register_forward_hook(end),
             unet.time_embed.register_forward_hook(embedded), *(module.register_forward_hook(tap) for module in tapped)]
    try:
        yield readings
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def calls(unet: nn.Module) -> Iterator[list[dict]]:
    """Collects the transformer_options of each call of `unet` made inside the context."""
    found: list[dict] = []
    hook = unet.register_forward_pre_hook(lambda _module, _args, kwargs: found.append(kwargs.get("transformer_options", {})), with_kwargs=True)
    try:
        yield found
    finally:
        hook.remove()


@dataclass(frozen=True, eq=False)
class Part:
    """The part of a picture that one conditioning paints."""
    weight: Tensor                               # [B, 1, h, w], its share of the prediction at each place of its area
    area: tuple[int, int, int, int] | None = None  # height, width, top, left in the latent, which the UNet saw; all if None


def blended(pieces: Sequence[tuple[Sequence[Tensor], Part]], size: tuple[int, int]) -> list[Tensor]:
    """The features of a whole picture with a latent of `size` (H, W), from those of the parts that conditionings paint.

    They are weighted as the predictions are. A tap's map covers an area at a power of two of the latent's pixels.
    """
    if len(pieces) == 1 and pieces[0][1].area is None:
        return list(pieces[0][0])
    maps = []
    for layer in range(len(pieces[0][0])):
        whole = 0
        for features, part in pieces:
            tap = features[layer]
            height, width, top, left = part.area or (*size, 0, 0)
            step = 2 ** math.ceil(math.log2(height / tap.shape[-2]))  # odd lengths are halved upwards
            top, left = top // step, left // step
            bottom, right = (math.ceil(length / step) - low - extent
                             for length, low, extent in zip(size, (top, left), tap.shape[-2:]))
            piece = tap * F.adaptive_avg_pool2d(part.weight, tap.shape[-2:]).to(tap.dtype)
            whole = whole + F.pad(piece, (left, right, top, bottom))
        maps.append(whole)
    return maps
