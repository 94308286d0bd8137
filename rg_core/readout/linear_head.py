"""A head that is one linear map of the taps for each band of noise, as fitting.py makes them."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..images.resize import resize, size_of


class LinearHead(nn.Module):
    """Stands where a ReadoutHead stands. Each tap is mapped at its own resolution, then resized and added. Between the middles of
    two bands the maps are blended.

    The noise level is told by the timestep's embedding: `levels` [M, E] are those at M equally distant shares of the noise
    schedule, 0 and 1 among them; the bands are its equal parts. `weights` are [bands, outputs, C_l] for each tap, `bias` is
    [bands, outputs]. `start` is the share from which on it reads anything worth guiding by, `taps` as of a ReadoutHead. A head that
    `compares` gives features of two images to compare, a `pooled` one a map whose mean says how much an image has of something,
    any other one a map in `control_range`. One whose `fold` is above 1 reads taps of one size, and `fold` x `fold` values in each place of them:
    a transformer's tokens are coarse, and each tells what is where within it.
    """
    levels: Tensor

    def __init__(self, kind: str, levels: Tensor, weights: Sequence[Tensor], bias: Tensor, *, compares: bool = False, pooled: bool = False,
                 control_range: tuple[float, float] = (-0.5, 0.5), base_model: str = "", stride: int = 2, start: float = 0.0,
                 taps: Sequence[str] | None = None, fold: int = 1, config: dict | None = None):
        super().__init__()
        self.kind, self.base_model, self.stride, self.start = kind, base_model, stride, start
        self.output_head, self.pooled = None if compares else True, pooled
        low, high = control_range
        self.channels, self.control_range, self.config = [w.shape[2] for w in weights], (low, high), config or {}
        self.taps, self.fold = taps and tuple(taps), fold
        self.register_buffer("levels", levels)
        self.weights = nn.ParameterList(weights)
        self.bias = nn.Parameter(bias)

    def forward(self, features: Sequence[Tensor], emb: Tensor, size: tuple[int, int]) -> Tensor:
        """Features, each [B, C_l, h_l, w_l], and the embedding [B, E] to a readout [B, outputs, *size]."""
        blend, grid = self.blend(emb), size if self.fold == 1 else size_of(features[0])
        readout = (blend @ self.bias)[:, :, None, None]
        for x, weight in zip(features, self.weights, strict=True):
            mapped = torch.einsum("bn,noc,bchw->bohw", blend, weight, x)
            readout = readout + resize(mapped, grid)
        return readout if self.fold == 1 else fitted_to(F.pixel_shuffle(readout, self.fold), size, self.fold)

    def blend(self, emb: Tensor) -> Tensor:
        """How much of each band's map counts for each image, [B, bands], by the embeddings [B, E]."""
        bands = len(self.bias)
        share = torch.cdist(emb.float(), self.levels).argmin(1) / max(1, len(self.levels) - 1)
        place = (share * bands - 0.5).clamp(0, bands - 1)
        return (1 - (place[:, None] - torch.arange(bands, device=place.device)).abs()).clamp(min=0)


def fitted_to(x: Tensor, size: tuple[int, int], fold: int) -> Tensor:
    """A readout [B, C, h, w] of whole tokens in the `size` (H, W) of the image, which ends within its last tokens; resized for other sizes."""
    if all(0 <= n - m < fold for n, m in zip(x.shape[-2:], size)):
        return x[..., :size[0], :size[1]]
    return resize(x, size)


def from_maps(kind: str, channels: Sequence[int], maps: Sequence[tuple[Tensor, Tensor]], levels: Tensor, **more) -> LinearHead:
    """The head of the maps [sum of `channels`, outputs] and biases [outputs] of each band, noisiest first, as `Sums.solve` gives
    them; `levels` and `more` as for LinearHead."""
    with torch.inference_mode(False):  # autograd runs through heads
        weights = torch.stack([w.mT.float() for w, _ in maps]).split(list(channels), 2)
        bias = torch.stack([b.float() for _, b in maps])
        return LinearHead(kind, levels.float().clone(), [w.clone() for w in weights], bias, **more).eval().requires_grad_(False)
