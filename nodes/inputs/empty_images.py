"""Images of a batch that show nothing."""
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...rg_core.images.regions import repeat
from ..common.log import log

GREY_GROUND = 0.2
NOTHING = 0.1       # brightness that no skeleton or line stays below; frames of a saved video have up to 0.02 where they were black


class Empty(NamedTuple):
    """What is said of images that hold nothing: of all of them, and of one in a batch."""
    whole: str
    one: str


EMPTY = {"pose": Empty("the skeleton image is all black, so it contains no pose", "there is nobody in image {} of the pose"),
         "edge": Empty("the edges are all black, so there is nothing to draw", "there are no edges in image {}"),
         "depth": Empty("the depth map contains no depth anywhere", "there is no depth in image {}")}


def some_there(node: str, there: Tensor, said: Empty) -> None:
    """`there` [B] says which images hold something; the others are not guided."""
    if not there.any():
        raise ValueError(f"{node}: {said.whole}. Check the node it comes from.")
    if not there.all():
        nothing = ", ".join(str(k) for k in ((~there).nonzero()[:, 0] + 1).tolist())
        log.warning("%s: %s, so the target does not act there.", node, said.one.format(nothing))


def mask_empty_images(node: str, image: Tensor, mask: Tensor | None, kind: str) -> Tensor | None:
    """The mask without the images [B, 3, H, W] of skeletons or edges in which there are none: those are not guided."""
    there = image.amax((1, 2, 3)) >= NOTHING
    some_there(node, there, EMPTY[kind])
    if there.all():
        return mask
    mask = torch.ones(1, 1, *image.shape[-2:]) if mask is None else mask
    both = math.lcm(len(mask), len(image))
    return repeat(mask, both) * repeat(there.to(mask), both).view(-1, 1, 1, 1)
