"""Calls of the diffusion model for tiles of the image, as packs make them that wrap the model's function: put together by what
is in them, for nobody says where they lie."""
import torch
from torch import Tensor

from ....rg_core.features import taps


def match_tiles(readings: list[taps.Reading], whole: Tensor) -> list[tuple[list[Tensor], taps.Part]] | None:
    """What `taps.blended` takes, of `readings` that tile the diffusion model's input `whole` [B, C, H, W]; None if they do not."""
    found: dict[tuple, dict[int, list[Tensor]]] = {}  # features by area and image
    for reading in readings:
        for row, tile in enumerate(reading.x.detach()[:, :whole.shape[1]]):
            spots = places(tile, whole)
            if len({spot[1:] for spot in spots}) != 1:
                return None
            (image, top, left), area = spots[row % len(spots)], tile.shape[-2:]  # images that are alike come in turn
            there = found.setdefault((*area, top, left), {})
            if image in there:
                return None
            there[image] = [f[row:row + 1] for f in reading.features]
    times = torch.zeros_like(whole[:, :1], dtype=torch.float32)
    for area in found:
        inside(times, area).add_(1)
    if not times.all() or any(len(there) != len(whole) for there in found.values()):
        return None
    return [([torch.cat(layer) for layer in zip(*(there[j] for j in range(len(whole))))], taps.Part(1 / inside(times, area), area))
            for area, there in found.items()]


def places(tile: Tensor, whole: Tensor) -> list[tuple[int, int, int]]:
    """Where `tile` [C, h, w] is in `whole` [B, C, H, W], to the bit: image, top and left."""
    height, width = tile.shape[-2:]
    corners = whole[:, 0, :max(0, whole.shape[-2] - height + 1), :max(0, whole.shape[-1] - width + 1)]
    spots = (corners == tile[0, 0, 0]).nonzero().tolist()
    return [(j, top, left) for j, top, left in spots if torch.equal(whole[j, :, top:top + height, left:left + width], tile)]


def inside(x: Tensor, area: tuple[int, int, int, int]) -> Tensor:
    height, width, top, left = area
    return x[..., top:top + height, left:left + width]
