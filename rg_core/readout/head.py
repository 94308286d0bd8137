"""The readout head: a small network that reads a property out of a diffusion model's features.

The architecture is that of Luo et al., "Readout Guidance", CVPR 2024, section 3.2 and appendix: a bottleneck block for
each tap, a softmax-weighted sum of their outputs and, for spatial properties, three convolutions.
"""
from collections.abc import Sequence
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..images.resize import resize

GROUPS = 32


class NormedConv(nn.Conv2d):
    """A convolution without bias whose output is group-normalised; `self(x)` convolves, `self.norm(...)` normalises.

    Kept apart because the 1x1 convolutions commute with a bilinear resize and the normalisation does not.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(GROUPS, outputs)

    def normed(self, x: Tensor, weight: Tensor) -> Tensor:
        """`self.norm(x) * weight`, a number, without a product for each pixel."""
        return F.group_norm(x, GROUPS, self.norm.weight * weight, self.norm.bias * weight, self.norm.eps)


class Bottleneck(nn.Module):
    """One tap's block: features [B, C, h, w] to [B, projection_dim, H, W], times `weight`, which is not negative. After `rescale` every
    channel counts alike at first: in transformers a few are a thousand times larger than the rest (Gan et al., "Unleashing Diffusion
    Transformers for Visual Correspondence by Modulating Massive Activations", arXiv 2505.18584), which a group's norm does not undo."""

    def __init__(self, inputs: int, projection_dim: int, emb_channels: int | None):
        super().__init__()
        width = projection_dim // 4
        self.conv1 = NormedConv(inputs, width, 1)
        self.conv2 = NormedConv(width, width, 3)
        self.conv3 = NormedConv(width, projection_dim, 1)
        self.shortcut = NormedConv(inputs, projection_dim, 1)
        self.emb_layers = nn.Linear(emb_channels, width) if emb_channels else None
        self.register_buffer("mean", None)
        self.register_buffer("deviation", None)

    def rescale(self, mean: Tensor, deviation: Tensor) -> None:
        """Each channel is brought from this mean [C] and deviation [C] to 0 and 1 from now on."""
        self.mean, self.deviation = mean, deviation

    def forward(self, x: Tensor, emb: Tensor, size: tuple[int, int], weight: Tensor) -> Tensor:
        if self.mean is not None:
            x = (x - self.mean[:, None, None]) / self.deviation[:, None, None]
        # The 1x1 convolutions commute with the resize: they run on the smaller side of it.
        if x.shape[-2:].numel() > size[0] * size[1]:
            x = resize(x, size)
        hidden = F.relu(self.conv1.norm(resize(self.conv1(x), size)))
        if self.emb_layers is not None:
            hidden = hidden + F.relu(self.emb_layers(emb))[:, :, None, None]
        hidden = F.relu(self.conv2.norm(self.conv2(hidden)))
        hidden = self.conv3.normed(self.conv3(hidden), weight)
        return hidden.add(self.shortcut.normed(resize(self.shortcut(x), size), weight)).relu_()


class ReadoutHead(nn.Module):
    """Reads a property of the image from the taps' features.

    `kind` says which one: pose, depth, edge, appearance, identity, correspondence or keypoints. `channels` are the taps'
    channels that it was trained on, `control_range` the (low, high) of a spatial head's readout, `base_model` the
    diffusion model it belongs to. A head reads at the latent's size over `stride`, which is 1 for the published heads.
    `start` is the share of the noise schedule from which on it reads anything worth guiding by, `taps` the names of those that it was
    trained on, None for the model's default ones.
    `emb_channels` is None for heads without a timestep embedding, `out_channels` None
    for relative heads, which return the `projection_dim` channels themselves. `config` is what else its file says of it.
    """

    pooled = False  # as of a LinearHead

    def __init__(self, kind: str, channels: Sequence[int], *, projection_dim: int = 384,
                 emb_channels: int | None = 1280, out_channels: int | None = 3, hidden: tuple[int, int] = (128, 32),
                 tanh: bool = True, control_range: tuple[float, float] = (-0.5, 0.5), base_model: str = "", stride: int = 1,
                 start: float = 0.0, taps: Sequence[str] | None = None, config: dict | None = None):
        super().__init__()
        self.kind, self.channels, self.base_model, self.stride, self.start = kind, list(channels), base_model, stride, start
        low, high = control_range
        self.control_range, self.taps, self.config = (low, high), taps and tuple(taps), config or {}
        self.mixing_weights = nn.Parameter(torch.ones(len(self.channels)))
        self.bottleneck_layers = nn.ModuleList(Bottleneck(c, projection_dim, emb_channels) for c in self.channels)
        self.output_head = None
        if out_channels is not None:
            layers = [nn.Conv2d(projection_dim, hidden[0], 3, padding=1), nn.SiLU(),
                      nn.Conv2d(hidden[0], hidden[1], 3, padding=1), nn.SiLU(), nn.Conv2d(hidden[1], out_channels, 1)]
            self.output_head = nn.Sequential(*layers, *([nn.Tanh()] if tanh else []))

    def forward(self, features: Sequence[Tensor], emb: Tensor, size: tuple[int, int]) -> Tensor:
        """Features, each [B, C_l, h_l, w_l], and the embedding [B, E] to a readout [B, channels, *size]."""
        mix = self.mixing_weights.softmax(0)
        mixed = reduce(add, (layer(x, emb, size, w) for w, layer, x in zip(mix, self.bottleneck_layers, features, strict=True)))
        return mixed if self.output_head is None else self.output_head(mixed)
