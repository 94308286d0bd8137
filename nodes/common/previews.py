"""The host's previews: of latents, and who takes them."""
import sys
from collections.abc import Callable

import latent_preview
import torch
from comfy_api import feature_flags
from PIL import Image


def latent_rgb_previewer(latent_format):
    """The host's previewer by its factors for the colors of this format's latents, if it has some."""
    factors = latent_format.latent_rgb_factors
    return factors and latent_preview.Latent2RGBPreviewer(factors, latent_format.latent_rgb_factors_bias, latent_format.latent_rgb_factors_reshape)


def latents_to_rgb(latent_format) -> Callable[[torch.Tensor], Image.Image | None]:
    """What the first of latents [B, C, H, W] or [B, C, 1, H, W], as VAE Decode takes them, roughly looks like, where that is known."""
    previewer, video = latent_rgb_previewer(latent_format), latent_format.latent_dimensions == 3

    def seen(latents: torch.Tensor) -> Image.Image | None:
        latents = latents[:1, :, None] if video and latents.ndim == 4 else latents[:1]  # such formats take one frame for a video of one
        return previewer and previewer.decode_latent_to_preview(latent_format.process_in(latents.float()))

    return seen


def page_server():
    """The host's server, if the client whose prompt it executes takes previews with their node, as the page does. Others would take one for a
    preview of the node that is being executed, or for an image that it saves."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    known = server is not None and feature_flags.supports_feature(server.sockets_metadata, server.client_id, "supports_preview_metadata")
    return server if known else None
