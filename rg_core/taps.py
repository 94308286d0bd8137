"""Taps: the decoder features that readout heads read.

A tap is the output of the second convolution stack of a decoder residual block, before the residual sum
(Luo et al., "Readout Guidance", CVPR 2024, section 3.1). In a UNet laid out like Stable Diffusion's, that is
`output_blocks[i][0].out_layers`.
"""
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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


@contextmanager
def record(unet: nn.Module) -> Iterator[list[Reading]]:
    """Collects one Reading for each call of `unet` made inside the context."""
    readings: list[Reading] = []
    hooks = [unet.time_embed.register_forward_hook(lambda _module, _args, out: readings.append(Reading(out)))]
    hooks += [module.register_forward_hook(lambda _module, _args, out: readings[-1].features.append(out))
              for module in modules(unet)]
    try:
        yield readings
    finally:
        for hook in hooks:
            hook.remove()
