"""Images of skeletons as people have them, as heads know them."""
import torch
from torch import Tensor

from ...rg_core.images import skeletons
from ..common import checks
from ..common.log import log

NAMES = {(True, True): "all colors", (True, False): "the joint colors", (False, True): "the limb colors"}


def prepared(node: str, images: list[Tensor]) -> list[Tensor]:
    """Skeletons [B, 3, h, w] on black, in OpenPose's colors and as thick as heads know them; warns once of what was not so."""
    found = []
    for image in images:
        checks.brightness(node, image)
        found.append(image.float().clamp(0, 1))
    grounds = [skeletons.has_ground(image) for image in found]
    if any(ground.any() for ground in grounds):
        log.warning("%s: the skeleton is not on black, as pose heads expect. White and gray areas of the image are removed. If the pose is still not "
                    "followed, check the image: it should show nothing but the skeleton.", node)
        found = [torch.where(ground.view(-1, 1, 1, 1), skeletons.without_ground(image), image) for ground, image in zip(grounds, found)]
    orders = [skeletons.channels(image) for image in found]
    swapped = next((order for order in orders if any(order)), None)
    if swapped:
        log.warning("%s: red and blue are swapped in %s of the skeletons, as when OpenCV saves or draws them. They are swapped back.", node,
                    NAMES[swapped])
        found = [skeletons.in_order(image, *order) for image, order in zip(found, orders)]
    return [skeletons.as_trained(image) for image in found]
