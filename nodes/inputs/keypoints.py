"""POSE_KEYPOINT as detectors, editors and packs give it, read as OpenPose's 18 body points and drawn."""
import json
import math
from typing import Any

import torch
from torch import Tensor

from ...rg_core.images.control_images import draw_pose
from ...rg_core.readout.estimates import VISIBLE
from ..common.checks import dense, shown
from ..common.log import log
from .places import shares

KEYPOINTS = 18
SIDE, LONGEST = 512, 2048  # of a drawn skeleton: its shorter side, as far as the longer one allows
MOST_PIXELS = 1e6  # of a canvas's side; no point lies farther away
# Where the 18 points (see LIMBS in rg_core/images/control_images.py) are in other layouts, by their number of points: OpenPose's BODY_25
# and COCO's 17, which has no neck.
LAYOUTS = {18: range(18), 25: (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18),
           17: (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)}
NECK, SHOULDERS = 1, [2, 5]
SURE = 0.3  # from which the host's own node draws a point; of a person's surest one where another detector, with a scale of its own, made them
OF_THE_HOST = "foot_keypoints_2d"  # a field of people that its SDPose Keypoint Extractor gives, and other detectors do not
NOWHERE = torch.tensor([[0.0, 0.0], [-1.0, -1.0]])  # where some detectors put points that they did not find


def drawn(node: str, given: Any) -> Tensor:
    """The skeletons of POSE_KEYPOINT, [frames, 3, H, W] in 0 to 1; black where nobody is. Raises ValueError with a message."""
    points, (height, width) = read(node, given)
    scale = min(SIDE / min(height, width), LONGEST / max(height, width))
    return draw_pose(points, (max(1, round(height * scale)), max(1, round(width * scale))), (height, width))


def read(node: str, given: Any) -> tuple[Tensor, tuple[float, float]]:
    """The body points [frames, people, 18, 3] (x, y in pixels, confidence 0 if hidden) of POSE_KEYPOINT, and the canvas
    (height, width), that of the first frame with anybody in it. Other frames are cut to its shape as images are."""
    frames = [people(node, number, frame) for number, frame in enumerate(frames_of(node, given), 1)]
    if not any(bodies for bodies, _ in frames):
        fields = ", ".join(dict.fromkeys(str(key) for frame in frames_of(node, given) for key in frame)) or "nothing"
        raise ValueError(f"{node}: the pose is empty, there is nobody in it: its frames contain {shown(fields)}, and no person has "
                         "pose_keypoints_2d. Check the pose detector or editor before this node.")
    points = torch.zeros(len(frames), max(len(bodies) for bodies, _ in frames), KEYPOINTS, 3)
    for f, (bodies, _) in enumerate(frames):
        for p, body in enumerate(bodies):
            points[f, p] = body
    there = points[..., 2] > 0
    if not there.any():
        raise ValueError(f"{node}: the pose is empty: all its points have a confidence below {VISIBLE} ({SURE} from SDPose) or lie at 0, 0. Check "
                         "the pose detector before this node. If its confidences use another scale, convert them to 0 to 1.")
    found = shares(node, "points of the pose", points[..., :2], there, there)
    if found is not None:
        points[..., :2] = found
        for f, (_, canvas) in enumerate(frames):
            points[f, ..., :2] *= torch.tensor(canvas[::-1] if canvas else (1.0, 1.0))
    return laid_over(node, points, [canvas for _, canvas in frames])


def laid_over(node: str, points: Tensor, canvases: list[tuple[float, float] | None]) -> tuple[Tensor, tuple[float, float]]:
    """`points` moved from their own canvases to the first, around its middle."""
    first = next(canvas for canvas in canvases if canvas)
    for f, canvas in enumerate(canvases):
        if canvas and canvas != first:
            scale = max(whole / own for whole, own in zip(first, canvas))
            points[f, ..., :2] = points[f, ..., :2] * scale + torch.tensor([(w - o * scale) / 2 for w, o in zip(first, canvas)][::-1])
    if any(abs(math.log((c[0] * first[1]) / (c[1] * first[0]))) > 0.01 for c in canvases if c):
        log.warning("%s: the frames of the pose have canvases of different shapes. All are cropped around their center to the shape of the first, "
                    "%gx%g.", node, first[1], first[0])
    return points, first


def frames_of(node: str, given: Any) -> list[dict]:
    given = plain(given)
    try:
        given = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        pass  # said below
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], list):  # a batch of one
        given = given[0]
    frames = [given] if isinstance(given, dict) else given
    if not isinstance(frames, (list, tuple)) or not all(frame is None or isinstance(frame, dict) for frame in frames):
        raise ValueError(f"{node}: keypoints is {shown(given)}, but must be a list of frames, each with canvas_width, canvas_height and people. "
                         "Connect a pose detector or editor that outputs POSE_KEYPOINT.")
    frames = [frame or {} for frame in frames]
    if any(frame.get("animals") is not None for frame in frames) and not any(frame.get("people") for frame in frames):
        raise ValueError(f"{node}: the pose is of animals, but pose heads read people. Use a detector for people.")
    return frames


def people(node: str, number: int, frame: dict) -> tuple[list[Tensor], tuple[float, float] | None]:
    """The bodies [18, 3] in a frame, and its canvas (height, width); None where nobody is."""
    listed = plain(frame.get("people"))
    if listed is None:
        listed = []
    if not isinstance(listed, (list, tuple)) or not all(person is None or isinstance(person, dict) for person in listed):
        raise ValueError(f"{node}: people in frame {number} of the pose is {shown(listed)}, but must be a list of objects with pose_keypoints_2d. "
                         "Connect a pose detector or editor that outputs POSE_KEYPOINT.")
    bodies = []
    for person in listed:
        points = plain((person or {}).get("pose_keypoints_2d"))
        if points is not None and (not isinstance(points, (list, tuple)) or len(points)):
            bodies.append(body(node, number, points, OF_THE_HOST in person))
    return bodies, canvas_of(node, number, frame) if bodies else None


def canvas_of(node: str, number: int, frame: dict) -> tuple[float, float]:
    try:
        canvas = float(frame["canvas_height"]), float(frame["canvas_width"])
        good = all(1 <= side <= MOST_PIXELS for side in canvas)
    except (KeyError, TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise ValueError(f"{node}: frame {number} of the pose has no canvas size: canvas_width is {shown(frame.get('canvas_width'))}, canvas_height "
                         f"is {shown(frame.get('canvas_height'))}. It is the size in pixels of the image that the points belong to. Use a detector "
                         "or editor that sets it.")
    return canvas


def body(node: str, number: int, points: Any, of_the_host: bool = False) -> Tensor:
    """A person's points in one of LAYOUTS, as [18, 3]."""
    try:
        one_by_one = any(isinstance(plain(point), (list, tuple)) for point in points)
        width = 2 if len(points) in [2 * count for count in LAYOUTS] else 3  # without confidences
        found = [triple(point) for point in (points if one_by_one else zip(*[iter(points)] * width, strict=True))]
        layout, found = LAYOUTS[len(found)], torch.tensor(found, dtype=torch.float64)
    except (TypeError, ValueError, LookupError, RuntimeError, OverflowError):
        raise ValueError(f"{node}: pose_keypoints_2d of a person in frame {number} is {shown(points)}, but must be x, y and confidence of OpenPose's "
                         f"18 or 25 body points or of COCO's 17: {' or '.join(str(3 * n) for n in sorted(LAYOUTS))} numbers. Use a detector with one "
                         "of these layouts.") from None
    placed = torch.stack([torch.zeros(3, dtype=torch.float64) if place is None else found[place] for place in layout])
    least = SURE if of_the_host else max(VISIBLE, SURE * placed[:, 2].max())
    hidden = (placed[:, 2] < least) | (placed[:, None, :2] == NOWHERE).all(-1).any(-1)
    placed[hidden] = 0
    if not (placed[:, :2].abs() <= MOST_PIXELS).all() or not placed.isfinite().all():
        raise ValueError(f"{node}: a person in frame {number} of the pose has a point that is NaN, infinite or far outside any image. Check the node "
                         "the pose comes from.")
    if None in layout and not hidden[SHOULDERS].any():
        placed[NECK] = placed[SHOULDERS].mean(0)
    return placed.float()


def triple(point: Any) -> list:
    """x, y and confidence of a point: 1 if it has none, 0 if one of its numbers is null or it is null itself."""
    point = plain(point)
    if point is None or None in point:
        return [0, 0, 0]
    x, y, confidence = point if len(point) == 3 else (*point, 1)
    return [x, y, confidence]


def plain(x: Any) -> Any:
    """Arrays of NumPy or torch as lists."""
    return x.tolist() if hasattr(x, "tolist") and (not isinstance(x, Tensor) or dense(x)) else x
