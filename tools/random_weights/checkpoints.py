"""Whole checkpoints and published-format heads with random weights, for trials where the real ones are not at hand.

The host's own classes are built on torch's meta device, where weights cost nothing, and the host's own saving names the
keys; only then is each weight drawn. So a file has every key and shape of its kind, and images made with it are noise.
"""
from collections.abc import Mapping
from os import PathLike

import comfy.ldm.models.autoencoder
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import torch
from safetensors.torch import save_file
from torch import Tensor

from readout_guidance_pack.heads.base_models import BASE_MODELS
from readout_guidance_pack.rg_core.readout.head import ReadoutHead

SD15_UNET = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2],
             "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
             "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1,
             "use_spatial_transformer": True, "context_dim": 768, "use_linear_in_transformer": False, "legacy": False,
             "adm_in_channels": None, "use_temporal_attention": False}
SDXL_UNET = SD15_UNET | {"num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
                         "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10,
                         "context_dim": 2048, "use_linear_in_transformer": True, "num_classes": "sequential",
                         "adm_in_channels": 2816}
SD_VAE = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
          "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}


def unet(family: type, config: dict, dtype: torch.dtype = torch.float16):
    """The host's model of `family`, a class of comfy.supported_models, on the meta device."""
    model_config = family(config)
    model_config.set_inference_dtype(dtype, None)
    return model_config.get_model({}, "", device=torch.device("meta"))


def whole(model, clip: type | None) -> dict[str, Tensor]:
    """Every weight of a checkpoint of `model` with a text encoder of this class of the host's and the VAE of Stable Diffusion."""
    with torch.device("meta"):
        words = clip(device="meta", dtype=torch.float16).state_dict() if clip else None
        vae = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=SD_VAE, embed_dim=4)
    return model.state_dict_for_saving(model.diffusion_model.state_dict(), words, vae.state_dict())


def sd15_weights() -> dict[str, Tensor]:
    """Every weight of a Stable Diffusion 1.5 checkpoint, on the meta device."""
    return whole(unet(comfy.supported_models.SD15, SD15_UNET), comfy.sd1_clip.SD1ClipModel)


def sdxl_weights() -> dict[str, Tensor]:
    """Every weight of an SDXL checkpoint, likewise."""
    return whole(unet(comfy.supported_models.SDXL, SDXL_UNET), comfy.sdxl_clip.SDXLClipModel)


def sdxl_unet_weights() -> dict[str, Tensor]:
    """Every weight of SDXL's UNet alone, as in files for diffusion_models, on the meta device."""
    return unet(comfy.supported_models.SDXL, SDXL_UNET).diffusion_model.state_dict()


def drawn(weights: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Random float16 weights in the shapes of `weights`: matrices and kernels keep the size of what goes through them,
    norms start as the identity, biases at zero."""
    rng = torch.Generator().manual_seed(seed)

    def draw(name: str, shape: torch.Size) -> Tensor:
        if len(shape) > 1:
            return torch.randn(shape, generator=rng).mul_(shape[1:].numel()**-0.5).half()
        return torch.full(shape, float(name.endswith("weight")), dtype=torch.float16)

    return {name: draw(name, weight.shape) for name, weight in weights.items()}


def save_checkpoint(weights: Mapping[str, Tensor], path: str | PathLike) -> None:
    """Writes such weights, drawn, as safetensors: about 2.1 GB of SD 1.5, 5.1 of SDXL's UNet, 7 of all of it."""
    save_file(drawn(weights), path)


def save_published_head(path: str | PathLike, base: str, spatial: bool, seed: int = 0) -> None:
    """A random head laid out like the authors' files; `base` is one of BASE_MODELS. Name it like theirs: it tells the kind."""
    base = BASE_MODELS[base]
    torch.manual_seed(seed)
    head = ReadoutHead("", base.channels, out_channels=3 if spatial else None)  # weights for the embedding in every block
    aggregation = {"use_output_head": spatial, "bottleneck_sequential": False} | ({"output_head_channels": 3} if spatial else {})
    config = {"model_id": base.model_id, "dims": base.channels, "projection_dim": 384, "save_timestep": [0], "num_timesteps": 1000,
              "output_resolution": base.pixels // 8, "load_resolution": base.pixels, "aggregation_kwargs": aggregation, "dataset_args": {}}
    torch.save({"step": 0, "config": config, "aggregation_network": head.state_dict(), "optimizer_state_dict": {}}, path)
