"""Maps and edges as people have them."""
from torch import Tensor

from ...rg_core.images.regions import repeat
from ..common import checks
from ..common.log import log
from . import skeletons
from .depth_maps import INVERSE, Advice, Maps, depth_maps
from .empty_images import EMPTY, GREY_GROUND, some_there

FLIP = "put Invert Image before this node"
ADVICE_MAP = Advice(turn=FLIP, metres=f"near is small, so {FLIP}", holes="are left out")


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
            log.warning("%s: the depth has one value wherever the mask is white, which means a flat wall there. Load 3D's mask is white outside its "
                        "model: put Invert Mask after it.", node)
            return


def prepare_edges(node: str, images: list[Tensor]) -> list[Tensor]:
    """Edges [B, 3, h, w], grey; warns once where they look like black ones on white."""
    for image in images:
        checks.brightness(node, image)
    images = [image.amax(1, keepdim=True) for image in images]  # lines of any color
    if sum(image.mean() for image in images) / len(images) > 0.5:
        log.warning("%s: the edges are mostly white, but must be white lines on black. If yours are black on white, put Invert Image before this "
                    "node.", node)
    elif sum(image.median() for image in images) / len(images) > GREY_GROUND:
        log.warning("%s: the edges are on gray, but must be white lines on black. Gray means faint edges everywhere.", node)
    return [image.expand(-1, 3, -1, -1) for image in images]


def as_painted(node: str, images: list[Tensor]) -> list[Tensor]:
    for image in images:
        checks.brightness(node, image)
    return images


# By kind, of which it is known what images [B, 3, h, w] should look like: what makes them so.
KNOWN = {"edge": prepare_edges, "pose": skeletons.prepared}


def maps_of(node: str, kind: str, images: list[Tensor], advice: Advice) -> list[Maps]:
    """What heads of this kind should read, of images [B, 3, h, w], and where it is known."""
    if kind == "depth":
        return depth_maps(node, images, INVERSE, False, advice)
    return [(image, None) for image in KNOWN.get(kind, as_painted)(node, images)]
