"""Pose, Depth and Edge Target: what the user has, as something to steer towards."""
import math
from typing import NamedTuple

import torch
from comfy_api.latest import io
from torch import Tensor

from ..rg_core.pictures import fit
from ..rg_core.regions import repeat
from ..rg_core.targets import Spatial, Target
from . import bars, checks, skeletons
from .depth_maps import GREYS, INVERSE, Advice, Maps, depth_maps, from_geometry
from .keypoints import drawn
from .log import log
from .types import CATEGORY, Geometry, Guidance, Head, PoseKeypoint

GREY_GROUND = 0.2
NOTHING = 0.1       # brightness that no skeleton or line stays below; frames of a saved video have up to 0.02 where they were black
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


def chained(name: str, head, image: Tensor | Maps, weight: float, start: float, end: float, mask: Tensor | None,
            guidance: tuple | None) -> io.NodeOutput:
    node = f"{name.capitalize()} Target"
    checks.head_kind(node, head, name)
    return towards(node, head, image, weight, start, end, mask, guidance)


def towards(node: str, head, image: Tensor | Maps, weight: float, start: float, end: float, mask: Tensor | None,
            guidance: tuple | None) -> io.NodeOutput:
    """`image` [B, 3, h, w] is what `head` should read, from when it can; with it, where it is known."""
    checks.when(node, weight, start, end)
    start = checks.later_start(node, head, start, end)
    mask, (image, known) = checks.mask(node, mask), image if isinstance(image, tuple) else (image, None)
    checks.same_size(node, mask, image)
    target = Spatial(name=head.kind, head=head, image=image, known=known, mask=mask, weight=weight, start=start, end=end)
    return io.NodeOutput((*(guidance or ()), target))


class Empty(NamedTuple):
    """What is said of pictures that hold nothing: of all of them, and of one in a batch."""
    whole: str
    one: str


EMPTY = {"pose": Empty("the skeleton's picture is all black, so it holds no pose", "there is nobody in picture {} of the pose"),
         "edge": Empty("the edges are all black, so there is nothing to draw", "there are no edges in picture {}"),
         "depth": Empty("the depth map holds no depth anywhere", "there is no depth in picture {}")}


def some_there(node: str, there: Tensor, said: Empty) -> None:
    """`there` [B] says which pictures hold something; the others are not guided."""
    if not there.any():
        raise ValueError(f"{node}: {said.whole}. Check what made it.")
    if not there.all():
        nothing = ", ".join(str(k) for k in ((~there).nonzero()[:, 0] + 1).tolist())
        log.warning("%s: %s, so it does not guide those pictures.", node, said.one.format(nothing))


def present(node: str, image: Tensor, mask: Tensor | None, kind: str) -> Tensor | None:
    """The mask without the pictures [B, 3, H, W] of skeletons or edges in which there are none: those are not guided."""
    there = image.amax((1, 2, 3)) >= NOTHING
    some_there(node, there, EMPTY[kind])
    if there.all():
        return mask
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
            image, mask = bars.left_out(node, "pose", checks.picture(node, image), mask)
            image, = skeletons.prepared(node, [image])
        return chained("pose", head, image, weight, start_percent, end_percent, present(node, image, mask, "pose"), guidance)


ADVICE = Advice(turn="switch invert", metres="choose 'distance, near black' in greys", holes="are left out")
FLIP = "put Invert Image before this node"
ADVICE_MAP = Advice(turn=FLIP, metres=f"near is small, so {FLIP}", holes="are left out")


class DepthTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutDepthTarget", display_name="Depth Target", category=CATEGORY,
            search_aliases=["depth map", "controlnet"],
            description="Steers towards a depth map: white is near, black is far.",
            inputs=[*inputs([io.Image.Input("image", optional=True, tooltip="A depth map, white near and black far, as MiDaS or MoGe draw it. "
                                            "For others choose in greys.")], "depth",
                            io.Boolean.Input("invert", default=False, optional=True, tooltip="For maps in which white is far.")),
                    Geometry.Input("geometry", optional=True, tooltip="Instead of an image: what Run MoGe Inference or Run Depth Anything 3 "
                                   "gives. Its distances are known, and turned to what heads read."),
                    io.Combo.Input("greys", options=list(GREYS), default=INVERSE, optional=True, tooltip="What the image's greys stand for. "
                                   "inverse distance: MiDaS, MoGe, Depth Anything 1 and 2. distance: Depth Anything 3. distance, near black: "
                                   "metres.")],
            outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, image=None, weight=1.0, start_percent=0.0, end_percent=Spatial.end, invert=False, mask=None, guidance=None, geometry=None,
                greys=INVERSE):
        node = "Depth Target"
        if (image is None) == (geometry is None):
            raise ValueError(f"{node}: got {'neither image nor' if image is None else 'both image and'} geometry. Connect one of them.")
        if image is None:
            maps = from_geometry(node, geometry)
        else:
            image, mask = bars.left_out(node, "depth", checks.picture(node, image, finite=False), mask)
            maps, = depth_maps(node, [image], greys, invert, ADVICE)
        mask = checks.mask(node, mask)
        known(node, maps, mask)
        return chained("depth", head, maps, weight, start_percent, end_percent, mask, guidance)


def known(node: str, maps: Maps, mask: Tensor | None) -> None:
    """Something must be known of depth, and it must not be flat where the mask is."""
    image, there = maps
    if there is not None:
        some_there(node, there.flatten(1).any(1), EMPTY["depth"])
    if mask is None or mask.shape[-2:] != image.shape[-2:]:
        return
    for depth, inside in zip(image[:, 0], repeat(mask[:, 0] > 0, len(image))):
        part = depth[inside.to(depth.device)]
        if part.numel() and part.max() - part.min() < 1 / 255 < depth.max() - depth.min():
            log.warning("%s: the depth has one value wherever the mask is white, which asks for a flat wall there. Load 3D's mask is white "
                        "outside of its model: put Invert Mask behind it.", node)
            return


def lines(node: str, images: list[Tensor]) -> list[Tensor]:
    """Edges [B, 3, h, w], grey; warns once where they look like black ones on white."""
    for image in images:
        checks.brightness(node, image)
    images = [image.amax(1, keepdim=True) for image in images]  # lines of any colour
    if sum(image.mean() for image in images) / len(images) > 0.5:
        log.warning("%s: the edges are mostly white, and they should be white lines on black. If yours are black on white, put Invert "
                    "Image before this node.", node)
    elif sum(image.median() for image in images) / len(images) > GREY_GROUND:
        log.warning("%s: the edges are on grey, and they should be white lines on black. Grey asks for faint edges everywhere.", node)
    return [image.expand(-1, 3, -1, -1) for image in images]


def as_painted(node: str, images: list[Tensor]) -> list[Tensor]:
    for image in images:
        checks.brightness(node, image)
    return images


# By kind, of which it is known what pictures [B, 3, h, w] should look like: what makes them so.
KNOWN = {"edge": lines, "pose": skeletons.prepared}


def maps_of(node: str, kind: str, images: list[Tensor], advice: Advice) -> list[Maps]:
    """What heads of this kind should read, of pictures [B, 3, h, w], and where it is known."""
    if kind == "depth":
        return depth_maps(node, images, INVERSE, False, advice)
    return [(image, None) for image in KNOWN.get(kind, as_painted)(node, images)]


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
        image = checks.picture(node, image)
        if head.kind in (*KNOWN, "depth"):
            image, mask = bars.left_out(node, head.kind, image, mask)
        maps, = maps_of(node, head.kind, [image], ADVICE_MAP)
        if head.kind in KNOWN:
            mask = present(node, maps[0], checks.mask(node, mask), head.kind)
        return towards(node, head, maps, weight, start_percent, end_percent, mask, guidance)


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
        image, mask = bars.left_out(node, "edge", checks.picture(node, image), mask)
        image, = lines(node, [image])
        mask = present(node, image, checks.mask(node, mask), "edge")
        return chained("edge", head, image, weight, start_percent, end_percent, mask, guidance)
