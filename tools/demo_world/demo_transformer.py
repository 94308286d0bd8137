"""The demo's flow transformer, of the host's class for Lumina 2 and Z-Image, ready to be trained."""
from types import SimpleNamespace

from comfy.ldm.lumina.model import NextDiT
from torch import Tensor, nn

from readout_guidance_pack.heads.demo import text

# 256 tokens of an image of 64x64, and three of text.
CONFIG = {"patch_size": 4, "in_channels": 3, "dim": 192, "n_layers": 9, "n_refiner_layers": 1, "n_heads": 3, "n_kv_heads": 3, "multiple_of": 64,
          "ffn_dim_multiplier": 8 / 3, "qk_norm": True, "cap_feat_dim": text.WIDTH, "axes_dims": [16, 24, 24], "axes_lens": [64, 64, 64],
          "rope_theta": 256.0, "time_scale": 1000.0}
# The host's own layers skip initialisation; these are torch's.
TRAINABLE = SimpleNamespace(Linear=nn.Linear, RMSNorm=nn.RMSNorm, LayerNorm=nn.LayerNorm)


class Transformer(NextDiT):
    """Called as the demo's UNet is."""

    def forward(self, x: Tensor, t: Tensor, context: Tensor, **more) -> Tensor:
        return super().forward(x, t, context, context.shape[1], **more)


def new_transformer() -> Transformer:
    """An untrained one; as usual for diffusion models each block begins as the identity, and the last layer at zero."""
    network = Transformer(**CONFIG, operations=TRAINABLE)
    for name, weight in network.named_parameters():
        if "adaLN" in name or "final_layer.linear" in name:
            nn.init.zeros_(weight)
    return network
