"""Drags: what the editor, JSON and TRACKS say, as paths in shares of the picture."""
import json
import logging

import torch
from torch import Tensor

MOST = 1024


def from_json(node: str, text: str) -> list[Tensor]:
    """Paths [F, 2] from `[[[x, y], [x, y], ...], ...]`: a list of drags, each of two or more points, 0 to 1."""
    try:
        drags = [torch.tensor(drag, dtype=torch.float32) for drag in json.loads(text)]
        good = all(d.ndim == 2 and d.shape[0] >= 2 and d.shape[1] == 2 and torch.isfinite(d).all() for d in drags)
    except (json.JSONDecodeError, TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{node}: the drags cannot be read: {text[:80]!r}. They are a list of drags, each a list of two or more "
                         "points [x, y] in shares of the picture, such as [[[0.2, 0.5], [0.6, 0.5]]].")
    return drags


def from_tracks(node: str, tracks: dict, size: tuple[int, int]) -> list[Tensor]:
    """Paths [F, 2] from the host's TRACKS, whose points are pixels of a picture of `size` (H, W).

    A track that is not visible at its first or last frame is left out.
    """
    path, seen = tracks["track_path"].float().cpu(), tracks["track_visibility"].cpu()
    if path.ndim != 3 or path.shape[0] < 2 or path.shape[2] != 2:
        raise ValueError(f"{node}: tracks of shape {tuple(path.shape)} cannot be drags. They need two or more frames of points: "
                         "[frames, points, 2].")
    seen = seen.expand(path.shape[:2])
    ends = (seen[0] & seen[-1]).nonzero()[:, 0].tolist()
    scale = torch.tensor([size[1], size[0]])
    return [path[:, k] / scale for k in ends]


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
