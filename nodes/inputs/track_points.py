"""The host's TRACKS, and tracks in files, as trackers and nodes make them."""
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.checks import dense, shown
from ..common.log import log
from .places import shares

SURE = 2                # times as much like frames as the other axis an axis must be
STILL, FINE = 0.5, 512  # pixels, or a part of the image's longer side: what moves less stands still
ENOUGH = 5              # frames in which a track that only wavers can be told


def points(node: str, tracks: dict, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The points [F, K, 2] of the host's TRACKS in pixels of an image of `size` (H, W), and whether they are visible [F, K]. Points that are shares
    of the image, as some trackers give them, are made pixels; without word of it, all are visible."""
    path, seen = (tracks.get(name) if isinstance(tracks, dict) else None for name in ("track_path", "track_visibility"))
    path = torch.from_numpy(np.array(path, dtype=np.float32, order="C")) if isinstance(path, np.ndarray) and path.dtype.kind in "fiu" else path
    if dense(path) and path.ndim == 4 and len(path) == 1:  # a batch of one video
        path = path[0]
    if not dense(path) or path.ndim != 3 or path.shape[0] < 2 or path.shape[2] != 2 or not torch.isfinite(path).all():
        given = tuple(path.shape) if isinstance(path, Tensor) else type(tracks).__name__ if path is None else type(path).__name__
        raise ValueError(f"{node}: tracks of {given} cannot be used. They must have finite points in two or more frames: [frames, points, 2].")
    path = path.float().cpu()
    seen = torch.ones(path.shape[:2], dtype=torch.bool) if seen is None else visible(node, seen, path)
    first = torch.zeros_like(seen)
    first[0] = True
    found = shares(node, "tracks", path, seen, first)
    return path if found is None else found * torch.tensor(size[::-1]), seen


def visible(node: str, seen: Any, path: Tensor) -> Tensor:
    try:
        seen = torch.as_tensor(seen).cpu()
        if seen.is_floating_point():  # how sure a tracker is: from 0 to 1, or on both sides of 0
            seen = seen > (0.5 if ((seen >= 0) & (seen <= 1)).all() else 0)
        elif (seen < 0).any():
            seen = seen > 0
        seen = seen.bool()
        while seen.ndim > 2 and 1 in (len(seen), seen.shape[-1]):  # a batch of one video, or one flag for each point
            seen = seen[0] if len(seen) == 1 else seen[..., 0]
        if seen.ndim == 2 and seen.shape != path.shape[:2] and seen.mT.shape == path.shape[:2]:  # points first
            seen = seen.mT
        return (joined(seen, path.shape[1]) if seen.ndim == 2 and 1 < seen.shape[1] < path.shape[1] else seen).expand(path.shape[:2])
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{node}: the visibility of the tracks is {shown(seen)}, which does not fit {path.shape[0]} frames of {path.shape[1]} "
                         "points. If you joined tracks that were made with a track_mask, leave out the track_mask. Otherwise check the node they "
                         "come from.") from None


def joined(seen: Tensor, count: int) -> Tensor:
    """`seen` [F, V] of V < `count` tracks for all of them: where stock nodes make tracks with a mask, one column is for all, and where they join
    them with others it stays one. It is the one that hides anything; where several do, nobody can say which are whose, so `seen` is left as it is."""
    hides = (~seen.all(0)).nonzero()[:, 0].tolist()
    if len(hides) > 1:
        return seen
    column = hides[0] if hides else 0
    repeats = torch.ones(seen.shape[1], dtype=torch.long)
    repeats[column] += count - seen.shape[1]
    return seen.repeat_interleave(repeats, 1)


def frames_first(path: Tensor) -> Tensor:
    """`path` [F, K, 2] as it is, or, if it is [K, F, 2], the other way round. From frame to frame points go shorter ways than from one to
    another, and ways that add up; where there are too few of either to tell, it is taken as it is."""
    if min(path.shape[:2]) < 3:
        return path
    steps, other_steps = (path.diff(dim=dim).square().mean() for dim in (0, 1))
    spread, other_spread = (path.var(dim).mean() for dim in (0, 1))  # where steps add up to nothing they are about twice this
    return path.transpose(0, 1) if steps > other_steps and steps * other_spread > SURE * other_steps * spread else path


def paths(node: str, tracks: dict, size: tuple[int, int]) -> list[Tensor]:
    """Paths [F, 2] in shares of an image of `size` (H, W), from the host's TRACKS.

    Tracks that are not visible at their first or last frame, and those that stand still but for a tracker's noise, are left out, with a
    warning. Raises ValueError when none is left.
    """
    path, seen = points(node, tracks, size)
    ends, count = seen[0] & seen[-1], path.shape[1]
    if not ends.any():
        raise ValueError(f"{node}: none of the {count} tracks is visible at both its first and its last frame, so nothing would be dragged. Track "
                         "points that are visible at both, or disconnect the tracks.")
    moving = ends & ~still(path, size)
    if not moving.any():
        raise ValueError(f"{node}: none of the {count} tracks moves from its first to its last frame by more than the tracker's noise, so nothing "
                         "would be dragged. Track points that move, or disconnect the tracks.")
    for left_out, why in ((~ends, "are hidden at their first or last frame"), (ends & ~moving, "stand still")):
        if left_out.any():
            log.warning("%s: %d of %d tracks %s and are left out.", node, int(left_out.sum()), count, why)
    scale = torch.tensor(size[::-1])
    beyond = (path[[0, -1]][:, moving] > 1.2 * scale).any(-1).float().mean()
    if beyond > 0.2:
        far = path.amax((0, 1)).tolist()
        log.warning("%s: the tracks reach to %.0fx%.0f pixels, but the image that they are measured on is %dx%d. If they were made on an image of "
                    "another size, connect that image, or resize it before tracking.", node, *far, size[1], size[0])
    return list((path[:, moving] / scale).unbind(1))


def still(path: Tensor, size: tuple[int, int]) -> Tensor:
    """Which of K tracks [F, K, 2], in pixels of an image of `size`, end where they begin, as far as their tracker can tell: [K]."""
    way = (path[-1] - path[0]).norm(dim=-1)
    little = way < max(STILL, max(size) / FINE)
    if len(path) < ENOUGH:
        return little
    steps, bends = (path.diff(n=n, dim=0).norm(dim=-1).mean(0) for n in (1, 2))
    return little | (bends > steps) & (way < 2 * bends)  # to and fro, by which steps differ from each other more than they are long
