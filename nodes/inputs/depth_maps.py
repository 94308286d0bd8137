"""Depth maps and geometry as people have them, as what depth heads read: inverse distance, near white. And where they hold a measurement."""
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import HUGE, MOST_IMAGES, shown
from ..common.log import log

INVERSE, DISTANCE, NEAR_BLACK = GREYS = ("inverse distance", "distance", "distance, near black")  # what a grey stands for
FAR = 5.0  # times as far as the nearest the farthest is taken to be, in drawings of distances that do not say it; docs/measurements/inputs.md
# What makes a depth map look odd: channels that differ, values outside of 0 to 1, a top that is nearer than the bottom.
COLORED, OVERSHOOT, UPSIDE_DOWN = 0.1, 0.1, 0.2
FEW, FURTHER = 0.05, 0.5   # of a map may be that much outside: filters that enlarge images overshoot
NO_DEPTH, BYTES = 30, 255  # times as far as half of a map, and beyond what bytes hold, a value is no distance
SOME, GAP = 0.01, 0.1      # of a map, and of half of its distances: more zeros than this with nothing below that beside them are none
FLAT = 3 / 255      # what is left of one value in frames of a saved video
NARROW = 0.15       # of the range from black to white: maps that use less of it are of another scale
CELLS = 32          # along each side, in which grounds and holes are told apart
TWO_VALUES = 0.98   # of a map that is wholly black or white: it was cut off there
TAIL = 0.001        # of distances at each end, in which specks are
NEAREST = 0.02      # of the farthest: greys that begin above this hold distances, and those that begin below were stretched
SKY = 0.3           # from this probability on, as for the host's own drawing
LINE = 10 / 255     # a ground that is brighter by this than what stands before it is the wrong way round


class Advice(NamedTuple):
    """How to say at a node what to do about a map, and what becomes of its holes there."""
    turn: str    # to swap near and far
    metres: str  # where the values are distances
    holes: str


class Read(NamedTuple):
    image: Tensor   # [h, w], 0 (far) to 1 (near)
    measured: Tensor  # [h, w], boolean
    none: str | None = None       # what of it stands for no depth
    stretched: str | None = None


Maps = tuple[Tensor, Tensor | None]  # images [B, 3, h, w] in 0 to 1, and where they hold a measurement [B, 1, h, w]; None: everywhere


def depth_maps(node: str, images: list[Tensor], greys: str, invert: bool, advice: Advice) -> list[Maps]:
    """Depth maps [B, 3, h, w] as people have them, which may hold NaN and infinite values, each by itself. Warns once of what does not look
    like one."""
    seen = []
    if any((image.amax(1) - image.amin(1)).nan_to_num(0, 0, 0).max() > COLORED for image in images):
        seen.append("it is colored, and its colors are averaged to gray; only gray maps show depth by brightness")
    parts = [[read(x, greys, invert, advice) for x in image.float().mean(1)] for image in images]
    found = [one for part in parts for one in part]
    for about in ("none", "stretched"):  # said of the first image of which it is true
        k = next((k for k, one in enumerate(found) if getattr(one, about)), None)
        if k is not None:
            seen.append(f"in image {k + 1} {getattr(found[k], about)}" if len(found) > 1 else getattr(found[k], about))
    seen += odd([one.image for one in found], advice)
    if seen:
        log.warning("%s: check the depth map: %s.", node, "; ".join(seen))
    return [maps(part) for part in parts]


def maps(part: list[Read]) -> Maps:
    image, measured = (torch.stack(x)[:, None] for x in ([one.image for one in part], [one.measured for one in part]))
    return image.expand(-1, 3, -1, -1), None if measured.all() else measured.float()


def odd(images: list[Tensor], advice: Advice) -> list[str]:
    """What is said of images [h, w], near white, that are hardly what they should be."""
    seen = []
    flat = [str(i) for i, x in enumerate(images, 1) if x.max() - x.min() < FLAT]
    if flat:
        seen.append(f"image {', '.join(flat)} has one value everywhere, which means a flat wall")
    cut = [str(i) for i, x in enumerate(images, 1) if two_values(x)]
    if cut:
        seen.append(f"image {', '.join(cut)} is almost entirely black and white, as when 16-bit files go through loaders that cut them to 8 bits, "
                    "such as Load Image (from Folder); Load Image keeps all 16 bits")
    elif sum(top_over_bottom(x) for x in images) / len(images) > UPSIDE_DOWN:
        seen.append(f"it is brighter, and so nearer, at the top than at the bottom, which is rare; if white means far, {advice.turn}")
    elif any(nearest_ground(x) for x in images):
        seen.append("its background is one gray that is nearer than everything in front of it, as in Load 3D's Depth view, where the background "
                    f"should be black; if white means far, {advice.turn}")
    return seen


def read(x: Tensor, greys: str, invert: bool, advice: Advice) -> Read:
    """A depth map [h, w]."""
    near_black, finite = invert or greys == NEAR_BLACK, x.abs() < HUGE
    if not finite.any():
        return Read(torch.zeros_like(x), finite)
    given, x = x, torch.where(finite, x, x[finite].median())
    plain = usual(x)
    if plain:
        there = ~holes(x) if greys == NEAR_BLACK or not large(holes(x)) else torch.ones_like(finite)  # large and black: a ground, far or near
    else:
        there = has_depth(x, near_black)
    there = there & finite if (there & finite).any() else finite
    none, measured = None, torch.ones_like(finite)
    if not there.all():
        low, high = x[there].min(), x[there].max()
        beyond = finite & (x > high)  # which renderers write where nothing is
        if not large(~there & ~beyond):
            measured = there | beyond
        values = ", ".join(dict.fromkeys(f"{value:.3g}" for value in given[~there].unique()[-3:].tolist()))
        none = (f"areas of {values} are treated as having no depth, and "
                + ("are set to the farthest distance" if measured.all() else advice.holes))
        x = torch.where(there, x, low if greys == INVERSE and not invert else high)
    if greys != INVERSE:
        return Read(nearness(x, near_black, greys, measured & there), measured, none)
    stretched = None if plain else said_of(x, advice)
    if stretched is not None:
        x = between(x, x.min(), x.max())
    return Read(1 - x if invert else x, measured, none, stretched)


def said_of(x: Tensor, advice: Advice) -> str | None:
    """Why a map [h, w] without holes is to be stretched to 0 to 1; None: it is not."""
    low, high = x.min(), x.max()
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        return f"its values from {low:.3g} to {high:.3g} are stretched to 0 to 1; if they are distances, {advice.metres}"
    if FLAT <= high - low < NARROW:  # as of 16 bits that count millimetres
        return (f"it uses {high - low:.0%} of the range from black to white, which is stretched to the full range; if it holds distances, "
                f"{advice.metres}")
    return None


def nearness(x: Tensor, near_black: bool, greys: str, there: Tensor) -> Tensor:
    """Maps of distances [h, w], as inverse distance from 0 to 1. Those of a unit, or with a gap between 0 and the nearest, say how much farther
    the farthest is; others, which were stretched to black and white, do not."""
    unit = x[there].max() > 1 + OVERSHOOT and not usual(x)
    if near_black or greys == DISTANCE and unit:
        near, far = tails(x[there])
        if near > (0 if unit else NEAREST * far):
            return inverse(x, there)
    x = x.clamp(0, 1) if usual(x) else between(x, x.min(), x.max())
    if near_black:
        x = 1 - x
    return x / (1 + (1 - x) * (FAR - 1))


def inverse(distance: Tensor, there: Tensor) -> Tensor:
    """1 / `distance` [h, w], stretched to 0 to 1 as it is `there`, specks aside."""
    near = 1 / distance.clamp(min=1e-30)
    return between(near, *tails(near[there])).clamp(0, 1)


def tails(values: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest of them, specks aside."""
    order, last = values.sort().values, values.numel() - 1
    return order[round(TAIL * last)], order[round((1 - TAIL) * last)]


def between(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return (x - low) / (high - low).clamp(min=1e-30)


def from_geometry(node: str, geometry: dict) -> Maps:
    """The host's MOGE_GEOMETRY or DA3_GEOMETRY. Places without a distance, which are not finite, 0, or left out by the model's mask, hold no
    measurement; where they are large they are the ground or the sky, as far as the farthest, like the sky that DA3 names."""
    given = geometry if isinstance(geometry, dict) else {}
    depth, mask, sky = (given.get(key) for key in ("depth", "mask", "sky"))
    if not isinstance(depth, Tensor) or depth.ndim != 3 or not 0 < len(depth) <= MOST_IMAGES or not depth.numel():
        raise ValueError(f"{node}: the geometry is {shown(geometry)}, but must contain a depth [batch, height, width]. Connect Run MoGe Inference or "
                         "Run Depth Anything 3.")
    if any(x is not None and (not isinstance(x, Tensor) or x.shape != depth.shape) for x in (mask, sky)):
        raise ValueError(f"{node}: the geometry's mask or sky is not the same size as its depth ({shown(depth)}). Check the node it comes from.")
    depth = depth.float().cpu()
    mask, sky = (torch.full_like(depth, value) if x is None else x.float().cpu() for x, value in ((mask, 1), (sky, 0)))
    return maps([distances(*parts) for parts in zip(depth, mask > 0.5, sky >= SKY)])


def distances(depth: Tensor, mask: Tensor, sky: Tensor) -> Read:
    """Of one image, [h, w] each; `mask` and `sky` are boolean."""
    there = (depth > 0) & (depth < HUGE) & mask & ~sky
    if not there.any():
        return Read(torch.zeros_like(depth), there)
    ground = ~there if large(~there & ~sky) else sky
    return Read(torch.where(there, inverse(depth.nan_to_num(HUGE), there), torch.zeros(())), there | ground)


def usual(x: Tensor) -> bool:
    """Whether [h, w] uses the range from black to white, or holds one value."""
    low, high = x.min(), x.max()
    outside = ((x < -OVERSHOOT) | (x > 1 + OVERSHOOT)).float().mean()
    enlarged = outside <= FEW and low >= -FURTHER and high <= 1 + FURTHER
    return bool((high - low < FLAT and not outside) or (enlarged and high - low >= NARROW))


def has_depth(x: Tensor, near_black: bool) -> Tensor:
    """Where a map [h, w] of distances, if it is `near_black`, holds one: renderers and cameras have huge values, negative ones or zeros
    elsewhere."""
    there, low, high = torch.ones_like(x, dtype=torch.bool), x.min(), x.max()
    rest = x[x < 0.999 * high]
    if high > BYTES and rest.numel() and rest.median() > 0:
        there &= x <= NO_DEPTH * rest.median()
    if low <= -1 and not ((x > 0.999 * low) & (x < 0)).any():
        there &= x >= 0
    if near_black:
        there &= ~holes(torch.where(there, x, x[there].max())) if there.any() else there
    return there


def holes(x: Tensor) -> Tensor:
    """Where sensors found nothing, [h, w]: zeros with a gap between them and what they measured."""
    zero, rest = x == 0, x[x > 0]
    if zero.float().mean() <= SOME or not rest.numel() or (rest < GAP * rest.median()).sum() > GAP * zero.sum():
        return torch.zeros_like(zero)
    return zero


def large(empty: Tensor) -> bool:
    """Whether most of what is `empty` [h, w] lies in wholly empty rectangles of an eighth of the height by an eighth of the width: a ground,
    and no holes."""
    cells = F.adaptive_avg_pool2d(empty.float()[None, None], CELLS)
    full = (F.avg_pool2d(cells, CELLS // 8, stride=1) > 0.98).float()
    covered = F.max_pool2d(F.pad(full, [CELLS // 8 - 1] * 4), CELLS // 8, stride=1)
    return bool((covered * cells).sum() > cells.sum() / 2)


def two_values(x: Tensor) -> bool:
    return bool(x.max() - x.min() >= 1 / 255 and ((x <= 0) | (x >= 1)).float().mean() > TWO_VALUES)


def nearest_ground(x: Tensor) -> bool:
    """Whether [h, w] has an edge of one value that is above all others."""
    edge = torch.cat([x[0], x[-1], x[:, 0], x[:, -1]])
    return bool(edge.max() - edge.min() < 1 / 255 and x.max() < edge.max() + 1 / 255 and x.min() < edge.min() - LINE)


def top_over_bottom(image: Tensor) -> Tensor:
    """By how much the upper third of [h, w] is brighter than the lower."""
    third = max(1, len(image) // 3)
    return image[:third].mean() - image[-third:].mean()
