"""Boxes as ComfyUI and detectors give them."""
import math

from comfy_api.latest import io

from ...rg_core.images.regions import Box
from ..common import checks
from ..common.log import log
from . import beside_reference

MOST_SHARES = 2  # of the image's side: a box that ends before that is in shares; in pixels it would hold next to nothing


def box_of(node: str, name: str, box: dict | list | None, reference) -> Box | None:
    """The host's BOUNDING_BOX, in pixels of the reference, as shares of it. Detectors give lists of them, one for each image."""
    if box is None:
        return None
    if isinstance(box, list) and all(isinstance(part, (dict, list)) for part in box):
        found = [one for part in box for one in (part if isinstance(part, list) and all(isinstance(p, dict) for p in part) else [part])]
        if len(found) != 1:
            raise ValueError(f"{node}: got {len(found)} boxes, but needs exactly one. Let the detector find one thing, or draw a box with Bounding "
                             "Box.")
        box, = found
    try:
        x, y, wide, high = (float(box[side]) for side in ("x", "y", "width", "height")) if isinstance(box, dict) else ()
        good = all(map(math.isfinite, (x, y, wide, high)))
    except (TypeError, LookupError, ValueError, OverflowError, RuntimeError):
        good = False
    if not good:
        raise ValueError(f"{node}: the box is {checks.shown(box)}, but must be an object with x, y, width and height in pixels. Draw it with "
                         "Bounding Box, or convert it to this form.")
    height, width = beside_reference.pixels(reference)
    if max(map(abs, (x, y))) <= 1 and max(x + wide, y + high) <= MOST_SHARES:  # of the image, as some detectors have it
        x, y, wide, high = x * width, y * height, wide * width, high * height
    left, top = max(0, x) / width, max(0, y) / height
    right, bottom = min(width, x + wide) / width, min(height, y + high) / height
    if right <= left or bottom <= top:
        raise ValueError(f"{node}: the box {checks.shown(box)} contains no part of an image of {width}x{height} pixels. Draw it inside the image.")
    rest = reference.downscale - 1  # pixels of the image that encoding may have cut off
    inside = (min(width + rest, x + wide) - max(-rest, x)) * (min(height + rest, y + high) - max(-rest, y))
    if inside < 0.8 * wide * high:
        log.warning("%s: more than a fifth of the %s %s is outside the reference image of %dx%d pixels and is cut off. If it was detected on an "
                    "image of another size, detect it on the image that went into VAE Encode.", node, name, checks.shown(box), width, height)
    return left, top, right - left, bottom - top


def box_input(name: str, tooltip: str):
    """A box that is connected or not there. The host's input has a default, 512 pixels wide and high, which clients would fill in for it."""
    box = io.BoundingBox.Input(name, optional=True, socketless=False, force_input=True, tooltip=tooltip)
    box.default = None
    return box
