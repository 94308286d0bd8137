"""Reads a demo image without any network, by the three rules of `world.py`, and says how well a target was met.

Images are [B, 3, H, W] in 0 to 1.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from .world import BEAD_RADIUS, CLOTHES_COLORS, DARKEST, JOINT_COLORS, JOINTS, SCENE_COLORS, SCENES, Sample, step

BEAD_PIXELS = 3.5     # pixels of a bead's hue within 5 x 5 that count as one; a drawn one has 6 to 16
EDGE_STEP = 0.14      # change of a channel over two pixels that counts as an edge
PATCH = 8             # side of the squares that texture is measured on


def _light(image: Tensor) -> Tensor:
    """The brightest channel [B, H, W]."""
    return image.amax(1)


def _color(image: Tensor) -> Tensor:
    """Color without light: brightest channel 1, [B, 3, H, W]."""
    return image / _light(image).clamp(min=0.05)[:, None]


def _saturation(image: Tensor) -> Tensor:
    return 1 - _color(image).amin(1)


def joints(image: Tensor) -> tuple[Tensor, Tensor]:
    """Positions [B, 7, 2] (x, y) of the beads and which of them were found [B, 7]."""
    distance = (_color(image)[:, None] - JOINT_COLORS[None, :, :, None, None]).norm(dim=2)
    likeness = (1 - distance / 0.45).clamp(min=0).sqrt() * (_light(image) > 0.25)[:, None]
    mass = F.avg_pool2d(likeness, 5, 1, 2) * 25
    batch, count, height, width = mass.shape
    peak, where = mass.flatten(2).max(-1)
    row, column = where // width, where % width
    x, y = torch.arange(width).add(0.5), torch.arange(height).add(0.5)
    near = (((x.view(1, 1, 1, -1) - column[..., None, None] - 0.5) ** 2
             + (y.view(1, 1, -1, 1) - row[..., None, None] - 0.5) ** 2) < 16) * likeness
    total = near.flatten(2).sum(-1).clamp(min=1e-6)
    position = torch.stack([(near * x).flatten(2).sum(-1), (near * y.view(-1, 1)).flatten(2).sum(-1)], -1) / total[..., None]
    return position, peak >= BEAD_PIXELS


def nearness(image: Tensor) -> Tensor:
    """[B, H, W], 0 (far) to 1 (near)."""
    return ((_light(image) - DARKEST) / (1 - DARKEST)).clamp(0, 1)


def edges(image: Tensor) -> Tensor:
    """Where any channel steps by EDGE_STEP over two pixels: [B, H, W], boolean."""
    return step(image) >= EDGE_STEP


def shirt(image: Tensor) -> Tensor:
    """Where the shirt is, sleeves and all: clothes above the pelvis; [B, H, W], boolean, nowhere without a pelvis."""
    position, found = joints(image)
    saturation, pelvis = _saturation(image), JOINTS.index("pelvis")
    y = torch.arange(image.shape[-2]).add(0.5).view(1, -1, 1)
    return (saturation > 0.3) & (saturation < 0.8) & (y < position[:, pelvis, 1, None, None]) & found[:, pelvis, None, None]


def pck(image: Tensor, target: Tensor, height: Tensor, within: float = 0.1) -> Tensor:
    """Share of the 7 joints found `within` this share of the figure's `height` [B] of `target` [B, 7, 2]; [B]."""
    position, found = joints(image)
    return (found & ((position - target).norm(dim=-1) <= within * height[:, None])).float().mean(1)


def valid(image: Tensor) -> Tensor:
    """1 where every joint was found, else 0; [B]."""
    return joints(image)[1].all(1).float()


def mae(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the nearness against `target` [B, H, W]; [B]."""
    return (nearness(image) - target).abs().flatten(1).mean(1)


def fscore(image: Tensor, target: Tensor) -> Tensor:
    """F-score of the edges against those of the images `target`, one pixel of shift allowed; [B]."""
    found, wanted = edges(image).float()[:, None], edges(target).float()[:, None]

    def share(of: Tensor, near: Tensor) -> Tensor:
        hit = of * F.max_pool2d(near, 3, 1, 1)
        return hit.flatten(1).sum(1) / of.flatten(1).sum(1).clamp(min=1)

    precision, recall = share(found, wanted), share(wanted, found)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-6)


def texture(image: Tensor) -> Tensor:
    """Roughness of the background in grey levels (of 255), [B].

    The median, over squares without figure, of the standard deviation of the light around a plane.
    """
    saturation = _saturation(image)[:, None]
    light = _light(image)[:, None] * 255
    batch, _, height, width = light.shape

    def squares(x: Tensor) -> Tensor:
        return F.unfold(x, PATCH, stride=PATCH).transpose(1, 2)  # [B, squares, PATCH * PATCH]

    grid = torch.arange(PATCH).float() - (PATCH - 1) / 2
    plane = torch.stack([torch.ones(PATCH, PATCH), grid.expand(PATCH, PATCH), grid[:, None].expand(PATCH, PATCH)])
    basis = plane.flatten(1) / plane.flatten(1).norm(dim=1, keepdim=True)
    patches = squares(light)
    residual = patches - (patches @ basis.T) @ basis
    deviation = residual.square().mean(-1).sqrt()
    deviation[(squares(saturation) > 0.4).any(-1)] = torch.nan
    return deviation.nanmedian(1).values


def colors(image: Tensor) -> Tensor:
    """The colors of shirt, trousers and scene [B, 3, 3] without light, as RGB with a brightest channel of 1.

    The shirt is looked for between neck and pelvis, the trousers below the pelvis, the scene away from anything
    colored. NaN for a garment without any pixel or in an image without neck or pelvis.
    """
    position, found = joints(image)
    color, saturation = _color(image), _saturation(image)
    height, width = saturation.shape[1:]
    x, y = torch.arange(width).add(0.5).view(1, 1, -1), torch.arange(height).add(0.5).view(1, -1, 1)
    neck, pelvis = position[:, JOINTS.index("neck")], position[:, JOINTS.index("pelvis")]
    have = found[:, JOINTS.index("neck")] & found[:, JOINTS.index("pelvis")]
    cloth = (saturation > 0.3) & (saturation < 0.8)
    middle = (neck + pelvis)[:, :, None, None] / 2
    torso = cloth & (torch.hypot(x - middle[:, 0], y - middle[:, 1]) < 2.5) & have[:, None, None]
    legs = cloth & (y > pelvis[:, 1, None, None] + BEAD_RADIUS + 1) & have[:, None, None]
    ground = F.max_pool2d((saturation > 0.3).float()[:, None], 3, 1, 1)[:, 0] == 0
    return torch.stack([color.masked_fill(~where[:, None], torch.nan).flatten(2).nanmedian(-1).values
                        for where in (torso, legs, ground)], 1)


def color_error(image: Tensor, shirt: Tensor, trousers: Tensor, scene: Tensor) -> Tensor:
    """Mean distance of the shirt's, the trousers' and the scene's color from what the prompt asked for; [B].

    An image without neck, pelvis or any pixel of a garment gets the error 1 for it.
    """
    wanted = torch.stack([CLOTHES_COLORS[shirt], CLOTHES_COLORS[trousers], SCENE_COLORS[scene]], 1)
    return (colors(image) - wanted).norm(dim=-1).nan_to_num(1.0).mean(1)


def coarse_error(image: Tensor, target: Tensor, cells: int) -> Tensor:
    """Mean distance, channel by channel, of the mean colors of `cells` x `cells` parts from those of the images `target`; [B]."""
    return (F.adaptive_avg_pool2d(image, cells) - F.adaptive_avg_pool2d(target, cells)).abs().flatten(1).mean(1)


def clothes_change(image: Tensor, reference: Tensor) -> Tensor:
    """Mean distance of the shirt's and the trousers' color from those in another image; [B]; 1 where one is missing."""
    return (colors(image) - colors(reference))[:, :2].norm(dim=-1).nan_to_num(1.0).mean(1)


def distance(image: Tensor, joint: Tensor, place: Tensor, start: Tensor) -> Tensor:
    """Pixels from the joint with index `joint` [B] to its `place` [B, 2]; of `start` where the joint is not found. [B]."""
    position, found = joints(image)
    each = torch.arange(len(image))
    at = torch.where(found[each, joint][:, None], position[each, joint], start)
    return (at - place).norm(dim=-1)


def psnr(image: Tensor, reference: Tensor, where: Tensor) -> Tensor:
    """Peak signal to noise ratio in dB within `where` [B, H, W], boolean; [B]."""
    error = ((image - reference) ** 2).mean(1)
    mean = (error * where).flatten(1).sum(1) / where.flatten(1).sum(1)
    return -10 * mean.clamp(min=1e-10).log10()


def arms_raised(image: Tensor) -> Tensor:
    """1 where both hands are above the neck, [B]."""
    position, found = joints(image)
    hands, neck = [JOINTS.index("left hand"), JOINTS.index("right hand")], JOINTS.index("neck")
    return ((position[:, hands, 1] < position[:, neck, None, 1]) & found[:, hands]).all(1).float()


def dusk(image: Tensor) -> Tensor:
    """1 where the scene has the color of dusk more than of any other, [B]."""
    distance = (colors(image)[:, 2, None] - SCENE_COLORS).norm(dim=-1)
    return (distance.argmin(1) == list(SCENES).index("dusk")).float()


ATTRIBUTES = {"arms raised": arms_raised, "dusk": dusk}


def figures(image: Tensor, scene: Sample, said: Sample) -> dict[str, float]:
    """The means of all measures over images that had `scene` as their target and the prompts of `said`."""
    measures = {"pck": pck(image, scene.joints, scene.height), "pck05": pck(image, scene.joints, scene.height, 0.05),
                "mae": mae(image, scene.nearness),
                "fscore": fscore(image, scene.image), "valid": valid(image), "texture": texture(image),
                "color_error": color_error(image, said.shirt, said.trousers, said.scene)}
    return {name: round(values.mean().item(), 4) for name, values in measures.items()}
