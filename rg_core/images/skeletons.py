"""Images of skeletons as people have them, brought to what heads were trained on: OpenPose's colors and sticks, on black."""
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from . import strokes
from .control_images import HUES, LIMB_SHADE, LIMBS, STICK

SIDE = 512           # of a canvas's shorter side, at which the sticks of all drawers are as thick as heads know them; smaller ones are left alone
NEAR = (0.75, 1.35)  # times as thick as they should be, sticks are left alone
MOST = 8             # times as thick is no stick
GROUND = 0.1         # brightness of what is not black
LOOKED_AT = 1024     # pixels of a side, in which colors are looked for
OFF = 0.08           # how far colors may be off
SURE, FEW = 1.5, 6   # how much better another order of channels must fit, by how many places at least
SHADE = 0.85         # brightness between that of limbs and that of joints


def without_ground(image: Tensor) -> Tensor:
    """`image` [B, 3, H, W] of a skeleton on white or grey, on black. Its colors are pure, so what all channels have is the ground's share, also in
    smooth edges."""
    return image - image.amin(1, keepdim=True)


def has_ground(image: Tensor) -> Tensor:
    """Which of `image` [B, 3, H, W] are not mostly black: [B]."""
    return image.amax(1).flatten(1).median(1).values > GROUND


def as_trained(image: Tensor) -> Tensor:
    """`image` [B, 3, H, W], skeletons on black, with sticks as thick as heads know them."""
    if min(image.shape[-2:]) < SIDE:
        return image
    return torch.cat([one_as_trained(one) for one in image.split(1)])


def one_as_trained(image: Tensor) -> Tensor:
    side, colorful = min(image.shape[-2:]), image.amax(1)[0] - image.amin(1)[0] > strokes.LIT
    found, wanted = strokes.half_width(colorful), STICK * side
    if not 0 < found < MOST * wanted or NEAR[0] * wanted <= found <= NEAR[1] * wanted:
        return image
    scale = SIDE / side
    size = [round(n * scale) for n in image.shape[-2:]]
    if found < wanted:  # the brightest of each window, so that a thin line is as bright as before
        changed = strokes.thicker(F.adaptive_max_pool2d(image, size), (wanted - found) * scale - (0.5 if scale < 1 else 0))
    else:
        changed = strokes.thinner(F.interpolate(image, size, mode="bilinear", antialias=True) if scale < 1 else image, wanted * scale)
    return F.interpolate(changed, image.shape[-2:], mode="nearest-exact")


def channels(image: Tensor) -> tuple[bool, bool]:
    """Whether red and blue are swapped in the joints and in the limbs of skeletons [B, 3, H, W]. Each joint has a color of its own, and so has each
    limb, with most drawers in a darker shade; which of them touch says in which order the channels are. (False, False) where that cannot be told."""
    some = image[..., ::max(1, image.shape[-2] // LOOKED_AT), ::max(1, image.shape[-1] // LOOKED_AT)]
    joints, limbs = (nearest(some, shade) for shade in (1.0, LIMB_SHADE))
    belongs = torch.tensor([[k in limb for limb in (*LIMBS, ())] for k in range(len(HUES))])
    orders = list(itertools.product((False, True), repeat=2))
    if (limbs >= 0).sum() < 0.1 * (joints >= 0).sum():  # limbs as bright as joints
        limbs, belongs, orders = joints, belongs | belongs.T, [(False, False), (True, True)]
    touching = torch.zeros(len(HUES), len(HUES))
    for k in set(joints.unique().tolist()) - {-1}:
        beside = F.max_pool2d((joints == k).float()[:, None], 5, 1, 2)[:, 0] > 0
        touching[k] = torch.bincount(limbs[beside & (limbs >= 0)], minlength=len(HUES)) > 0
    touching.fill_diagonal_(0)  # a joint and a limb of one color
    order = {False: list(range(len(HUES))), True: [HUES.index(hue[::-1]) for hue in HUES]}
    fits = {(a, b): float((touching * belongs[order[a]][:, order[b]]).sum()) for a, b in orders}
    best = max(fits, key=lambda swapped: fits[swapped])
    return best if fits[best] >= FEW and fits[best] > SURE * fits[False, False] else (False, False)


def nearest(image: Tensor, shade: float) -> Tensor:
    """Which of HUES, which go once around the color circle, each pixel of [B, 3, H, W] has in this shade, -1 for none: [B, H, W]."""
    red, green, blue = image.unbind(1)
    angle = torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * torch.pi) * len(HUES)
    pure = image / shade
    wanted = torch.tensor(HUES, device=image.device)[angle.round().long() % len(HUES)].movedim(-1, 1) / 255
    return torch.where((pure - wanted).abs().amax(1) < OFF / shade, angle.round().long() % len(HUES), -1)


def in_order(image: Tensor, joints: bool, limbs: bool) -> Tensor:
    """`image` [B, 3, H, W] with red and blue swapped back in the joints, which are bright, and in the limbs, as `channels` says."""
    if joints == limbs:
        return image.flip(1) if joints else image
    return torch.where((image.amax(1, keepdim=True) > SHADE) == joints, image.flip(1), image)
