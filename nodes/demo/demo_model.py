"""The demo world's models, their text encoders and VAE, as the host's own MODEL, CLIP and VAE."""
import json
from pathlib import Path
from types import SimpleNamespace

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.utils
import torch

from ...heads.demo import MODEL_FILE, text

SHIFT = 2.0  # of the transformer's noise levels; docs/measurements/transformers.md


class DemoWorld(comfy.supported_models_base.BASE):
    """The demo's entry in what would be the host's list of supported models."""
    latent_format = comfy.latent_formats.ChromaRadiance  # pixels, three channels in -1 to 1
    memory_usage_factor = 1.0
    unet_extra_config = {}


class DemoFlow(DemoWorld):
    """That of the demo's transformer."""
    sampling_settings = {"multiplier": 1.0, "shift": SHIFT}

    def get_model(self, state_dict, prefix="", device=None):
        return comfy.model_base.Lumina2(self, device=device)


def load_model(path: str, disable_dynamic: bool = False):
    """A demo diffusion model as a ModelPatcher."""
    weights, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
    weights = comfy.utils.state_dict_prefix_replace(weights, {"unet.": ""}, filter_keys=True)
    config = next(family(json.loads(metadata[name])) for name, family in FAMILIES.items() if name in metadata)
    device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(model_params=comfy.utils.calculate_parameters(weights),
                                              supported_dtypes=config.supported_inference_dtypes)
    cast = comfy.model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast)
    offload_device = comfy.model_management.unet_offload_device()
    model = config.get_model(weights, "", device=offload_device)
    Patcher = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = Patcher(model, load_device=device, offload_device=offload_device)
    model.load_model_weights(weights, "", assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (load_model, (path,))
    return patcher


FAMILIES = {"unet_config": DemoWorld, "transformer_config": DemoFlow}  # by what a file says of itself


class Tokenizer:
    def __init__(self, embedding_directory=None, tokenizer_data={}):
        pass

    def tokenize_with_weights(self, prompt, return_word_ids=False, **kwargs):
        return text.tokenize(prompt)


class TextModel(text.TextEncoder):
    """The demo's text encoder with the methods that the host's CLIP calls."""

    def __init__(self, dtype=None, device=None, model_options={}):
        super().__init__()
        self.to(device=device)
        self.dtypes = {torch.float32}

    def set_clip_options(self, options):
        pass

    def reset_clip_options(self):
        pass

    def encode_token_weights(self, tokens):
        said = torch.tensor([tokens], device=self.embedding.weight.device)
        return self(said).to(comfy.model_management.intermediate_device()), None

    def load_sd(self, sd):
        return self.load_state_dict(sd, strict=False)


def load_clip(path: str):
    weights = comfy.utils.load_torch_file(path)
    weights = comfy.utils.state_dict_prefix_replace(weights, {"text.": ""}, filter_keys=True)
    target = SimpleNamespace(params={}, clip=TextModel, tokenizer=Tokenizer)
    return comfy.sd.CLIP(target, state_dict=[weights], disable_dynamic=True)


def load_demo(file: Path = MODEL_FILE):
    """(MODEL, CLIP, VAE) of the bundled demo, whose model is in this file."""
    path = str(file)
    return load_model(path), load_clip(path), comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
