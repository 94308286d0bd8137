"""ControlNets and T2I-Adapters with random weights in the layout of the published files for Stable Diffusion 1.5 and SDXL: see checkpoints.py."""
import comfy.cldm.cldm
import comfy.supported_models
import torch
from comfy.t2i_adapter.adapter import Adapter
from torch import Tensor

from tools.random_weights.checkpoints import SD15_UNET, SDXL_UNET

UNETS = {"sd15": (comfy.supported_models.SD15, SD15_UNET), "sdxl": (comfy.supported_models.SDXL, SDXL_UNET)}
ADAPTERS = {"sd15": {"cin": 3 * 8 * 8, "xl": False}, "sdxl": {"cin": 3 * 16 * 16, "xl": True}}
WIDTHS = [320, 640, 1280, 1280]


def controlnet_weights(base: str) -> dict[str, Tensor]:
    """Every weight of a ControlNet, on the meta device."""
    family, config = UNETS[base]
    with torch.device("meta"):
        return comfy.cldm.cldm.ControlNet(**family(config).unet_config, hint_channels=3, device="meta").state_dict()


def adapter_weights(base: str) -> dict[str, Tensor]:
    """Every weight of a T2I-Adapter, on the meta device."""
    with torch.device("meta"):
        return Adapter(channels=WIDTHS, nums_rb=2, ksize=1, sk=True, use_conv=False, **ADAPTERS[base]).state_dict()
