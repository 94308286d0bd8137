"""Images that heads were trained to read: drawn from keypoints, fitted to a readout, moved to a control range."""
import torch
import torch.nn.functional as F
from torch import Tensor

# The OpenPose body in its usual colors: limbs as pairs of the 18 keypoints (0 nose, 1 neck, 2-4 right arm, 5-7 left
# arm, 8-10 right leg, 11-13 left leg, 14-17 eyes and ears), drawn in this order, a limb in 0.6 of its color.
LIMBS = ((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
         (0, 14), (14, 16), (0, 15), (15, 17))
HUES = ((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
        (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255),
        (255, 0, 255), (255, 0, 170), (255, 0, 85))
LIMB_SHADE = 0.6
THIN = 0.5  # of the brightness of lines must be left where they are made smaller; of HED's 0.6 is, of Canny's from 512 pixels to 64 0.1
STICK = 4 / 512  # half-width of a limb and radius of a joint, as a share of the canvas's shorter side


def draw_pose(keypoints: Tensor, size: tuple[int, int], extent: tuple[float, float] | None = None) -> Tensor:
    """OpenPose skeletons on black, [B, 3, H, W] in 0 to 1, from `keypoints` [B, people, 18, 3] (x, y, confidence).

    `extent` (height, width) is the canvas that x and y refer to, by default `size` itself. A keypoint of confidence 0
    is left out together with its limbs.
    """
    height, width = size
    extent = extent or size
    scale = torch.tensor([width / extent[1], height / extent[0]])
    x = torch.arange(width).add(0.5).view(1, 1, width)
    y = torch.arange(height).add(0.5).view(1, height, 1)
    stick = STICK * min(height, width)
    canvas = torch.zeros(len(keypoints), 3, height, width)

    def paint(cover: Tensor, shown: Tensor, color: tuple[int, int, int], shade: float) -> None:
        cover = cover.clamp(0, 1) * shown[:, None, None]
        canvas.add_(cover[:, None] * (torch.tensor(color).view(3, 1, 1) / 255 * shade - canvas))

    for person in keypoints.unbind(1):
        at, seen = person[..., :2] * scale, (person[..., 2] > 0).float()
        for (a, b), color in zip(LIMBS, HUES):
            middle, half = (at[:, a] + at[:, b]) / 2, (at[:, b] - at[:, a]) / 2
            own = half.norm(dim=-1)[:, None, None]
            length = own.clamp(min=stick)  # a shorter limb is a dot as wide as a joint
            ux, uy = torch.where(own > 0, half[:, 0, None, None] / own, 1.0), half[:, 1, None, None] / own.clamp(min=1e-30)
            dx, dy = x - middle[:, 0, None, None], y - middle[:, 1, None, None]
            along, across = (dx * ux + dy * uy) / length, (dy * ux - dx * uy) / stick
            radius = torch.hypot(along, across)  # 1 on the ellipse; over its slope it is the distance in pixels
            slope = torch.hypot(along / length, across / stick) / radius.clamp(min=1e-6)
            paint(0.5 - (radius - 1) / slope.clamp(min=1e-6), seen[:, a] * seen[:, b], color, LIMB_SHADE)
        for k, color in enumerate(HUES):
            distance = torch.hypot(x - at[:, k, 0, None, None], y - at[:, k, 1, None, None])
            paint(0.5 - (distance - stick), seen[:, k], color, 1.0)
    return canvas


def fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    """`image` [B, C, h, w] cut to the shape of `size` (H, W) around its middle and resized, smoothed when it shrinks.

    The cut is the one that the host makes for ControlNet images, so that both kinds of control line up.
    """
    return resized(cut(image, size), size)


def cut(image: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = image.shape[-2:]
    ratio = size[1] / size[0]
    cut_height, cut_width = min(height, max(1, round(width / ratio))), min(width, max(1, round(height * ratio)))
    top, left = (height - cut_height) // 2, (width - cut_width) // 2
    return image[..., top:top + cut_height, left:left + cut_width]


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[-2:] == tuple(size):
        return image
    return F.interpolate(image, size=tuple(size), mode="bilinear", antialias=True)


def fit_for(kind: str, image: Tensor, size: tuple[int, int]) -> Tensor:
    """`fit`, of what a head of this kind should read."""
    return fit_lines(image, size) if kind == "edge" else fit(image, size)


def fit_lines(image: Tensor, size: tuple[int, int]) -> Tensor:
    """`fit`, of bright lines on black. Where they are so thin that their images would be hardly brighter than black, as Canny's are, each pixel
    has the brightest one that falls into it, so that lines are as bright as before, and a pixel wide."""
    image = cut(image, size)
    mean, brightest = resized(image, size), F.adaptive_max_pool2d(image, size)
    lines = brightest > 0.5 * brightest.amax((1, 2, 3), keepdim=True)
    kept = (mean * lines).sum((1, 2, 3), keepdim=True) / (brightest * lines).sum((1, 2, 3), keepdim=True).clamp(min=1e-30)
    return torch.where(kept < THIN, brightest, mean)


def to_range(image: Tensor, control_range: tuple[float, float]) -> Tensor:
    """An image in 0 to 1 moved to the control range of a head."""
    low, high = control_range
    return low + (high - low) * image.clamp(0, 1)
