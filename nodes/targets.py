"""Pose, Depth and Edge Target: what the user has, as something to steer towards."""
import torch
from comfy_api.latest import io
from torch import Tensor

from ..rg_core.pictures import draw_pose
from ..rg_core.targets import Spatial, Target
from . import checks
from .types import CATEGORY, Guidance, Head, PoseKeypoint

CANVAS = 512  # shorter side of a drawn skeleton, pixels
KEYPOINTS = 18


WEIGHT = io.Float.Input("weight", default=1.0, min=0.0, max=10.0, step=0.05,
                        tooltip="How hard this target pulls. Alone, it multiplies strength. 0 turns it off.")
CHAIN = Guidance.Input("guidance", optional=True, tooltip="Other targets that should act at the same time.")


def when(target: type[Target], tooltip: str | None = None) -> list:
    """Weight and percents, with the defaults of this kind of target."""
    return [WEIGHT,
            io.Float.Input("start_percent", default=target.start, min=0.0, max=1.0, step=0.01),
            io.Float.Input("end_percent", default=target.end, min=0.0, max=1.0, step=0.01, tooltip=tooltip)]


def inputs(picture: list, kind: str) -> list:
    return [
        Head.Input("head", tooltip=f"A head that reads {kind}, for the model that you sample with."),
        *picture,
        *when(Spatial, "The layout of a picture is settled by 0.5; later guidance takes longer and matches more exactly."),
        io.Mask.Input("mask", optional=True, tooltip="Where the target acts: white. The same size as the target."),
        CHAIN,
    ]


def chained(name: str, head, image: Tensor, weight: float, start: float, end: float, mask: Tensor | None,
            guidance: tuple | None) -> io.NodeOutput:
    node = f"{name.capitalize()} Target"
    checks.head_kind(node, head, name)
    checks.percents(node, start, end)
    mask = checks.mask(node, mask)
    checks.same_size(node, mask, image)
    target = Spatial(name=name, head=head, image=image, mask=mask, weight=weight, start=start, end=end)
    return io.NodeOutput((*(guidance or ()), target))


def keypoints_of(node: str, frames: list[dict]) -> tuple[Tensor, tuple[float, float]]:
    """POSE_KEYPOINT frames as [frames, people, 18, 3] in pixels, and the canvas (height, width) of the first."""
    if not frames or not any(frame.get("people") for frame in frames):
        raise ValueError(f"{node}: the pose is empty, there is nobody in it. Check the pose detector or editor before it.")
    canvas = float(frames[0]["canvas_height"]), float(frames[0]["canvas_width"])
    people = max(len(frame["people"]) for frame in frames)
    points = torch.zeros(len(frames), people, KEYPOINTS, 3)
    for f, frame in enumerate(frames):
        for p, person in enumerate(frame["people"]):
            flat = person.get("pose_keypoints_2d") or []
            if len(flat) != 3 * KEYPOINTS:
                raise ValueError(f"{node}: a person has {len(flat)} numbers in pose_keypoints_2d, and OpenPose's 18 body "
                                 f"points make {3 * KEYPOINTS} (x, y, confidence each). Use a detector with that layout.")
            points[f, p] = torch.tensor(flat, dtype=torch.float32).view(KEYPOINTS, 3)
    if not torch.isfinite(points).all() or min(canvas) <= 0:
        raise ValueError(f"{node}: the pose holds NaN or infinite values or a canvas of no size. Check what made it.")
    if not (points[..., 2] > 0).any():
        raise ValueError(f"{node}: the pose is empty, all its points have confidence 0. Check the pose detector before it.")
    if points[..., :2].max() <= 1:  # some detectors give shares of the canvas
        points[..., :2] *= torch.tensor([canvas[1], canvas[0]])
    return points, canvas


class PoseTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutPoseTarget", display_name="Pose Target", category=CATEGORY,
            description="Steers towards a pose: the picture of an OpenPose skeleton, or keypoints, which it draws as one.",
            inputs=inputs([io.Image.Input("image", optional=True, tooltip="An OpenPose skeleton on black."),
                           PoseKeypoint.Input("keypoints", optional=True, tooltip="Instead of an image.")], "pose"),
            outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, weight, start_percent, end_percent, image=None, keypoints=None, mask=None, guidance=None):
        node = "Pose Target"
        if (image is None) == (keypoints is None):
            raise ValueError(f"{node}: got {'neither image nor' if image is None else 'both image and'} keypoints. Connect one of them.")
        if image is None:
            points, (height, width) = keypoints_of(node, keypoints)
            scale = CANVAS / min(height, width)
            image = draw_pose(points, (round(height * scale), round(width * scale)), (height, width))
        else:
            image = checks.picture(node, image)
            if image.max() < 1 / 255:
                raise ValueError(f"{node}: the skeleton's picture is all black, so it holds no pose. Check what made it.")
        return chained("pose", head, image, weight, start_percent, end_percent, mask, guidance)


class DepthTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutDepthTarget", display_name="Depth Target", category=CATEGORY,
            description="Steers towards a depth map: white is near, black is far.",
            inputs=inputs([io.Image.Input("image", tooltip="A depth map, white near and black far, as MiDaS or Depth "
                                          "Anything give it.")], "depth"),
            outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, image, weight, start_percent, end_percent, mask=None, guidance=None):
        image = checks.picture("Depth Target", image).mean(1, keepdim=True).expand(-1, 3, -1, -1)
        return chained("depth", head, image, weight, start_percent, end_percent, mask, guidance)


class EdgeTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutEdgeTarget", display_name="Edge Target", category=CATEGORY,
            description="Steers towards edges: white lines on black.",
            inputs=inputs([io.Image.Input("image", tooltip="Edges, white on black, as HED or Canny give them.")], "edge"),
            outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, image, weight, start_percent, end_percent, mask=None, guidance=None):
        image = checks.picture("Edge Target", image).mean(1, keepdim=True).expand(-1, 3, -1, -1)
        return chained("edge", head, image, weight, start_percent, end_percent, mask, guidance)
