"""The host's ControlNet and T2I-Adapter in the demo UNet's sizes.

The host's loaders guess a network's layout from its weights, for the widths of known models only, so these files are put
together here; what they give is the host's own CONTROL_NET, for its own apply nodes.
"""
import json
from pathlib import Path

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.ops
import torch
from comfy.t2i_adapter.adapter import Adapter
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tools.demo_world import demo_unet

UPSCALE = "nearest-exact"  # as the host's loaders have it


class DemoAdapter(Adapter):
    """The stock adapter for a latent that is pixels, so nothing is unshuffled, and for a UNet with one block at each of four sizes."""

    def __init__(self):
        super().__init__(channels=[64, 64, 128, 128], nums_rb=2, cin=3, ksize=1, sk=True, use_conv=False, xl=False)
        self.unshuffle_amount, self.unshuffle = 1, nn.Identity()

    def forward(self, hint: Tensor) -> dict[str, list]:
        """Features by input block, the last block's first: of the four sizes, and None at the three ways down between them."""
        found = [feature for feature in super().forward(hint)["input"] if feature is not None]
        return {"input": [found[0]] + [x for feature in found[1:] for x in (None, feature)]}


def new_controlnet(operations=demo_unet.TRAINABLE) -> comfy.cldm.cldm.ControlNet:
    """The stock class; its hint block does not scale down, for the latent is pixels."""
    network = comfy.cldm.cldm.ControlNet(**demo_unet.UNET_CONFIG, hint_channels=3, dtype=torch.float32, operations=operations)
    for layer in hint_layers(network):
        layer.stride = (1, 1)
    return network


def hint_layers(network: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in network.input_hint_block.modules() if isinstance(layer, nn.Conv2d)]


def untrained_controlnet(unet: nn.Module) -> comfy.cldm.cldm.ControlNet:
    """One with the encoder of `unet`, and all that leads out of it, and the hint into it, at zero (Zhang, Rao and Agrawala, "Adding Conditional
    Control to Text-to-Image Diffusion Models", arXiv 2302.05543, section 3.1)."""
    torch.manual_seed(0)
    network = new_controlnet()
    own = network.state_dict()
    network.load_state_dict({name: weight for name, weight in unet.state_dict().items() if name in own}, strict=False)
    for layer in [hint_layers(network)[-1], network.middle_block_out[0], *[zero[0] for zero in network.zero_convs]]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return network


def untrained_adapter(unet: nn.Module) -> DemoAdapter:
    torch.manual_seed(0)
    return DemoAdapter()


UNTRAINED = {"controlnet": untrained_controlnet, "t2i": untrained_adapter}


def save(network: nn.Module, file: Path, about: dict) -> None:
    """`about` goes into the file's metadata as JSON; it says "what", "kind" and "pairs"."""
    weights = {name: weight.detach().float().contiguous() for name, weight in network.state_dict().items()}
    part = file.with_suffix(".part")
    save_file(weights, part, {"peer": json.dumps(about)})
    part.replace(file)


def about(file: Path) -> dict:
    with safe_open(file, "pt") as opened:
        return json.loads(opened.metadata()["peer"])


def network(file: Path) -> nn.Module:
    found = DemoAdapter() if about(file)["what"] == "t2i" else new_controlnet(comfy.ops.disable_weight_init)
    found.load_state_dict(load_file(file))
    return found.eval().requires_grad_(False)


def control(found: nn.Module) -> comfy.controlnet.ControlBase:
    """The host's CONTROL_NET of a network."""
    device = comfy.model_management.get_torch_device()
    if isinstance(found, DemoAdapter):
        return comfy.controlnet.T2IAdapter(found, channels_in=3, compression_ratio=1, upscale_algorithm=UPSCALE, device=device)
    return comfy.controlnet.ControlNet(found, compression_ratio=1, load_device=device, manual_cast_dtype=None)
