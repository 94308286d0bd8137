"""A guided run, shown on a node while it samples."""
import sys
import time
from collections.abc import Callable

import comfy.utils
import latent_preview
import torch
from PIL import Image

from .. import seeing
from .trace import Trace

FORMAT = "JPEG"


class Screen:
    """After each step of a run on MODEL: the picture so far, and what the run's `trace` saw last.

    On the node that samples it takes the place of the host's own preview; on another one it comes besides. Nothing is shown where nobody looks. Where
    the host shows no previews, which is how it starts, the picture so far is as rough as its latents' colours are.
    """

    def __init__(self, trace: Trace, model):
        self.trace, self.node_id, self.begun = trace, trace.shown_on, time.monotonic()
        latent_format = model.model.latent_format
        self.previewer = latent_preview.get_previewer(model.load_device, latent_format) or rough(latent_format)
        self.rgb = latents_seen(latent_format)
        self.count = self.read_at = 0  # of the trace, and the step at which that was

    def follows(self, callback: Callable | None, steps: int) -> Callable | None:
        """What the sampler should call after each step, in the place of `callback`."""
        watched = comfy.utils.PROGRESS_BAR_HOOK if self.node_id is None else client()
        if not watched:
            return callback
        bar = comfy.utils.ProgressBar(steps) if self.node_id is None else None

        def after_step(step: int, denoised: torch.Tensor, x: torch.Tensor, total: int) -> None:
            image = self.image(step, denoised, total)
            if bar is not None:
                bar.update_absolute(step + 1, total, (FORMAT, image, None))
                return
            if callback is not None:
                callback(step, denoised, x, total)
            send(image, self.node_id)

        return after_step

    def image(self, step: int, denoised: torch.Tensor, total: int) -> Image.Image:
        left = (time.monotonic() - self.begun) / (step + 1) * (total - step - 1)
        so_far = self.previewer and self.previewer.decode_latent_to_preview(denoised[:1])
        if self.trace.count > self.count:
            self.count, self.read_at = self.trace.count, step + 1
        since = f"; read at step {self.read_at}" if 0 < self.read_at <= step else ""
        return seeing.sheet(self.trace.now, self.rgb, so_far, f"step {step + 1} of {total}, {left:.0f} s left{since}")


def rough(latent_format):
    """The host's previewer by its factors for the colours of this format's latents, if it has some."""
    factors = latent_format.latent_rgb_factors
    return factors and latent_preview.Latent2RGBPreviewer(factors, latent_format.latent_rgb_factors_bias, latent_format.latent_rgb_factors_reshape)


def latents_seen(latent_format) -> Callable[[torch.Tensor], Image.Image | None]:
    """What the first of latents [B, C, H, W], as VAE Decode takes them, roughly looks like, where that is known."""
    previewer, video = rough(latent_format), latent_format.latent_dimensions == 3

    def seen(latents: torch.Tensor) -> Image.Image | None:
        latents = latents[:1, :, None] if video else latents[:1]  # such formats take one frame for a video of one
        return previewer and previewer.decode_latent_to_preview(latent_format.process_in(latents.float()))

    return seen


def client():
    """The host's server, if somebody's page waits for what it sends."""
    server = getattr(sys.modules.get("server"), "PromptServer", None)
    instance = getattr(server, "instance", None)
    return instance if instance is not None and instance.client_id else None


def send(image: Image.Image, node_id: str) -> None:
    """Shows `image` on a node that is not the one being executed."""
    from protocol import BinaryEventTypes  # the host's, there wherever its server is

    server = client()
    if server is not None:
        about = {name: node_id for name in ("node_id", "display_node_id", "parent_node_id", "real_node_id")} | {"prompt_id": server.last_prompt_id}
        server.send_sync(BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA, ((FORMAT, image, None), about), server.client_id)
