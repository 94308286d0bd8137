"""What users give for a place in a reference's picture must have that picture's shape."""
import math

from torch import Tensor

from ..common.checks import mask


def mask_of(node: str, given: Tensor | None, reference, name: str = "mask") -> Tensor | None:
    """`mask`, which must have the shape of the reference's picture."""
    checked, (height, width) = mask(node, given, name), pixels(reference)
    if checked is not None and another_shape(checked.shape[-2:], reference):
        raise ValueError(f"{node}: the {name} is {checked.shape[-1]}x{checked.shape[-2]} pixels and the reference's picture {width}x{height}, "
                         "which is of another shape. Make the mask as large as the picture, or disconnect it. (A Load Image node gives a mask "
                         "of 64x64 for a picture without transparency.)")
    return checked


def check_aspect(node: str, size: tuple[int, int], reference) -> None:
    """The picture of `size` (H, W) that drags are meant for must have the shape of the reference's."""
    if another_shape(size, reference):
        height, width = pixels(reference)
        raise ValueError(f"{node}: the image is {size[1]}x{size[0]} pixels and the reference's picture {width}x{height}, which is of another shape, "
                         "so drags would be misplaced. Connect the picture that went into VAE Encode (behind any resizing and cropping) or came out "
                         "of VAE Decode, and look whether the arrows are still where they should be.")


def another_shape(size: tuple[int, int], reference) -> bool:
    """Whether `size` (H, W) has other proportions than the reference's picture; encoding cuts off a few pixels."""
    height, width = pixels(reference)
    return abs(math.log(size[1] * height / (size[0] * width))) > 0.03


def pixels(reference) -> tuple[int, int]:
    """(H, W) of the reference's picture."""
    height, width = reference.trajectory.size
    return height * reference.downscale, width * reference.downscale
