"""Models of the host's own classes with random weights: Stable Diffusion's layout, small or at full size."""
import comfy.model_patcher
import comfy.supported_models
import torch

from readout_guidance_pack.heads.base_models import BASE_MODELS
from tools.random_weights.checkpoints import SD15_UNET, SDXL_UNET

SMALL = SD15_UNET | {"model_channels": 32}
SHALLOW_SDXL = SDXL_UNET | {"transformer_depth": [0, 0, 2, 2, 1, 1], "transformer_depth_output": [0, 0, 0, 2, 2, 2, 1, 1, 1],
                            "transformer_depth_middle": 1}  # 10 in the real one: its size, not its taps
MODELS = {"small": (comfy.supported_models.SD15, SMALL, [128] * 6 + [64] * 3 + [32] * 3),
          "sd15": (comfy.supported_models.SD15, SD15_UNET, BASE_MODELS["sdv15"].channels),
          "small sd2": (comfy.supported_models.SD20, SMALL | {"context_dim": 1024, "model_channels": 64}, [256] * 6 + [128] * 3 + [64] * 3),
          "sdxl": (comfy.supported_models.SDXL, SHALLOW_SDXL, BASE_MODELS["sdxl"].channels)}


def random_weights(shapes: dict, dtype=torch.float32) -> dict:
    rng = torch.Generator().manual_seed(0)
    return {key: (torch.randn(weight.shape, generator=rng) * weight[0].numel()**-0.5 if weight.ndim > 1 else
                  torch.full(weight.shape, float(key.endswith("weight")))).to(dtype) for key, weight in shapes.items()}


def patcher_of(model):
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def random_model(name: str, dtype=torch.float32, cast=None, **changes):
    """A MODEL with weights in `dtype`, computing in `cast` if that is another; `changes` are of its UNet's config."""
    family, config, _ = MODELS[name]
    config = family(config | changes)
    config.set_inference_dtype(dtype, cast)
    model = config.get_model({}, "", device=torch.device("cpu"))
    parameters = dict(model.diffusion_model.named_parameters())
    for key, weight in random_weights(parameters, dtype).items():
        parameters[key].data = weight
    return patcher_of(model)


def quantized_model(name: str):
    """The same MODEL with the weights of its attention in fp8 with a scale each, as files of the host's own quantization have them."""
    family, config, _ = MODELS[name]
    weights = {}
    for key, weight in random_weights(random_model(name).model.diffusion_model.state_dict()).items():
        if key.endswith(("to_q.weight", "to_k.weight", "to_v.weight")):
            scale, layer = weight.abs().max() / 448, key.removesuffix("weight")
            weights |= {f"{layer}weight_scale": scale, f"{layer}comfy_quant": torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)}
            weight = (weight / scale).to(torch.float8_e4m3fn)
        weights[key] = weight
    config = family(dict(config))
    config.quant_config = {"mixed_ops": True}
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device=torch.device("cpu"))
    model.load_model_weights({f"unet.{key}": weight for key, weight in weights.items()}, "unet.")
    return patcher_of(model)


def conditioning(width: int, seed: int) -> list:
    rng = torch.Generator().manual_seed(seed)
    more = {"pooled_output": torch.randn(1, 1280, generator=rng), "width": 512, "height": 512}
    return [[torch.randn(1, 77, width, generator=rng), more]]
