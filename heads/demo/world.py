"""The demo world: a marionette in a room with depth, drawn from random numbers.

Coordinates are pixels, x to the right and y down; a pixel's centre is at +0.5. Colors are RGB in [0, 1].

Three rules make an image readable without any network (`judge.py` does so):
- every albedo has a brightest channel of exactly 1, and light falls with distance, so the brightest channel of a
  pixel says how near it is: V = DARKEST + (1 - DARKEST) * nearness;
- the figure's seven joints are beads of full saturation, each with a hue of its own;
- clothes are half saturated, the scene hardly, boxes not at all.
"""
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

JOINTS = ("head", "neck", "pelvis", "left hand", "right hand", "left foot", "right foot")
JOINT_HUES = (25, 77, 128, 231, 334, 180, 283)
CLOTHES = {"red": 0, "yellow": 60, "green": 130, "blue": 220}
SCENES = {"room": 30, "meadow": 110, "sea": 205, "dusk": 280}
JOINT_SATURATION, CLOTHES_SATURATION, SCENE_SATURATION = 1.0, 0.55, 0.22
DARKEST = 0.3
BEAD_RADIUS = 2.2  # of a hand, in figure units; the head is larger
HEAD_RADIUS = 3.6
BOXES_SHOWN = 0.6    # the share of boxes that are there
LIMBS = tuple((f"{side} {root}", f"{side} {middle}", f"{side} {end}") for side in ("left", "right")
              for root, middle, end in (("shoulder", "elbow", "hand"), ("hip", "knee", "foot")))
# OpenPose-18 index of what each named point of the skeleton is; the figure has no eyes or ears.
OPENPOSE = {"head": 0, "neck": 1, "right shoulder": 2, "right elbow": 3, "right hand": 4, "left shoulder": 5,
            "left elbow": 6, "left hand": 7, "right hip": 8, "right knee": 9, "right foot": 10, "left hip": 11,
            "left knee": 12, "left foot": 13}


def albedo(hue: float, saturation: float) -> Tensor:
    """RGB [3] of a hue in degrees, with a brightest channel of 1 and a darkest of 1 - saturation."""
    channels = [abs((hue / 60 + shift) % 6 - 3) - 1 for shift in (0, 4, 2)]
    return torch.tensor([1 - saturation * (1 - min(max(c, 0.0), 1.0)) for c in channels])


JOINT_COLORS = torch.stack([albedo(h, JOINT_SATURATION) for h in JOINT_HUES])
CLOTHES_COLORS = torch.stack([albedo(h, CLOTHES_SATURATION) for h in CLOTHES.values()])
SCENE_COLORS = torch.stack([albedo(h, SCENE_SATURATION) for h in SCENES.values()])


@dataclass
class Sample:
    """B images and what is true of them."""
    image: Tensor      # [B, 3, H, W], 0 to 1
    nearness: Tensor   # [B, H, W], 0 (far) to 1 (near)
    joints: Tensor     # [B, 7, 2], in the order of JOINTS
    keypoints: Tensor  # [B, 18, 3], OpenPose order: x, y and 1 where the figure has that point
    height: Tensor     # [B], from the top of the head to the lower foot, pixels
    shirt: Tensor      # [B], index into CLOTHES
    trousers: Tensor   # [B], index into CLOTHES
    scene: Tensor      # [B], index into SCENES
    figure: Tensor     # [B, H, W], boolean: where the figure covers the scene

    def prompts(self) -> list[str]:
        clothes, scenes = list(CLOTHES), list(SCENES)
        return [f"a figure in a {clothes[s]} shirt and {clothes[t]} trousers, {scenes[w]}"
                for s, t, w in zip(self.shirt, self.trousers, self.scene)]


def _pose(batch: int, rng: torch.Generator) -> dict[str, Tensor]:
    """Named points [B, 2] of figures in figure units (about 41 from head to foot), the pelvis at the origin."""
    def uniform(low, high):
        return low + (high - low) * torch.rand(batch, generator=rng)

    def polar(angle, length):  # degrees from straight down, positive to the image's right
        angle = angle * (math.pi / 180)
        return torch.stack([angle.sin(), angle.cos()], -1) * length

    lean = uniform(-14, 14)
    points = {"pelvis": torch.zeros(batch, 2)}
    points["neck"] = -polar(lean, 12.0)
    points["head"] = points["neck"] - polar(lean + uniform(-15, 15), 6.5)
    for side, sign in (("left", 1), ("right", -1)):  # the figure faces us: its left is the image's right
        arm, leg = uniform(15, 150), uniform(4, 36)
        shoulder = points["neck"] + torch.tensor([3.2 * sign, 0.6])
        elbow = shoulder + polar(sign * arm, 7.2)
        hip = torch.tensor([2.0 * sign, 0.5]).expand(batch, 2)
        knee = hip + polar(sign * leg, 8.4)
        points |= {f"{side} shoulder": shoulder, f"{side} elbow": elbow, f"{side} hip": hip, f"{side} knee": knee,
                   f"{side} hand": elbow + polar(sign * (arm + uniform(-25, 60)), 7.2),
                   f"{side} foot": knee + polar(sign * (leg - uniform(0, 28)), 8.4)}
    return points


def _apart(points: dict[str, Tensor]) -> Tensor:
    """Which figures [B] have no bead hidden behind another."""
    joints = torch.stack([points[j] for j in JOINTS], 1)
    distance = torch.cdist(joints, joints) + 99 * torch.eye(len(JOINTS))
    return distance.flatten(1).min(1).values > 5.2


def _visible_poses(batch: int, rng: torch.Generator) -> dict[str, Tensor]:
    kept = None
    while kept is None or len(kept["neck"]) < batch:
        points = _pose(2 * batch, rng)
        good = _apart(points)
        points = {k: v[good] for k, v in points.items()}
        kept = points if kept is None else {k: torch.cat([kept[k], v]) for k, v in points.items()}
    return {k: v[:batch] for k, v in kept.items()}


class Canvas:
    """Paints one surface after another, nearer ones last; edges are smoothed over one pixel."""

    def __init__(self, batch: int, height: int, width: int):
        self.x = (torch.arange(width) + 0.5).view(1, 1, width)
        self.y = (torch.arange(height) + 0.5).view(1, height, 1)
        self.image = torch.zeros(batch, 3, height, width)
        self.nearness = torch.zeros(batch, height, width)

    def paint(self, distance: Tensor, color: Tensor, nearness: Tensor) -> None:
        """`distance` [B, H, W] outside (>0) the shape in pixels; `color` [B, 3]; `nearness` broadcast to [B, H, W]."""
        cover = (0.5 - distance).clamp(0, 1)
        light = (DARKEST + (1 - DARKEST) * nearness).expand_as(cover)
        lit = color[:, :, None, None] * light[:, None]
        self.image += cover[:, None] * (lit - self.image)
        self.nearness = torch.where(cover >= 0.5, nearness.expand_as(cover), self.nearness)

    def capsule(self, a: Tensor, b: Tensor, radius: Tensor) -> Tensor:
        """Distance [B, H, W] from the segment a-b ([B, 2] each) thickened by `radius` [B]."""
        ax, ay = a[:, 0, None, None], a[:, 1, None, None]
        dx, dy = (b - a)[:, 0, None, None], (b - a)[:, 1, None, None]
        px, py = self.x - ax, self.y - ay
        along = ((px * dx + py * dy) / (dx * dx + dy * dy).clamp(min=1e-6)).clamp(0, 1)
        return torch.hypot(px - along * dx, py - along * dy) - radius[:, None, None]

    def box(self, left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
        sides = [left[:, None, None] - self.x, self.x - right[:, None, None],
                 top[:, None, None] - self.y, self.y - bottom[:, None, None]]
        return torch.maximum(torch.maximum(sides[0], sides[1]), torch.maximum(sides[2], sides[3]))


@dataclass
class Plan:
    """Everything chosen about B scenes, at no size yet; places and lengths are shares of the image's."""
    shirt: Tensor               # [B], index into CLOTHES
    trousers: Tensor            # [B], index into CLOTHES
    scene: Tensor               # [B], index into SCENES
    horizon: Tensor             # [B], of the height
    wall: Tensor                # [B], nearness of the back wall
    feet: Tensor                # [B], of the height: where the figure stands
    places: Tensor              # [2, B], of the floor's depth: the two boxes, the nearer one last
    boxes: list[Tensor]         # of each box [4, B]: x, width, height, present if below BOXES_SHOWN
    tall: Tensor                # [B], of the image: the figure
    points: dict[str, Tensor]   # [B, 2] each, figure units: the pose
    x: Tensor                   # [B], of the room to the sides of the figure
    moved: dict[str, Tensor] | None = None  # limbs moved since, in the place and scale of `points`


def _dice(seed: int | None, rng: torch.Generator | None) -> torch.Generator:
    """`rng`, or a new one from `seed`."""
    if rng is not None:
        return rng
    if seed is None:
        raise TypeError("give a seed or an rng")
    return torch.Generator().manual_seed(seed)


def plan(batch: int, *, seed: int | None = None, rng: torch.Generator | None = None) -> Plan:
    """`batch` random scenes, the same ones for the same `seed`."""
    rng = _dice(seed, rng)

    def uniform(low, high):
        return low + (high - low) * torch.rand(batch, generator=rng)

    def choice(n):
        return torch.randint(n, (batch,), generator=rng)

    shirt, trousers, scene = choice(len(CLOTHES)), choice(len(CLOTHES)), choice(len(SCENES))
    horizon, wall, feet = uniform(0.22, 0.6), uniform(0.0, 0.3), uniform(0.80, 0.96)
    places = torch.stack([uniform(0, 1), uniform(0, 1)]).sort(0).values
    boxes = [torch.stack([uniform(0, 1), uniform(0.14, 0.34), uniform(0.10, 0.42), uniform(0, 1)]) for _ in range(2)]
    tall = uniform(0.60, 0.76)
    points = _visible_poses(batch, rng)
    return Plan(shirt, trousers, scene, horizon, wall, feet, places, boxes, tall, points, uniform(0, 1))


def repose(plan: Plan, *, seed: int | None = None, rng: torch.Generator | None = None) -> Plan:
    """The same figures in the same scenes, in new poses at new places."""
    rng = _dice(seed, rng)
    points = _visible_poses(len(plan.x), rng)
    return replace(plan, points=points, x=torch.rand(len(plan.x), generator=rng), moved=None)


def move_limb(plan: Plan, *, seed: int | None = None, rng: torch.Generator | None = None) -> Plan:
    """The same figures standing where they stand, with one arm or leg moved."""
    rng = _dice(seed, rng)
    batch = len(plan.x)
    limb = torch.randint(len(LIMBS), (batch,), generator=rng)
    moved = {name: p.clone() for name, p in plan.points.items()}
    waiting = torch.ones(batch, dtype=torch.bool)
    for _ in range(100):  # until no bead is hidden; a figure that finds no such pose in a hundred keeps its own
        if not waiting.any():
            break
        fresh = _pose(batch, rng)
        trial = {name: p.clone() for name, p in plan.points.items()}
        for index, (root, middle, end) in enumerate(LIMBS):
            here = (limb == index)[:, None]
            for name in (middle, end):
                trial[name] = torch.where(here, plan.points[root] + fresh[name] - fresh[root], trial[name])
        good = waiting & _apart(trial)
        moved = {name: torch.where(good[:, None], trial[name], p) for name, p in moved.items()}
        waiting &= ~good
    return replace(plan, moved=moved)


def render(plan: Plan, height: int = 64, width: int = 64) -> Sample:
    """The scenes as images of `height` by `width` pixels."""
    batch = len(plan.x)
    horizon, feet = plan.horizon * height, plan.feet * height

    def floor(row):
        return plan.wall + (1 - plan.wall) * ((row - horizon) / (height - horizon)).clamp(0, 1)

    canvas = Canvas(batch, height, width)
    everywhere = torch.full((batch, height, width), -1.0)
    canvas.paint(everywhere, SCENE_COLORS[plan.scene], floor(canvas.y[0].expand(height, batch)).T[:, :, None])
    _paint_boxes(canvas, plan, floor)
    near = floor(feet)
    tall = plan.tall * min(height, 1.2 * width) * (0.7 + 0.3 * near)
    points, unit = _standing(plan, tall, feet, width)
    bare = canvas.image.clone()
    _paint_figure(canvas, plan, points, unit, near[:, None, None])
    keypoints = torch.zeros(batch, 18, 3)
    for name, index in OPENPOSE.items():
        keypoints[:, index, :2], keypoints[:, index, 2] = points[name], 1.0
    return Sample(canvas.image, canvas.nearness, torch.stack([points[j] for j in JOINTS], 1), keypoints, tall,
                  plan.shirt, plan.trousers, plan.scene, (canvas.image != bare).any(1))


def _paint_boxes(canvas: Canvas, plan: Plan, floor: Callable[[Tensor], Tensor]) -> None:
    """Two boxes behind the figure, the nearer one painted last; `floor(row)` is how near the floor is there."""
    batch, _, height, width = canvas.image.shape
    horizon, feet, grey = plan.horizon * height, plan.feet * height, torch.ones(batch, 3)
    for place, (x, wide, tall, present) in zip(plan.places, plan.boxes):
        base = horizon + 2 + place * (feet - horizon - 4).clamp(min=0)
        near = floor(base)
        scale = (0.55 + near) * min(height, width)
        shape = canvas.box(x * width - wide * scale / 2, base - tall * scale, x * width + wide * scale / 2, base)
        canvas.paint(torch.where((present < BOXES_SHOWN)[:, None, None], shape, 1.0), grey, near[:, None, None])


def _standing(plan: Plan, tall: Tensor, feet: Tensor, width: int) -> tuple[dict[str, Tensor], Tensor]:
    """The joints in pixels, by name, of figures that are so `tall` and stand on the rows `feet`; and the size of one unit of the plan."""
    points = plan.points
    top = points["head"][:, 1] - HEAD_RADIUS
    bottom = torch.maximum(points["left foot"][:, 1], points["right foot"][:, 1]) + BEAD_RADIUS
    unit = tall / (bottom - top)
    everyone = torch.stack(list(points.values()), 1)
    left, right = everyone[..., 0].min(1).values * unit - 3, everyone[..., 0].max(1).values * unit + 3
    room = (width - (right - left)).clamp(min=0)
    shift = torch.stack([plan.x * room - left, feet - bottom * unit], -1)
    return {name: p * unit[:, None] + shift for name, p in (plan.moved or points).items()}, unit


def _paint_figure(canvas: Canvas, plan: Plan, points: dict[str, Tensor], unit: Tensor, near: Tensor) -> None:
    def limb(a, b, radius, color):
        canvas.paint(canvas.capsule(points[a], points[b], radius * unit), color, near)

    top_color, leg_color = CLOTHES_COLORS[plan.shirt], CLOTHES_COLORS[plan.trousers]
    for side in ("left", "right"):
        limb(f"{side} hip", f"{side} knee", 2.0, leg_color)
        limb(f"{side} knee", f"{side} foot", 1.8, leg_color)
    limb("pelvis", "neck", 3.4, top_color)
    for side in ("left", "right"):
        limb(f"{side} shoulder", f"{side} elbow", 1.7, top_color)
        limb(f"{side} elbow", f"{side} hand", 1.5, top_color)
    for joint, color in zip(JOINTS, JOINT_COLORS):
        limb(joint, joint, HEAD_RADIUS if joint == "head" else BEAD_RADIUS, color.expand(len(plan.x), 3))


def draw(batch: int, height: int = 64, width: int = 64, *, seed: int | None = None,
         rng: torch.Generator | None = None) -> Sample:
    """`batch` random images of `height` by `width` pixels, the same ones for the same `seed`."""
    return render(plan(batch, seed=seed, rng=rng), height, width)


def step(image: Tensor) -> Tensor:
    """The largest change of a channel over two pixels, across or down, of images [B, 3, H, W]; [B, H, W]."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]).abs().amax(1)
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]).abs().amax(1)
    return torch.maximum(across, down)


def edges(image: Tensor) -> Tensor:
    """Soft edges of images [B, 3, H, W], white where a channel steps by 0.4 or more; [B, H, W] in 0 to 1."""
    return (step(image) / 0.4).clamp(max=1)
