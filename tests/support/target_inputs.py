"""What targets are given: people in keypoints and as they are drawn, and a depth map."""
import numpy as np
import torch

from readout_guidance_pack.rg_core.images.control_images import draw_pose

RNG = np.random.default_rng(0)
XY = RNG.uniform(60, 450, (18, 2)).round(1)
XY[1] = XY[[2, 5]].mean(0)  # the neck, as COCO's layout has it
RAMP = torch.linspace(0, 1, 64).view(1, 64, 1, 1).expand(1, 64, 64, 3)  # nearer downwards


def person(xy=XY, confidence=1.0) -> list[float]:
    return [float(n) for x, y in xy for n in (x, y, confidence)]


def frame(*people, width=512, height=512) -> dict:
    return {"canvas_width": width, "canvas_height": height, "people": [{"pose_keypoints_2d": points} for points in people]}


def drawn(*people, size=(512, 512)):
    points = torch.zeros(1, len(people), 18, 3)
    for p, points_of_one in enumerate(people):
        points[0, p] = torch.tensor(points_of_one).view(18, 3)
    return draw_pose(points, size)
