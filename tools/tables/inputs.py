"""What the host's own nodes give to targets: `python run.py evaluate --inputs [--seeds N]`.

Bars by Resize And Pad Image beside scenes that are cropped to where the image is, black frames of a saved video, the mask that Load Image gives
of an opaque WebP, and points that SDPose is not sure of. "as it stands" is the same without what the pack does about it.
"""
import contextlib
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch

import torch
from comfy_api.latest import InputImpl, Types
from comfy_extras.nodes_images import ResizeAndPadImage
from torch import Tensor

from readout_guidance_pack.heads.demo import judge, world
from readout_guidance_pack.nodes.common import checks
from readout_guidance_pack.nodes.inputs import bars, empty_images, keypoints
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget
from readout_guidance_pack.rg_core.guidance.targets import Drag, Spatial
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import CONTROLS, SCENE_SEED, Bench, Setting, show
from tools.tables.relations import to_be_dragged

NARROW = 48            # of 64 pixels, what is left between the bars
UNSURE, SEED = 0.2, 7  # the score of points that are not there, and where they lie
GUESSED = "left foot", "right foot"
TRACE = 0.000046       # Load Image's mask of an opaque WebP


@contextlib.contextmanager
def as_it_stands():
    """Without what the pack does about such inputs."""
    with patch.object(bars, "left_out", lambda node, kind, image, mask: (image, mask)), patch.object(empty_images, "NOTHING", 1 / 255), \
            patch.object(checks, "OPAQUE", 0.0), patch.object(keypoints, "SURE", 0.0):
        yield


def both(name: str, measure: Callable[[], dict]) -> dict:
    results = {name: measure()}
    with as_it_stands():
        results[f"{name}, as it stands"] = measure()
    for row, result in results.items():
        show("inputs", row, result)
    return results


def padded(seeds: int) -> dict:
    bench, results, at = Bench(seeds), {}, (64 - NARROW) // 2
    narrow = Bench(seeds, 64, NARROW)
    for color in ("black", "white"):
        bench.images = {kind: ResizeAndPadImage.execute(x, *(max(x.shape[1:3]),) * 2, color, "area")[0] for kind, x in narrow.images.items()}
        for kind, measured in (("pose", "pck"), ("depth", "mae"), ("edge", "fscore")):
            def measure(kind=kind, measured=measured):
                image = bench.sample(CONTROLS[kind], Setting(Move()))[..., at:at + NARROW]
                return {name: value for name, value in judge.figures(image, narrow.scene, bench.said).items() if name in (measured, "valid")}
            results |= both(f"{kind}, {color} bars", measure)
    return results


def saved_as_video(frames: Tensor) -> Tensor:
    """[B, H, W, 3] as the host saves and loads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "frames.mp4")
        InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=Fraction(24))).save_to(path)
        return InputImpl.VideoFromFile(path).get_components().images


def frames_without_anybody(seeds: int) -> dict:
    """How many joints are found where every other frame of the pose is black."""
    bench = Bench(seeds)
    skeletons = bench.images["pose"].clone()
    skeletons[1::2] = 0
    bench.images["pose"] = saved_as_video(skeletons)
    return both("black video frames", lambda: {"joints": round(
        judge.joints(bench.sample(CONTROLS["pose"], Setting(Move()))[1::2])[1].float().mean().item(), 4)})


def opaque_mask(seeds: int) -> dict:
    """Of a drag, with the mask of Load Image connected because it is there. What the pack does is to refuse it: the drag is made without."""
    bench, plan, _, starts = to_be_dragged(seeds)

    def measure() -> dict:
        def targets(plan, i, reference, end, mask):
            given = {"mask": torch.full((1, 64, 64), TRACE)}
            try:
                checks.mask("evaluate", **given)
            except ValueError:
                given = {}
            return DragTarget.execute(reference, plan.json(i), 1.0, Drag.start, end, bench.heads["correspondence"], **given)[0]
        with patch.object(bench, "drag_targets", targets):
            return {"distance": round(judge.distance(bench.dragged(plan, starts), plan.joint, plan.place, plan.start).mean().item(), 4)}

    return both("mask of an opaque WebP", measure)


def unsure_points(seeds: int) -> dict:
    """Feet that SDPose guesses at anywhere, and how many of the other joints are where they should be."""
    bench, scene = Bench(seeds), world.draw(seeds, seed=SCENE_SEED)
    points = scene.keypoints.clone()
    feet = [world.OPENPOSE[name] for name in GUESSED]
    points[:, feet, :2] = 64 * torch.rand(seeds, len(feet), 2, generator=torch.Generator().manual_seed(SEED))
    points[:, feet, 2] = UNSURE
    frames = [{"canvas_width": 64, "canvas_height": 64, "people": [{"pose_keypoints_2d": person.flatten().tolist(), keypoints.OF_THE_HOST: []}]}
              for person in points]
    others = [k for k, name in enumerate(world.JOINTS) if name not in GUESSED]

    def measure() -> dict:
        image = bench.sampled(lambda part: PoseTarget.execute(bench.heads["pose"], 1.0, Spatial.start, Spatial.end, keypoints=frames[part])[0],
                              Setting(Move()))
        position, found = judge.joints(image)
        near = found & ((position - scene.joints).norm(dim=-1) <= 0.1 * scene.height[:, None])
        return {"pck of the others": round(near[:, others].float().mean().item(), 4), "valid": judge.valid(image).mean().item()}

    return both("SDPose unsure of both feet", measure)


@torch.inference_mode()
def inputs(seeds: int) -> dict:
    return {"inputs": padded(seeds) | frames_without_anybody(seeds) | opaque_mask(seeds) | unsure_points(seeds)}
