"""The demo's diffusion model as the host's UNet, ready to be trained, and as a source of features."""
from types import SimpleNamespace

import comfy.model_sampling
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from torch import Tensor, nn

from readout_guidance_pack.heads.demo import text
from readout_guidance_pack.rg_core.features import taps

# Seven taps: 128 channels at 1/8, 1/8, 1/4, 1/4 of the size, 64 at 1/2, 1/2 and 1.
UNET_CONFIG = {
    "image_size": 64, "in_channels": 3, "out_channels": 3, "model_channels": 64, "channel_mult": [1, 1, 2, 2],
    "num_res_blocks": [0, 1, 1, 1], "conv_resample": False, "num_head_channels": 64, "use_spatial_transformer": True,
    "transformer_depth": [0, 0, 1], "transformer_depth_output": [0, 0, 0, 0, 0, 1, 1], "transformer_depth_middle": 1,
    "context_dim": text.WIDTH, "use_linear_in_transformer": True, "legacy": False,
}
# The host's own layers skip initialisation; these are torch's.
TRAINABLE = SimpleNamespace(Linear=nn.Linear, GroupNorm=nn.GroupNorm, LayerNorm=nn.LayerNorm, Conv2d=nn.Conv2d,
                            conv_nd=lambda dims, *args, **kwargs: nn.Conv2d(*args, **kwargs))


class Schedule(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """The noise levels of Stable Diffusion 1.5, which the host gives every model that says nothing else."""


def new_unet(seed: int = 0) -> UNetModel:
    """An untrained UNet; as usual for diffusion models the last layer of every block starts at zero."""
    torch.manual_seed(seed)
    unet = UNetModel(**UNET_CONFIG, dtype=torch.float32, operations=TRAINABLE)
    last = [unet.out[2]]
    last += [m.out_layers[3] for m in unet.modules() if isinstance(m, ResBlock)]
    last += [m.proj_out for m in unet.modules() if isinstance(m, SpatialTransformer)]
    for layer in last:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return unet


def reader(unet: nn.Module, contexts: Tensor, latents: Tensor, seed: int = 0):
    """`read` for rg_core.training: noises `latents` [N, 3, H, W], runs `unet` with `contexts` [N, 3, WIDTH]."""
    sigmas = Schedule().sigmas
    rng = torch.Generator().manual_seed(seed)
    where = next(unet.parameters()).device

    def read(pick: Tensor, t: Tensor) -> taps.Reading:
        sigma = sigmas[t][:, None, None, None]
        x0 = latents[pick]
        x = (x0 + sigma * torch.randn(x0.shape, generator=rng)) / (1 + sigma**2).sqrt()
        with torch.no_grad(), taps.record(unet) as readings:
            unet(x.to(where), t.to(where).float(), context=contexts[pick].to(where))
        return readings[0]

    return read
