"""How thick the lines of a drawing are, and drawings with thicker or thinner ones."""
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 8     # of thinning, before a drawing is looked at in half its size
LEFT = 0.1    # of what is drawn: when no more is left, the lines are as good as gone
LIT = 0.3     # brightness of what is drawn


def half_width(lit: Tensor) -> float:
    """That of most lines in `lit` [H, W], boolean, in pixels; 0 where nothing is drawn, infinite where everything is. Lines are thinned from both
    sides until they are gone."""
    x, scale = lit[None, None].float(), 1
    while x.any():
        if x.all():
            return math.inf
        shares = [1.0]
        for step in range(STEPS):
            edge = F.max_pool2d(1 - x, 3, 1, 1) if step % 2 else cross(1 - x)  # by turns, so that slanting lines are thinned alike
            x = 1 - edge
            shares.append(float(x.sum() / lit.sum()) * scale**2)
            if shares[-1] <= LEFT:
                return scale * (step + (shares[-2] - LEFT) / (shares[-2] - shares[-1])) / (1 - LEFT)
        scale *= 2
        x = (F.avg_pool2d(lit[None, None].float(), scale, ceil_mode=True) > 0.5).float()
    return 0.0


def cross(x: Tensor) -> Tensor:
    """The largest of each pixel of [B, C, H, W] and its four neighbours."""
    return torch.maximum(F.max_pool2d(x, (3, 1), 1, (1, 0)), F.max_pool2d(x, (1, 3), 1, (0, 1)))


def around(x: Tensor, radius: float) -> Iterator[Tensor]:
    """`x` [B, C, H, W] shifted by each whole number of pixels within `radius`, the nearest first; beyond its edges are zeros."""
    reach = int(radius)
    places = [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1) if dy * dy + dx * dx <= radius * radius]
    padded, (height, width) = F.pad(x, [reach] * 4), x.shape[-2:]
    for dy, dx in sorted(places, key=lambda place: place[0]**2 + place[1]**2):
        yield padded[..., reach + dy:reach + dy + height, reach + dx:reach + dx + width]


def thicker(drawing: Tensor, by: float) -> Tensor:
    """`drawing` [B, 3, H, W], bright lines on black, with lines thicker by so many pixels on each side, in the colors of their nearest pixels; what
    is brighter is before what is not."""
    best, brightest = drawing, drawing.amax(1, keepdim=True)
    for near in around(drawing, by):
        bright = near.amax(1, keepdim=True)
        closer = bright > brightest + 0.05
        best, brightest = torch.where(closer, near, best), torch.where(closer, bright, brightest)
    return best


def thinner(drawing: Tensor, to: float) -> Tensor:
    """`drawing` [B, 3, H, W] with lines of at least twice this half-width, in pixels, made so thin, and no shorter: what is as near to their
    middle is left. That is their morphological skeleton (Lantuejoul 1978), without what it has along edges, of what is thin already."""
    lit = (drawing.amax(1, keepdim=True) > LIT).float()
    rest, middle, kept = lit, torch.zeros_like(lit), torch.zeros_like(lit, dtype=torch.bool)
    for step in range(min(lit.shape[-2:]) // 2):
        if step > 0.75 * to:
            middle = middle.maximum(rest - F.max_pool2d(1 - F.max_pool2d(1 - rest, 3, 1, 1), 3, 1, 1))
        rest = 1 - (F.max_pool2d(1 - rest, 3, 1, 1) if step % 2 else cross(1 - rest))
        if not rest.any():
            break
    for near in around(middle, to):
        kept |= near > 0
    return drawing * kept
