"""Drags: what the editor, JSON, spline editors and TRACKS say, as paths in shares of the picture."""
import json
import logging
from typing import Any

import torch
from torch import Tensor

from .checks import shown

MOST = 1024


def from_json(node: str, text: str | list[str], size: tuple[int, int]) -> list[Tensor]:
    """Paths [F, 2] in shares of a picture of `size` (H, W), from a list of drags, each of two or more points, or from a single
    drag. A point is [x, y] or {"x": x, "y": y}, in shares of the picture or, where most numbers are beyond 1, in pixels.
    Several editors' texts may come as a list of them."""
    if isinstance(text, list):
        return [path for one in text for path in from_json(node, one, size)]
    try:
        given = json.loads(text)
        drags = [given] if given and is_point(given[0]) else given
        paths = [torch.tensor([[p["x"], p["y"]] if isinstance(p, dict) else p for p in drag], dtype=torch.float32) for drag in drags]
        good = isinstance(given, list) and all(d.ndim == 2 and d.shape[0] >= 2 and d.shape[1] == 2 and torch.isfinite(d).all() for d in paths)
    except (json.JSONDecodeError, RecursionError, TypeError, ValueError, LookupError, RuntimeError, OverflowError):
        good = False
    if not good:
        raise ValueError(f"{node}: the drags cannot be read: {shown(text)}. They are a list of drags, each a list of two or more points "
                         '[x, y] or {"x": x, "y": y}, from 0 (left, top) to 1 (right, bottom) or in pixels of the picture, such as '
                         "[[[0.2, 0.5], [0.6, 0.5]]].")
    in_pixels = paths and torch.cat(paths).abs().median() > 1
    return [path / torch.tensor(size[::-1]) for path in paths] if in_pixels else paths


def is_point(x: Any) -> bool:
    return isinstance(x, dict) or isinstance(x, list) and len(x) > 0 and not isinstance(x[0], (list, dict))


def from_tracks(node: str, tracks: dict, size: tuple[int, int]) -> list[Tensor]:
    """Paths [F, 2] from the host's TRACKS, whose points are pixels of a picture of `size` (H, W).

    A track that is not visible at its first or last frame is left out, with a warning; without word of it, all are visible.
    Raises ValueError when none is left.
    """
    path, seen = points(node, tracks)
    ends = (seen[0] & seen[-1]).nonzero()[:, 0].tolist()
    if not ends:
        raise ValueError(f"{node}: none of the {path.shape[1]} tracks is visible at both its first and its last frame, so nothing would be dragged. "
                         "Track points that are, or disconnect the tracks.")
    if len(ends) < path.shape[1]:
        logging.warning("%s: %d of %d tracks are hidden at their first or last frame and left out.", node, path.shape[1] - len(ends), path.shape[1])
    scale = torch.tensor([size[1], size[0]])
    beyond = (path[[0, -1]][:, ends] > 1.2 * scale).any(-1).float().mean()
    if beyond > 0.2:
        far = path.amax((0, 1)).tolist()
        logging.warning("%s: the tracks reach to %.0fx%.0f pixels, and the picture that they are taken to be on is %dx%d. If they were made on "
                        "a picture of another size, connect that one as image, or resize it before.", node, *far, size[1], size[0])
    return [path[:, k] / scale for k in ends]


def points(node: str, tracks: dict) -> tuple[Tensor, Tensor]:
    """The points [F, K, 2] of the host's TRACKS, and whether they are visible [F, K]."""
    path = tracks.get("track_path") if isinstance(tracks, dict) else None
    if not isinstance(path, Tensor) or path.ndim != 3 or path.shape[0] < 2 or path.shape[2] != 2 or not torch.isfinite(path).all():
        given = tuple(path.shape) if isinstance(path, Tensor) else type(tracks).__name__ if path is None else type(path).__name__
        raise ValueError(f"{node}: tracks of {given} cannot be used. They need finite points of two or more frames: [frames, points, 2].")
    path, seen = path.float().cpu(), tracks.get("track_visibility")
    return path, torch.ones(path.shape[:2], dtype=torch.bool) if seen is None else visible(node, seen, path)


def visible(node: str, seen: Any, path: Tensor) -> Tensor:
    try:
        return torch.as_tensor(seen).cpu().bool().expand(path.shape[:2])
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{node}: the tracks' visibility is {shown(seen)}, which does not fit {path.shape[0]} frames of {path.shape[1]} "
                         "points. Check what made the tracks.") from None


def usable(node: str, drags: list[Tensor]) -> Tensor:
    """The drags [K, F, 2] that start and end inside the picture and go somewhere; the others are left out, with a warning.

    Raises ValueError when none is left or there are too many.
    """
    if len(drags) > MOST:
        raise ValueError(f"{node}: {len(drags)} drags are more than fit; the most is {MOST}. Take one "
                         f"in {-(-len(drags) // MOST)}.")
    outside = [k for k, d in enumerate(drags, 1) if not ((d[[0, -1]] >= 0) & (d[[0, -1]] <= 1)).all()]
    still = [k for k, d in enumerate(drags, 1) if torch.equal(d[0], d[-1])]
    kept = [d for k, d in enumerate(drags, 1) if k not in outside and k not in still]
    if outside or still:
        reasons = [f"{'drag' if len(which) == 1 else 'drags'} {', '.join(map(str, which))} {why}" for which, why in
                   ((outside, "with an end outside the picture"), (still, "of no length")) if which]
        said = f"{node}: {' and '.join(reasons)} cannot be used."
        if not kept:
            raise ValueError(f"{said} Let a drag start and end inside the picture, at different places.")
        logging.warning("%s The other %d act.", said, len(kept))
    frames = max(len(d) for d in kept)
    return torch.stack([resampled(d, frames) for d in kept])


def resampled(path: Tensor, frames: int) -> Tensor:
    """`path` [F, 2] at `frames` equal shares of its steps."""
    place = torch.linspace(0, len(path) - 1, frames)
    step = place.long().clamp(max=len(path) - 2)
    return torch.lerp(path[step], path[step + 1], (place - step)[:, None])
