"""Checkpoints of transformers with random weights, few blocks and, where the host lets them, narrow ones, in the layout of the published files.

As in checkpoints.py the host's own classes name the keys; where published files call a weight otherwise, that is said here. With them go a text
encoder and VAEs, by which the host's stock loaders make images.
"""
from collections.abc import Mapping
from os import PathLike
from typing import NamedTuple

import comfy.ldm.models.autoencoder
import comfy.ldm.wan.vae
import comfy.sd1_clip
import comfy.supported_models
import torch
from safetensors.torch import save_file

from tools.random_weights.checkpoints import SD_VAE, drawn, unet

WORDS = 768  # channels of CLIP-L's text encoder, which is the smallest that the host loads


class File(NamedTuple):
    """`family` of comfy.supported_models and the config that the host must find in the file; how published files call what the host calls
    otherwise, what stands before each key, and how they keep their weights."""
    family: str
    config: dict
    names: Mapping[str, str] = {}
    prefix: str = ""
    dtype: torch.dtype = torch.float16


FLUX = {"image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "hidden_size": 256, "num_heads": 2, "mlp_ratio": 4.0,
        "axes_dim": [16, 56, 56], "theta": 10000, "qkv_bias": True, "context_in_dim": WORDS, "vec_in_dim": WORDS, "depth": 4,
        "depth_single_blocks": 4, "guidance_embed": True, "txt_ids_dims": []}
FLUX2 = FLUX | {"image_model": "flux2", "in_channels": 128, "out_channels": 128, "patch_size": 1, "mlp_ratio": 3.0, "axes_dim": [32, 32, 32, 32],
                "theta": 2000, "qkv_bias": False, "vec_in_dim": None, "txt_ids_dims": [3], "global_modulation": True, "mlp_silu_act": True,
                "ops_bias": False, "default_ref_method": "index", "ref_index_scale": 10.0}
SD3 = {"input_size": None, "patch_size": 2, "in_channels": 16, "out_channels": 16, "depth": 5, "adm_in_channels": 2048,
       "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 320}}, "num_patches": 36864,
       "pos_embed_max_size": 192, "pos_embed_scaling_factor": None, "qk_norm": "rms", "x_block_self_attn_layers": [0, 1, 2]}
LUMINA2 = {"image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 2304, "cap_feat_dim": WORDS, "n_layers": 3, "qk_norm": True,
           "n_heads": 24, "n_kv_heads": 8, "axes_dims": [32, 32, 32], "axes_lens": [300, 512, 512], "rope_theta": 10000.0,
           "ffn_dim_multiplier": 4.0}
QWEN = {"image_model": "qwen_image", "in_channels": 64, "num_layers": 2}
SCALES = {"_norm.weight": "_norm.scale"}
FILES = {
    "flux1-dev": File("Flux", FLUX, SCALES),
    "flux2-dev": File("Flux2", FLUX2, SCALES),
    "sd3.5_medium": File("SD3", SD3, prefix="model.diffusion_model."),
    "lumina_2": File("Lumina2", LUMINA2),
    "qwen_image_fp8_e4m3fn": File("QwenImage", QWEN, dtype=torch.float8_e4m3fn),
}
# Flux.2's latents are of 32 channels, each pixel's patch of 2x2 on top of each other.
AUTOENCODERS = {"ae": {"z_channels": 16}, "flux2-vae": {"z_channels": 32, "batch_norm_latent": True}}


def save_transformer(name: str, path: str | PathLike) -> None:
    """Writes that one of FILES: from 20 MB to 1.1 GB."""
    file = FILES[name]
    weights = unet(getattr(comfy.supported_models, file.family), dict(file.config)).diffusion_model.state_dict()
    published = {}
    for key, value in drawn(weights).items():
        for ours, theirs in file.names.items():
            key = key.replace(ours, theirs)
        published[file.prefix + key] = value.to(file.dtype) if value.ndim > 1 else value
    save_file(published, path)


def save_text_encoder(path: str | PathLike) -> None:
    """Writes a CLIP-L, whose words every one of FILES that can be built narrow is made for: 0.25 GB."""
    clip = comfy.sd1_clip.SD1ClipModel(device="meta", dtype=torch.float16)
    save_file(drawn(clip.clip_l.transformer.state_dict()), path)


def vae(name: str) -> torch.nn.Module:
    """That VAE on the meta device."""
    with torch.device("meta"):
        if name in AUTOENCODERS:
            config = SD_VAE | AUTOENCODERS[name]
            return comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=config, embed_dim=config["z_channels"])
        return comfy.ldm.wan.vae.WanVAE(dim=32, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
                                        temperal_downsample=[False, True, True], image_channels=3, conv_out_channels=3)


def save_vae(name: str, path: str | PathLike) -> None:
    """Writes "ae" (Flux.1's, Lumina 2's and, as far as shapes go, SD3's), "flux2-vae" or "qwen_image_vae"."""
    save_file(drawn(vae(name).state_dict()), path)
