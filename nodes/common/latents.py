"""Latents as ComfyUI hands them over, and as models take them."""
import comfy.model_management
import torch
import torch.nn.functional as F
from torch import Tensor

from ...rg_core.images.regions import repeat
from .checks import dense, shown
from .log import log

RIM, GROWN = 2, 4  # latents at the rim of a mask that what is around it shows in, and pixels that the host adds to a mask
FLAT = 0.1  # of the deviation of what is around them: latents that vary less show nothing


def samples_of(node: str, given: dict, model=None) -> Tensor:
    """The samples of the host's LATENT, [B, C, H, W], or [B, C, 1, H, W] as models take them that make videos too; `model` is the MODEL that they
    are for, if there is one."""
    samples = given.get("samples") if isinstance(given, dict) else None
    if not dense(samples) or samples.ndim not in (4, 5) or 0 in samples.shape:
        shape = tuple(samples.shape) if isinstance(samples, Tensor) else shown(given)
        raise ValueError(f"{node}: the latent's shape is {shape}, but must be [batch, channels, height, width]. Connect the latent of an image.")
    no_video(node, samples, model)
    if not torch.isfinite(samples).all():
        raise ValueError(f"{node}: the latent contains NaN or infinite values. Check the node it comes from.")
    return samples


def no_hole(node: str, latent: dict, samples: Tensor, downscale: int) -> None:
    """Warns where `samples` [B, C, H, W] are flat inside of the LATENT's mask: some nodes encode grey there, to be painted over. `downscale` is how
    many pixels there are for each latent."""
    if latent.get("noise_mask") is None:
        return
    mask, rim = latent["noise_mask"], max(RIM, GROWN // downscale)
    mask = F.interpolate(mask.reshape(-1, 1, *mask.shape[-2:]).float(), samples.shape[-2:], mode="bilinear")
    inside = 1 - F.max_pool2d(1 - mask, 2 * rim + 1, 1, rim) > 0.5
    for x, hole, masked in zip(samples.float(), repeat(inside, len(samples)), repeat(mask, len(samples)), strict=True):
        known, rest = x[:, hole[0]], x[:, masked[0] < 0.5]
        if min(known.shape[1], rest.shape[1]) > 1 and known.std(1).norm() < FLAT * rest.std(1).norm():
            log.warning("%s: the latent is flat inside its mask. VAE Encode (for Inpainting) encodes gray there, which this node treats as part of "
                        "the image. Encode the image with VAE Encode instead.", node)
            return


def no_video(node: str, samples: Tensor, model=None) -> None:
    """Latents must be of images, [B, C, T, H, W] of models that make videos too; `model` is the MODEL that they are for, if there is one."""
    if samples.ndim not in (4, 5):
        raise ValueError(f"{node}: the latent's shape is {tuple(samples.shape)}, as for audio or for video with audio, which cannot be guided. "
                         "Sample images, or use the MODEL from before guidance.")
    if samples.ndim == 5 and samples.shape[2] > 1:
        frames, batches = samples.shape[2], "put Rebatch Images (batch_size 1) before VAE Encode and Rebatch Latents after it."
        if model is not None and type(model.model.model_config).__name__ == "QwenImage":
            raise ValueError(f"{node}: the latent has {frames} frames, as Qwen-Image Layered uses for an image and its {frames - 1} layers, and "
                             "layers cannot be guided yet. Sample single images (a latent of one frame), or use the MODEL from before guidance. If "
                             f"these are separate images: this VAE treats a batch as frames; {batches}")
        raise ValueError(f"{node}: the latent has {frames} frames, and videos cannot be guided yet. Sample single images with this model (a latent "
                         "of one frame), or use the MODEL from before guidance. If these are separate images: this VAE treats a batch as a video; "
                         f"{batches}")


def family(model) -> str:
    return type(model.model.model_config).__name__


def samples_for(node: str, model, latent: dict) -> Tensor:
    """The LATENT's samples, which must fit the model, as it takes them: [B, C, H, W], or [B, C, 1, H, W] if it makes videos too."""
    samples, made = samples_of(node, latent, model), model.get_model_object("latent_format")
    if samples.shape[1] != made.latent_channels:
        raise ValueError(f"{node}: the latent has {samples.shape[1]} channels, but this model ({family(model)}) needs {made.latent_channels}. Encode "
                         "the image with the VAE that belongs to the model.")
    no_hole(node, latent, one_frame(samples), made.spacial_downscale_ratio)
    return one_frame(samples).unsqueeze(2) if made.latent_dimensions == 3 else one_frame(samples)


def one_frame(x: Tensor) -> Tensor:
    """Latents of images, [B, C, H, W], of a model that makes videos too, [B, C, 1, H, W]."""
    return x.squeeze(2) if x.ndim == 5 else x


def encoded(vae, images: Tensor) -> Tensor:
    """What `vae` makes of images [B, 3, H, W] in 0 to 1, a latent of each."""
    for_videos = getattr(vae, "latent_dim", 2) == 3 and not vae.not_video  # to it a batch is one video
    latents = []
    for part in images.split(1 if for_videos else len(images)):
        comfy.model_management.throw_exception_if_processing_interrupted()
        latents.append(vae.encode(part.movedim(1, -1)))
    return torch.cat(latents)
