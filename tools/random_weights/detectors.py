"""The host's detectors with random weights, in the layout of their files: see checkpoints.py. What they find is nothing."""
import comfy.ldm.depth_anything_3.model
import comfy.ldm.moge.model
import comfy.ops
import comfy.supported_models
import torch
from torch import Tensor

from tools.random_weights.checkpoints import SD15_UNET, unet, whole

SD2_UNET = SD15_UNET | {"context_dim": 1024, "use_linear_in_transformer": True, "heatmap_head": True}
# Of the smallest backbones.
MOGE = {"hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": 12, "layer_norm_eps": 1e-6, "use_swiglu_ffn": False}
DEPTH_ANYTHING = {"backbone_name": "vits", "out_layers": [5, 7, 9, 11], "head_dim_in": 384, "head_features": 64,
                  "head_out_channels": [48, 96, 192, 384]}


def sdpose_weights() -> dict[str, Tensor]:
    """Every weight of SDPose's checkpoint, on the meta device."""
    return whole(unet(comfy.supported_models.SD20, SD2_UNET), None)


def depth_anything_weights() -> dict[str, Tensor]:
    """Every weight of a small Depth Anything 3, likewise."""
    with torch.device("meta"):
        model = comfy.ldm.depth_anything_3.model.DepthAnything3Net(**DEPTH_ANYTHING, device="meta", operations=comfy.ops.disable_weight_init)
    return model.state_dict()


def moge_weights() -> dict[str, Tensor]:
    """Every weight of a small MoGe, likewise."""
    with torch.device("meta"):
        model = comfy.ldm.moge.model.MoGeModelV1(MOGE, dim_upsample=[64, 32, 32], device="meta")
    return model.state_dict()
