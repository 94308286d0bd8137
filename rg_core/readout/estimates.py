"""Estimates: what a head has read, as something to look at or to steer with."""
import torch
from torch import Tensor

VISIBLE = 0.1  # what a heatmap must exceed; from the description of the published keypoint heads


def from_range(readout: Tensor, control_range: tuple[float, float]) -> Tensor:
    """A readout in a head's control range as an image in 0 to 1; the way back from `control_images.to_range`."""
    low, high = control_range
    return ((readout - low) / (high - low)).clamp(0, 1)


def keypoints(heatmaps: Tensor, size: tuple[int, int]) -> Tensor:
    """The points [B, K, 3] (x, y, confidence) at the peaks of `heatmaps` [B, K, h, w], in an image of `size` (H, W).

    The confidence is the peak's height up to 1, and 0 for a point that is not visible.
    """
    height, width = heatmaps.shape[-2:]
    peak, at = heatmaps.flatten(2).max(-1)
    x, y = (at % width + 0.5) * size[1] / width, (at // width + 0.5) * size[0] / height
    return torch.stack([x, y, peak.clamp(max=1) * (peak > VISIBLE)], -1)


def colors(features: Tensor) -> Tensor:
    """The three principal components of `features` [B, C, h, w] over all images, each stretched to 0 to 1; [B, 3, h, w]."""
    x = features.movedim(1, -1).flatten(0, 2).double()
    x = x - x.mean(0)
    axes = torch.linalg.eigh(x.T @ x).eigenvectors[:, -3:].flip(1)  # by falling variance
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # an eigenvector's sign is arbitrary
    x = x @ axes
    x = (x - x.amin(0)) / (x.amax(0) - x.amin(0)).clamp(min=1e-12)
    return x.float().unflatten(0, (len(features), *features.shape[-2:])).movedim(-1, 1)
