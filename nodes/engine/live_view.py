"""A guided run, shown on a node while it samples."""
import time
from collections.abc import Callable

import comfy.utils
import latent_preview
import torch
from comfy.cli_args import LatentPreviewMethod, args
from comfy.model_management import InterruptProcessingException
from PIL import Image

from ..common import drawing
from ..common.log import Log
from ..common.previews import latent_rgb_previewer, latents_to_rgb, page_server
from .trace import Trace

FORMAT = "JPEG"


class LiveView:
    """After each step of a run on MODEL: the image so far, and what the run's `trace` saw last.

    On the node that samples it takes the place of the host's own preview; on another one, and where another pack wants to know of each step, it
    comes besides. Nothing is sent that was not asked for: where the host shows no previews, which is how it starts, only a client that takes
    previews with their node, as the page does, is sent this; where the prompt itself asks for none, nobody is. There, and where another pack's
    previews are no images, the image so far is as rough as its latents' colors are. What cannot be shown is said in `log`, and ends no run.
    """

    def __init__(self, trace: Trace, model, log: Log):
        self.trace, self.node_id, self.begun, self.log = trace, trace.shown_on, time.monotonic(), log
        latent_format = model.model.latent_format
        self.rough = latent_rgb_previewer(latent_format)
        self.previewer = latent_preview.get_previewer(model.load_device, latent_format) or self.rough
        self.rgb = latents_to_rgb(latent_format)
        self.count = self.read_at = 0  # of the trace, and the step at which that was

    def wrap_callback(self, callback: Callable | None, steps: int) -> Callable | None:
        """What the sampler should call after each step, in the place of `callback`."""
        self.trace.watching = is_wanted(self.node_id is None)
        if not self.trace.watching:
            return callback
        bar = comfy.utils.ProgressBar(steps) if self.node_id is None else None
        replaced = bar is not None and getattr(callback, "__module__", None) == latent_preview.__name__  # the host's own shows its preview only

        def after_step(step: int, denoised: torch.Tensor, x: torch.Tensor, total: int) -> None:
            if callback is not None and not replaced:
                callback(step, denoised, x, total)
            image = self.shown(step, denoised, total)
            if bar is not None:
                bar.update_absolute(step + 1, total, image and (FORMAT, image, None))
            elif image is not None:
                send(image, self.node_id)

        return after_step

    def shown(self, step: int, denoised: torch.Tensor, total: int) -> Image.Image | None:
        """`image`, or None where that fails."""
        try:
            return self.image(step, denoised, total)
        except InterruptProcessingException:
            raise
        except Exception as error:  # of another pack's previewer
            self.log.warn(f"this run cannot be shown while it samples ({type(error).__name__}: {error}). The resulting image is the same.",
                          about="not shown")
            return None

    def image(self, step: int, denoised: torch.Tensor, total: int) -> Image.Image:
        left = (time.monotonic() - self.begun) / (step + 1) * (total - step - 1)
        so_far = self.previewer and self.previewer.decode_latent_to_preview(denoised[:1])
        if so_far is not None and not isinstance(so_far, Image.Image):  # frames, as of other packs' animated previews
            self.previewer = self.rough
            so_far = self.rough and self.rough.decode_latent_to_preview(denoised[:1])
        if self.trace.count > self.count:
            self.count, self.read_at = self.trace.count, step + 1
        since = f"; read at step {self.read_at}" if 0 < self.read_at <= step else ""
        return drawing.sheet(self.trace.latest, self.rgb, so_far, f"step {step + 1} of {total}, {left:.0f} s left{since}")


def is_wanted(on_itself: bool) -> bool:
    """Whether whoever waits for this run wants to see it, on the node that samples or on another."""
    server = page_server()
    if server is None:
        return on_itself and comfy.utils.PROGRESS_BAR_HOOK is not None and args.preview_method != LatentPreviewMethod.NoPreviews
    running, _ = server.prompt_queue.get_current_queue_volatile()
    return not any(extra.get("preview_method") == LatentPreviewMethod.NoPreviews.value for _, _, _, extra, *_ in running)


def send(image: Image.Image, node_id: str) -> None:
    """Shows `image` on a node that is not the one being executed."""
    from protocol import BinaryEventTypes  # the host's, there wherever its server is

    server = page_server()
    if server is not None:
        about = dict.fromkeys(("node_id", "display_node_id", "parent_node_id", "real_node_id"), node_id) | {"prompt_id": server.last_prompt_id}
        server.send_sync(BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA, ((FORMAT, image, None), about), server.client_id)
