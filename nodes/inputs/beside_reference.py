"""What users give for a place in a reference's image must have that image's shape."""
import math

from torch import Tensor

from ..common.checks import mask


def mask_of(node: str, given: Tensor | None, reference, name: str = "mask") -> Tensor | None:
    """`mask`, which must have the shape of the reference's image."""
    checked, (height, width) = mask(node, given, name), pixels(reference)
    if checked is not None and another_shape(checked.shape[-2:], reference):
        raise ValueError(f"{node}: the {name} is {checked.shape[-1]}x{checked.shape[-2]} pixels, but the reference image is {width}x{height}, a "
                         "different aspect ratio. Make the mask the same size as the reference image, or disconnect it. (For an image without "
                         "transparency, Load Image outputs a mask of 64x64.)")
    return checked


def check_aspect(node: str, size: tuple[int, int], reference) -> None:
    """The image of `size` (H, W) that drags are meant for must have the shape of the reference's."""
    if another_shape(size, reference):
        height, width = pixels(reference)
        raise ValueError(f"{node}: the image is {size[1]}x{size[0]} pixels, but the reference image is {width}x{height}, a different aspect ratio, "
                         "so drags would be misplaced. Connect the image that went into VAE Encode (after any resizing and cropping) or that came "
                         "out of VAE Decode, and check that the arrows are still in the right places.")


def another_shape(size: tuple[int, int], reference) -> bool:
    """Whether `size` (H, W) has other proportions than the reference's image; encoding cuts off a few pixels."""
    height, width = pixels(reference)
    return abs(math.log(size[1] * height / (size[0] * width))) > 0.03


def pixels(reference) -> tuple[int, int]:
    """(H, W) of the reference's image."""
    height, width = reference.trajectory.size
    return height * reference.downscale, width * reference.downscale
