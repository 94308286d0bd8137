"""Drags: what the editor, JSON and spline editors say, as paths in shares of the image."""
import json
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..common.checks import shown
from ..common.log import log

MOST = 1024


def from_json(node: str, text: str | list, size: tuple[int, int]) -> list[Tensor]:
    """Paths [F, 2] in shares of an image of `size` (H, W), from a list of drags, each of two or more points, or from a single
    drag. A point is [x, y] or {"x": x, "y": y}, in shares of the image or, where most numbers are beyond 1, in pixels.
    Several editors' texts may come as a list of them, and clients may give the list itself for its text."""
    if isinstance(text, list) and all(isinstance(one, str) for one in text):
        return [path for one in text for path in from_json(node, one, size)]
    try:
        given = text if isinstance(text, list) else json.loads(text)
        drags = [given] if given and is_point(given[0]) else given
        paths = [torch.tensor([[p["x"], p["y"]] if isinstance(p, dict) else p for p in drag], dtype=torch.float32) for drag in drags]
        good = isinstance(given, list) and all(d.ndim == 2 and d.shape[0] >= 2 and d.shape[1] == 2 and torch.isfinite(d).all() for d in paths)
    except (json.JSONDecodeError, RecursionError, TypeError, ValueError, LookupError, RuntimeError, OverflowError):
        good = False
    if not good:
        raise ValueError(f"{node}: the drags cannot be read: {shown(text)}. Write a list of drags, each a list of two or more points "
                         '[x, y] or {"x": x, "y": y}, from 0 (left, top) to 1 (right, bottom) or in pixels of the image, such as '
                         "[[[0.2, 0.5], [0.6, 0.5]]].")
    in_pixels = paths and torch.cat(paths).abs().median() > 1
    return [path / torch.tensor(size[::-1]) for path in paths] if in_pixels else paths


def is_point(x: Any) -> bool:
    return isinstance(x, dict) or isinstance(x, list) and len(x) > 0 and not isinstance(x[0], (list, dict))


def usable(node: str, drags: list[Tensor]) -> Tensor:
    """The drags [K, F, 2] that start and end inside the image and go somewhere; the others are left out, with a warning.

    Raises ValueError when none is left or there are too many.
    """
    if len(drags) > MOST:
        raise ValueError(f"{node}: got {len(drags)} drags; the maximum is {MOST}. Keep one in {-(-len(drags) // MOST)}.")
    outside = [k for k, d in enumerate(drags, 1) if not ((d[[0, -1]] >= 0) & (d[[0, -1]] <= 1)).all()]
    still = [k for k, d in enumerate(drags, 1) if torch.equal(d[0], d[-1])]
    kept = [d for k, d in enumerate(drags, 1) if k not in outside and k not in still]
    if outside or still:
        reasons = [f"{'drag' if len(which) == 1 else 'drags'} {', '.join(map(str, which))} {why}" for which, why in
                   ((outside, "with an end outside the image"), (still, "of zero length")) if which]
        said = f"{node}: {' and '.join(reasons)} cannot be used."
        if not kept:
            raise ValueError(f"{said} Each drag must start and end inside the image, at different places.")
        log.warning("%s The other %d are used.", said, len(kept))
    frames = max(len(d) for d in kept)
    return torch.stack([resampled(d, frames) for d in kept])


def resampled(path: Tensor, frames: int) -> Tensor:
    """`path` [F, 2] at `frames` equal shares of its steps."""
    return interpolate(path.T[None], frames, mode="linear", align_corners=True)[0].T
