"""Somebody's model files, through the host's loaders; what cannot be loaded is explained. All raise ValueError."""
from pathlib import Path

import comfy.controlnet
import comfy.sd

from readout_guidance_pack.heads import HeadFileError, load_head


def checkpoint(file: Path) -> tuple:
    """(MODEL, CLIP, VAE) of a whole one; CLIP is None where the file has none."""
    try:
        model, clip, vae = comfy.sd.load_checkpoint_guess_config(str(file))[:3]
    except Exception as error:  # files that are no model make the host's loader fail in every way there is
        raise ValueError(f"{file} cannot be loaded as a checkpoint: {error}") from error
    if model is None or vae is None:
        raise ValueError(f"{file.name} lacks a diffusion model or a VAE. Give a whole checkpoint.")
    return model, clip, vae


def whole_checkpoint(file: Path) -> tuple:
    """(MODEL, CLIP, VAE)."""
    model, clip, vae = checkpoint(file)
    if clip is None:
        raise ValueError(f"{file.name} lacks a text encoder. Give a whole checkpoint.")
    return model, clip, vae


def controlnet(file: Path):
    """A ControlNet or T2I-Adapter as the host's CONTROL_NET."""
    try:
        found = comfy.controlnet.load_controlnet(str(file))
    except Exception as error:
        raise ValueError(f"{file} cannot be loaded as a ControlNet or T2I-Adapter: {error}") from error
    if found is None:
        raise ValueError(f"{file.name} is no ControlNet or T2I-Adapter that ComfyUI knows.")
    return found


def head(file: Path):
    """A readout head."""
    try:
        return load_head(file)
    except (HeadFileError, OSError) as error:
        raise ValueError(f"{file} cannot be loaded as a readout head: {error}") from error
