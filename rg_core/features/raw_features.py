"""The taps as they are, in the place of a head that compares two images.

Decoder features correspond between images without any training (Tang et al., "Emergent Correspondence from Image Diffusion",
arXiv 2306.03881). Each channel is brought to mean 0 and deviation 1 over the image, so that none counts more for being large,
and no tap counts more for being wide. docs/measurements/features.md has the measurements that chose this form.
"""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..images.resize import resize


class Features(nn.Module):
    """Stands where a ReadoutHead stands, fits any model that has taps, and has no weights. `stride` as a head's, of models whose patches have up to
    four latent pixels along a side; larger by as much as patches are on others."""

    kind, base_model, channels, output_head, start, taps, pooled, config = "features", "", None, None, 0.0, None, False, {}

    def __init__(self, stride: int = 2):
        super().__init__()
        self.stride = stride

    def forward(self, features: Sequence[Tensor], _emb: Tensor, size: tuple[int, int]) -> Tensor:
        """Features, each [B, C_l, h_l, w_l], to a readout [B, sum of C_l, *size]."""
        return torch.cat([resize(normed(x), size) * x.shape[1] ** -0.5 for x in features], 1)


def normed(x: Tensor) -> Tensor:
    """`x` [B, C, h, w], each channel with mean 0 and deviation 1 over its image."""
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    return (x - mean) * (variance + 1e-5).rsqrt()


AS_THEY_ARE = Features()  # one for all targets, so that a reference is read once for all of them
