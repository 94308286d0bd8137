"""Images that were padded: their bars are no image."""
import math

import torch
from torch import Tensor

from ...rg_core.images.bars import bars
from ...rg_core.images.regions import repeat
from ..common import checks
from ..common.log import log

PAIRED = ("depth",)  # kinds of which an image may itself end in one color


def left_out(node: str, kind: str, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """`image` [B, 3, H, W], of what heads of this kind read, with its outermost lines in the place of bars, and the mask [M, 1, H, W] without
    them; warns once."""
    height, width = image.shape[-2:]
    found = [bars(x.float(), kind in PAIRED) for x in image]
    if not any(map(any, found)):
        return image, mask
    log.warning("%s: the image has bars of one color at its edges, as from Resize And Pad Image. They are ignored: the target acts between them.",
                node)
    inside, filled = torch.zeros(len(image), 1, height, width), image.clone()
    for k, (top, bottom, left, right) in enumerate(found):
        inside[k, :, top:height - bottom, left:width - right] = 1
        rows = torch.arange(height).clamp(top, height - bottom - 1)
        columns = torch.arange(width).clamp(left, width - right - 1)
        filled[k] = image[k][:, rows][:, :, columns]
    mask = checks.mask(node, mask)
    checks.same_size(node, mask, image)
    if mask is None:
        return filled, inside
    both = math.lcm(len(mask), len(inside))
    return filled, repeat(mask, both) * repeat(inside.to(mask.device), both)
