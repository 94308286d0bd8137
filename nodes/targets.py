"""Pose, Depth and Edge Target: what the user has, as something to steer towards."""
import math

import torch
from comfy_api.latest import io
from torch import Tensor

from ..rg_core.pictures import fit
from ..rg_core.regions import repeat
from ..rg_core.targets import Spatial, Target
from . import checks, skeletons
from .keypoints import drawn
from .log import log
from .types import CATEGORY, Guidance, Head, PoseKeypoint

# What makes a depth map look odd: channels that differ, values outside of 0 to 1, a top that is nearer than the bottom.
COLOURED, OVERSHOOT, UPSIDE_DOWN = 0.1, 0.1, 0.2
NO_DEPTH, BYTES = 30, 255  # times as far as half of a map, and beyond what bytes hold, a value is no distance
SOME, GAP = 0.01, 0.1      # of a map, and of half of its distances: more zeros than this with nothing below that beside them are none
NARROW = 0.15       # of the range from black to white: maps that use less of it are of another scale
GREY_GROUND = 0.2
WEIGHT = io.Float.Input("weight", default=1.0, min=0.0, max=10.0, step=0.05,
                        tooltip="How hard this target pulls. Where it acts alone, the weight multiplies strength. 0 turns it off.")
CHAIN = Guidance.Input("guidance", optional=True, tooltip="Other targets that should act at the same time.")


def when(target: type[Target], tooltip: str | None = None) -> list:
    """Weight and percents, with the defaults of this kind of target."""
    return [WEIGHT,
            io.Float.Input("start_percent", default=target.start, min=0.0, max=1.0, step=0.01),
            io.Float.Input("end_percent", default=target.end, min=0.0, max=1.0, step=0.01, tooltip=tooltip)]


def inputs(picture: list, kind: str, *more) -> list:
    return [
        Head.Input("head", tooltip=f"A head that reads {kind}, for the model that you sample with."),
        *picture,
        *when(Spatial, "The layout of a picture is settled by 0.5; later guidance takes longer and matches more exactly."),
        *more,
        io.Mask.Input("mask", optional=True, tooltip="Where the target acts: white. The same size as the target."),
        CHAIN,
    ]


def chained(name: str, head, image: Tensor, weight: float, start: float, end: float, mask: Tensor | None,
            guidance: tuple | None) -> io.NodeOutput:
    node = f"{name.capitalize()} Target"
    checks.head_kind(node, head, name)
    return towards(node, head, image, weight, start, end, mask, guidance)


def towards(node: str, head, image: Tensor, weight: float, start: float, end: float, mask: Tensor | None, guidance: tuple | None) -> io.NodeOutput:
    """`image` [B, 3, h, w] is what `head` should read, from when it can."""
    checks.when(node, weight, start, end)
    start = checks.later_start(node, head, start, end)
    mask = checks.mask(node, mask)
    checks.same_size(node, mask, image)
    target = Spatial(name=head.kind, head=head, image=image, mask=mask, weight=weight, start=start, end=end)
    return io.NodeOutput((*(guidance or ()), target))


def present(node: str, image: Tensor, mask: Tensor | None) -> Tensor | None:
    """The mask without the skeletons [B, 3, H, W] in which nobody is: their pictures are not guided."""
    there = image.amax((1, 2, 3)) >= 1 / 255
    if there.all():
        return mask
    if not there.any():
        raise ValueError(f"{node}: the skeleton's picture is all black, so it holds no pose. Check what made it.")
    nobody = ", ".join(str(k) for k in ((~there).nonzero()[:, 0] + 1).tolist())
    log.warning("%s: there is nobody in picture %s of the pose, so it does not guide those pictures.", node, nobody)
    mask = torch.ones(1, 1, *image.shape[-2:]) if mask is None else mask
    both = math.lcm(len(mask), len(image))
    return repeat(mask, both) * repeat(there.to(mask), both).view(-1, 1, 1, 1)


class PoseTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutPoseTarget", display_name="Pose Target", category=CATEGORY,
            search_aliases=["openpose", "skeleton", "controlnet"],
            description="Steers towards a pose: the picture of an OpenPose skeleton, or keypoints, which it draws as one.",
            inputs=inputs([io.Image.Input("image", optional=True, tooltip="An OpenPose skeleton on black."),
                           PoseKeypoint.Input("keypoints", optional=True, tooltip="Instead of an image. A mask is fitted to their canvas.")], "pose"),
            outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, weight, start_percent, end_percent, image=None, keypoints=None, mask=None, guidance=None):
        node = "Pose Target"
        if (image is None) == (keypoints is None):
            raise ValueError(f"{node}: got {'neither image nor' if image is None else 'both image and'} keypoints. Connect one of them.")
        mask = checks.mask(node, mask)
        if image is None:
            image = drawn(node, keypoints)
            mask = None if mask is None else fit(mask.float(), image.shape[-2:])  # nobody sees the size that it is drawn in
        else:
            image, = skeletons.prepared(node, [checks.picture(node, image)])
        return chained("pose", head, image, weight, start_percent, end_percent, present(node, image, mask), guidance)


def depth_maps(node: str, images: list[Tensor], invert: bool, turn: str) -> list[Tensor]:
    """Depth maps [B, 3, h, w] as people have them, in 0 to 1 and grey; warns once of what does not look like one. `turn` says how to swap near
    and far there."""
    seen = []
    if any((image.amax(1) - image.amin(1)).max() > COLOURED for image in images):
        seen.append("it is coloured, and the mean of its colours is taken: only grey maps say by it what is nearer")
    greys = [image.float().mean(1) for image in images]
    maps = [[(x, None, None) if plain else in_range(x, invert, turn) for x, plain in zip(grey, usual(grey))] for grey in greys]
    found = [one for part in maps for one in part]
    for what in (1, 2):  # said of the first picture of which it is true
        k = next((k for k, about in enumerate(found) if about[what]), None)
        if k is not None:
            seen.append(f"in picture {k + 1} {found[k][what]}" if len(found) > 1 else found[k][what])
    images = [torch.stack([1 - x if invert else x for x, *_ in part]) for part in maps]
    single = [x for image in images for x in image]
    flat = [str(i) for i, x in enumerate(single, 1) if x.max() - x.min() < 1 / 255]
    if flat:
        seen.append(f"picture {', '.join(flat)} has one value everywhere, which asks for a flat wall")
    if sum(top_over_bottom(x) for x in single) / len(single) > UPSIDE_DOWN:
        seen.append(f"it is brighter, so nearer, at the top than at the bottom, as few pictures are; if white is far in it, {turn}")
    if seen:
        log.warning("%s: the depth map may not be what it should: %s.", node, "; ".join(seen))
    return [image[:, None].expand(-1, 3, -1, -1) for image in images]


def usual(maps: Tensor) -> list[bool]:
    """Which of [B, h, w] use the range from black to white, or hold one value."""
    low, high = maps.flatten(1).amin(1), maps.flatten(1).amax(1)
    return ((low >= -OVERSHOOT) & (high <= 1 + OVERSHOOT) & ((high - low >= NARROW) | (high - low <= 1 / 255))).tolist()


def in_range(x: Tensor, invert: bool, turn: str) -> tuple[Tensor, str | None, str | None]:
    """A depth map [h, w] in 0 to 1, what of it stands for no depth, and what was stretched. Each by itself, as heads know them."""
    there, none, stretched = has_depth(x, invert), None, None
    if there.any() and not there.all():
        odd = ", ".join(f"{value:.3g}" for value in x[~there].unique()[-3:].tolist())
        none = f"places of {odd} are taken to have no depth, and to be as far as the farthest"
        far = x[there].max() if invert else x[there].min()
        x = torch.where(there, x, torch.where(x > x[there].max(), x[there].max(), far))
    low, high = x.min(), x.max()
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        stretched = f"its values from {low:.3g} to {high:.3g} are stretched to 0 to 1; if they are distances, near is small, so {turn}"
    elif 1 / 255 < high - low < NARROW:  # as of 16 bits that count millimetres
        stretched = (f"it uses {high - low:.0%} of the range from black to white, which is stretched to all of it; if it holds distances, near is "
                     f"small, so {turn}")
    return (x if stretched is None else (x - low) / (high - low).clamp(min=1e-30)), none, stretched


def has_depth(x: Tensor, invert: bool) -> Tensor:
    """Where a map [h, w] of distances, if it is `invert`ed, holds one: renderers and cameras have huge values, negative ones or zeros elsewhere."""
    there, low, high = torch.ones_like(x, dtype=torch.bool), x.min(), x.max()
    rest = x[x < 0.999 * high]
    if high > BYTES and rest.numel() and rest.median() > 0:
        there &= x <= NO_DEPTH * rest.median()
    if low <= -1 and not ((x > 0.999 * low) & (x < 0)).any():
        there &= x >= 0
    rest = x[there & (x > 0)]
    if invert and (x == 0).float().mean() > SOME and rest.numel() and rest.min() > GAP * rest.median():
        there &= x != 0
    return there


def top_over_bottom(picture: Tensor) -> Tensor:
    """By how much the upper third of [h, w] is brighter than the lower."""
    third = max(1, len(picture) // 3)
    return picture[:third].mean() - picture[-third:].mean()


class DepthTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutDepthTarget", display_name="Depth Target", category=CATEGORY,
            search_aliases=["depth map", "controlnet"],
            description="Steers towards a depth map: white is near, black is far.",
            inputs=inputs([io.Image.Input("image", tooltip="A depth map, white near and black far, as MiDaS or Depth "
                                          "Anything give it.")], "depth",
                          io.Boolean.Input("invert", default=False, optional=True, tooltip="For maps in which white is far, or of distances.")),
            outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, image, weight, start_percent, end_percent, invert=False, mask=None, guidance=None):
        node = "Depth Target"
        image, = depth_maps(node, [checks.picture(node, image)], invert, "switch invert")
        return chained("depth", head, image, weight, start_percent, end_percent, mask, guidance)


def lines(node: str, images: list[Tensor]) -> list[Tensor]:
    """Edges [B, 3, h, w], grey; warns once where they look like black ones on white."""
    for image in images:
        checks.brightness(node, image)
    images = [image.mean(1, keepdim=True) for image in images]
    if sum(image.mean() for image in images) / len(images) > 0.5:
        log.warning("%s: the edges are mostly white, and they should be white lines on black. If yours are black on white, put Invert "
                    "Image before this node.", node)
    elif sum(image.median() for image in images) / len(images) > GREY_GROUND:
        log.warning("%s: the edges are on grey, and they should be white lines on black. Grey asks for faint edges everywhere.", node)
    return [image.expand(-1, 3, -1, -1) for image in skeletons.thick_enough(images)]


def as_painted(node: str, images: list[Tensor]) -> list[Tensor]:
    for image in images:
        checks.brightness(node, image)
    return images


# By kind, of which it is known what pictures [B, 3, h, w] should look like: what makes them so.
KNOWN = {"depth": lambda node, images: depth_maps(node, images, False, "put Invert Image before this node"), "edge": lines,
         "pose": skeletons.prepared}


class MapTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutMapTarget", display_name="Map Target", category=CATEGORY,
            search_aliases=["segmentation", "normal map", "controlnet"],
            description="Steers towards a picture of whatever a head reads, such as one from Fit Readout Head: normals, hair, a floor plan.",
            inputs=inputs([io.Image.Input("image", tooltip="What the head should read, painted as in the images that the head was made from.")],
                          "a map"),
            outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, image, weight, start_percent, end_percent, mask=None, guidance=None):
        node = "Map Target"
        if head.output_head is None or head.pooled or head.kind == "keypoints":
            raise ValueError(f"{node}: a head that reads {head.kind} gives no picture to steer by. Choose one that reads a map, such as Fit Readout "
                             "Head makes.")
        image, = KNOWN.get(head.kind, as_painted)(node, [checks.picture(node, image)])
        return towards(node, head, image, weight, start_percent, end_percent, mask, guidance)


class EdgeTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutEdgeTarget", display_name="Edge Target", category=CATEGORY,
            search_aliases=["canny", "lineart", "hed", "controlnet"],
            description="Steers towards edges: white lines on black.",
            inputs=inputs([io.Image.Input("image", tooltip="Edges, white on black, as HED or Canny give them.")], "edge"),
            outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, image, weight, start_percent, end_percent, mask=None, guidance=None):
        node = "Edge Target"
        image, = lines(node, [checks.picture(node, image)])
        return chained("edge", head, image, weight, start_percent, end_percent, mask, guidance)
