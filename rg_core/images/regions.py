"""Regions of images: masks, boxes, and batches of them."""
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from . import control_images

Box = tuple[float, float, float, float]  # left, top, width, height, in shares of the image
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def mask_at(mask: Tensor, size: tuple[int, int], device: torch.device) -> Tensor:
    """`mask` [M, 1, h, w] as large as `size` (H, W)."""
    return control_images.fit(mask.float(), size).clamp(0, 1).to(device)


def boxed(mask: Tensor | None, box: Box, like: Tensor) -> Tensor | None:
    """`mask` [B, 1, H, W] within `box` only, a pixel counting by the share of it that is inside; as large as `like`."""
    if box == WHOLE:
        return mask
    height, width = like.shape[-2:]
    covers = []
    for length, low, extent in ((height, box[1], box[3]), (width, box[0], box[2])):
        edge = (torch.arange(length + 1, device=like.device) / length).clamp(low, low + extent)
        covers.append(edge.diff() * length)
    inside = (covers[0][:, None] * covers[1])[None, None]
    return inside if mask is None else mask * inside


def moved(x: Tensor, source: Box, to: Box) -> Tensor:
    """`x` [B, C, H, W] with what is in the box `source` in the box `to`, and the rest along with it."""
    theta = torch.zeros(2, 3, device=x.device)
    for axis in (0, 1):
        scale = source[axis + 2] / to[axis + 2]
        theta[axis, axis] = scale
        theta[axis, 2] = 2 * (source[axis] - to[axis] * scale) + scale - 1
    grid = F.affine_grid(theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    # Beyond the outermost pixels' centres as there: padding with the border, which not every device has.
    edge = 1 - 1 / torch.tensor([x.shape[-1], x.shape[-2]], dtype=grid.dtype, device=grid.device)
    return F.grid_sample(x, torch.minimum(torch.maximum(grid, -edge), edge), align_corners=False)


@overload
def repeat(x: Tensor, batch: int) -> Tensor: ...
@overload
def repeat(x: None, batch: int) -> None: ...
def repeat(x: Tensor | None, batch: int) -> Tensor | None:
    """`x` [N, ...] repeated from its start, or cut, to [batch, ...]."""
    return None if x is None else of_images(x, torch.arange(batch, device=x.device))


def of_images(x: Tensor, places: Tensor) -> Tensor:
    """`x` [N, ...], repeated over a batch, at these `places` [P] of it: [P, ...]."""
    return x[places.to(x.device) % len(x)]
