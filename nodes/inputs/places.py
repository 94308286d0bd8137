"""Places in an image, in whatever unit a detector or tracker gives them."""
from torch import Tensor

from ..common.log import log

BEYOND, MANY = -0.05, 0.15  # more places than this share lie to the left of the image, and above it: nobody looks for them there


def shares(node: str, what: str, places: Tensor, found: Tensor, first: Tensor) -> Tensor | None:
    """`places` [..., 2], x and y, as shares of the image, if that is what they are, or if they go from -1 to 1, which is said; None: pixels. Where
    they are not `found` [...], they can be anything; those that are `first` [...] were chosen inside the image."""
    known, chosen = places[found], places[found & first]
    if not len(known) or known.abs().median() > 1:  # some may lie beyond the image
        return None
    if len(chosen) and ((chosen < BEYOND).float().mean(0) > MANY).all():
        log.warning("%s: the %s have many values below 0, so they are read as going from -1 (left, top) to 1 (right, bottom).", node, what)
        return (places + 1) / 2
    return places
