"""Color Target: the coarse colors of an image, or of a painted sketch."""
import math

from comfy_api.latest import io
from torch import Tensor

from ...rg_core.guidance.targets import Color
from ...rg_core.images.control_images import fit
from ..common import checks, latents
from ..common.latents import encoded, one_frame
from ..common.types import CATEGORY, Guidance
from .inputs import CHAIN, OUT, when

NODE = "Color Target"
SIDE = 512  # pixels of the square as large as what is encoded: sketches may be of a few pixels, photographs of millions
LEAST = 64


def small(vae, image: Tensor) -> Tensor:
    """The latents [B, C, h, w] of images [B, 3, H, W] in 0 to 1, of a size that suits a VAE."""
    scale = SIDE / math.sqrt(image.shape[-2] * image.shape[-1])
    size = tuple(max(LEAST, 8 * round(n * scale / 8)) for n in image.shape[-2:])
    return one_frame(latents.samples_of(NODE, {"samples": encoded(vae, fit(image.float(), size).clamp(0, 1))}))


class ColorTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutColourTarget", display_name=NODE, category=CATEGORY,
            search_aliases=["color", "palette", "sketch", "paint"],
            description="Steers toward the coarse colors of an image or a painted sketch: what is light, dark, red or blue, and roughly where. "
                        "It needs no head.",
            inputs=[io.Image.Input("image", tooltip="An image with the colors you want, or a sketch of a few strokes."),
                    io.Vae.Input("vae", tooltip="The VAE that belongs to the model."),
                    io.Int.Input("detail", default=Color.cells, min=1, max=64,
                                 tooltip="Number of color patches along the shorter side. More patches also copy the shapes of the image."),
                    *when(Color),
                    io.Mask.Input("mask", optional=True, tooltip="The target acts where the mask is white. The mask must be as large as the image."),
                    CHAIN],
            outputs=[Guidance.Output(display_name="guidance", tooltip=OUT)])

    @classmethod
    def execute(cls, image, vae, detail, weight, start_percent, end_percent, mask=None, guidance=None):
        checks.check_range(NODE, weight, start_percent, end_percent)
        image, mask = checks.image(NODE, image), checks.mask(NODE, mask)
        checks.brightness(NODE, image)
        checks.same_size(NODE, mask, image)
        if vae is None:
            raise ValueError(f"{NODE}: there is no VAE; the checkpoint may not contain one. Connect Load VAE.")
        target = Color(name="color", image=small(vae, image), cells=detail, mask=mask, weight=weight, start=start_percent, end=end_percent)
        return io.NodeOutput((*(guidance or ()), target))
