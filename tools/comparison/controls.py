"""What is to be followed, by kind: how it is found in a picture, given to a ControlNet and to a target, and how closely an image follows it.

Pictures, control images and images are the host's IMAGEs, [1, H, W, 3] in 0 to 1. Detectors are the host's own.
"""
import json
from pathlib import Path

import comfy.utils
import torch
import torch.nn.functional as F
from comfy_extras.nodes_canny import Canny
from torch import Tensor

from readout_guidance_pack.nodes.inputs import keypoints
from readout_guidance_pack.nodes.inputs.depth_maps import from_geometry
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.edge import EdgeTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget
from tools.comparison import detectors
from tools.host.folders import load

NODE = "evaluate"
LOW, HIGH = 0.1, 0.2   # Canny's thresholds; the host's own, 0.4 and 0.8, leave little of a picture
SHIFT = 2             # pixels that an edge may be off
WITHIN = (0.1, 0.05)  # of a figure's longer side


class Pose:
    """A skeleton: of an OpenPose JSON file, or found in a picture by SDPose, which finds one person."""

    detector_is, suffixes = "SDPose's checkpoint", (".json",)

    def __init__(self, detector: Path | None):
        self.found = detectors.pose(detector)

    def given(self, file: Path) -> list:
        try:
            pose = json.loads(file.read_text("utf-8")) if file.suffix == ".json" else self.found(load(file))
            keypoints.read(NODE, pose)
        except ValueError as error:
            raise ValueError(f"{file.name}: {str(error).removeprefix(f'{NODE}: ')}") from error
        return pose

    def size(self, pose: list) -> tuple[int, int]:
        return tuple(round(side) for side in keypoints.read(NODE, pose)[1])

    def hint(self, pose: list) -> Tensor:
        return keypoints.drawn(NODE, pose).movedim(1, -1)

    def target(self, head, pose: list, **acting):
        return PoseTarget.execute(head=head, keypoints=pose, **acting)[0]

    def person(self, pose: list) -> Tensor | None:
        """The points [18, 3] of whoever has most of them, in shares of the canvas; None where nobody is."""
        try:
            points, (height, width) = keypoints.read(NODE, pose)
        except ValueError:
            return None
        people = points.flatten(0, 1)
        person = people[(people[..., 2] > 0).sum(1).argmax()]
        return person / torch.tensor([width, height, 1.0])

    def figures(self, image: Tensor, pose: list) -> dict[str, float]:
        """The share of the pose's joints that are found within a tenth and a twentieth of its longer side."""
        wanted, found = self.person(pose), self.person(self.found(image))
        there = wanted[:, 2] > 0
        size = torch.tensor([image.shape[2], image.shape[1]])
        place = wanted[there, :2] * size
        reach = (place.amax(0) - place.amin(0)).max()
        if found is None:
            return {f"pck@{share}": 0.0 for share in WITHIN}
        off = (found[there, :2] * size - place).norm(dim=-1).masked_fill(found[there, 2] == 0, torch.inf)
        return {f"pck@{share}": (off <= share * reach).float().mean().item() for share in WITHIN}


class Depth:
    """The distances that MoGe or Depth Anything 3 finds in a picture."""

    detector_is, suffixes = "the file of MoGe or Depth Anything 3", ()

    def __init__(self, detector: Path | None):
        self.found = detectors.geometry(detector)

    def given(self, file: Path) -> dict:
        return self.found(load(file))

    def size(self, geometry: dict) -> tuple[int, int]:
        return tuple(geometry["depth"].shape[1:])

    def nearness(self, geometry: dict) -> Tensor:
        """[1, 3, H, W], 0 (far) to 1 (near), as heads read it."""
        return from_geometry(NODE, geometry)[0]

    def hint(self, geometry: dict) -> Tensor:
        return self.nearness(geometry).movedim(1, -1)

    def target(self, head, geometry: dict, **acting):
        return DepthTarget.execute(head=head, geometry=geometry, **acting)[0]

    def figures(self, image: Tensor, geometry: dict) -> dict[str, float]:
        """The mean absolute error of inverse depth from 0 to 1."""
        found = self.nearness(self.found(image))
        return {"error": (found - resized(self.nearness(geometry), found)).abs().mean().item()}


class Edge:
    """The edges that Canny finds in a picture."""

    detector_is, suffixes = None, ()

    def __init__(self, detector: Path | None):
        pass

    def given(self, file: Path) -> Tensor:
        return load(file)

    def size(self, picture: Tensor) -> tuple[int, int]:
        return tuple(picture.shape[1:3])

    def hint(self, picture: Tensor) -> Tensor:
        return Canny.execute(picture, LOW, HIGH).args[0].cpu()

    def target(self, head, picture: Tensor, **acting):
        return EdgeTarget.execute(head=head, image=self.hint(picture), **acting)[0]

    def figures(self, image: Tensor, picture: Tensor) -> dict[str, float]:
        """The F-score of the edges, a few pixels of shift allowed."""
        wanted = resized(picture.movedim(-1, 1), image.movedim(-1, 1)).movedim(1, -1)
        found, wanted = (self.hint(x)[..., 0][:, None] for x in (image, wanted))

        def share(of: Tensor, near: Tensor) -> Tensor:
            return (of * F.max_pool2d(near, 2 * SHIFT + 1, 1, SHIFT)).sum() / of.sum().clamp(min=1)

        precision, recall = share(found, wanted), share(wanted, found)
        return {"fscore": (2 * precision * recall / (precision + recall).clamp(min=1e-6)).item()}


KINDS = {"pose": Pose, "depth": Depth, "edge": Edge}


def resized(image: Tensor, like: Tensor) -> Tensor:
    """[1, C, h, w], as large as `like`, its middle cut to that shape as the host cuts control images."""
    return comfy.utils.common_upscale(image, like.shape[-1], like.shape[-2], "bilinear", "center")
