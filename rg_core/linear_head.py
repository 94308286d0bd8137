"""A head that is one linear map of the taps for each band of noise, as fitting.py makes them."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .features import normed
from .head import resize


class LinearHead(nn.Module):
    """Stands where a ReadoutHead stands. Taps are normalised as in features.py; each is mapped at its own resolution, then resized
    and added. Between the middles of two bands the maps are blended.

    The noise level is told by the timestep's embedding: `levels` [M, E] are those of M timesteps at equal distances, from the
    noisiest to the cleanest, over which the bands lie at equal distances too. `weights` are [bands, outputs, C_l] for each tap,
    `bias` is [bands, outputs].
    """

    output_head = True  # it reads a map of the picture, not something to compare

    def __init__(self, kind: str, levels: Tensor, weights: Sequence[Tensor], bias: Tensor, *,
                 control_range: tuple[float, float] = (-0.5, 0.5), base_model: str = "", stride: int = 2, config: dict | None = None):
        super().__init__()
        self.kind, self.base_model, self.stride = kind, base_model, stride
        self.channels, self.control_range, self.config = [w.shape[2] for w in weights], tuple(control_range), config or {}
        self.register_buffer("levels", levels)
        self.weights = nn.ParameterList(weights)
        self.bias = nn.Parameter(bias)

    def forward(self, features: Sequence[Tensor], emb: Tensor, size: tuple[int, int]) -> Tensor:
        """Features, each [B, C_l, h_l, w_l], and the embedding [B, E] to a readout [B, outputs, *size]."""
        blend = self.blend(emb)
        readout = (blend @ self.bias)[:, :, None, None]
        for x, weight in zip(features, self.weights, strict=True):
            mapped = torch.einsum("bn,noc,bchw->bohw", blend, weight, normed(x))
            readout = readout + resize(mapped, size)
        return readout

    def blend(self, emb: Tensor) -> Tensor:
        """How much of each band's map counts for each picture, [B, bands], by the embeddings [B, E]."""
        bands = len(self.bias)
        nearest = torch.cdist(emb.float(), self.levels).argmin(1)
        place = nearest / max(1, len(self.levels) - 1) * (bands - 1)
        return (1 - (place[:, None] - torch.arange(bands, device=place.device)).abs()).clamp(min=0)
