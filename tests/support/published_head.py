"""The published head by its formulas, in float64."""
import torch
import torch.nn.functional as F

from readout_guidance_pack.rg_core.readout.head import ReadoutHead

CHANNELS, SIZES, SIZE = [64, 64, 32], [(3, 5), (6, 10), (12, 20)], (12, 20)


def inputs(emb_channels=48, batch=2):
    rng = torch.Generator().manual_seed(0)
    features = [torch.randn(batch, c, *s, generator=rng, dtype=torch.float64) for c, s in zip(CHANNELS, SIZES)]
    return features, torch.randn(batch, emb_channels, generator=rng, dtype=torch.float64)


def randomised(head: ReadoutHead) -> ReadoutHead:
    rng = torch.Generator().manual_seed(1)
    for parameter in head.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng) * 0.2
    return head


def by_the_formulas(weights: dict, features, emb, size, spatial: bool, tanh: bool):
    """Resize first, then block by block; `weights` are the published names, in float64."""
    def norm(x, name):
        return F.group_norm(x, 32, weights[f"{name}.norm.weight"], weights[f"{name}.norm.bias"])

    blocks = []
    for layer, x in enumerate(features):
        at = f"bottleneck_layers.{layer}"
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        hidden = F.relu(norm(F.conv2d(x, weights[f"{at}.conv1.weight"]), f"{at}.conv1"))
        if f"{at}.emb_layers.weight" in weights:
            shift = F.relu(F.linear(emb, weights[f"{at}.emb_layers.weight"], weights[f"{at}.emb_layers.bias"]))
            hidden = hidden + shift[:, :, None, None]
        hidden = F.relu(norm(F.conv2d(hidden, weights[f"{at}.conv2.weight"], padding=1), f"{at}.conv2"))
        hidden = norm(F.conv2d(hidden, weights[f"{at}.conv3.weight"]), f"{at}.conv3")
        blocks.append(F.relu(hidden + norm(F.conv2d(x, weights[f"{at}.shortcut.weight"]), f"{at}.shortcut")))
    mixed = torch.einsum("l,lbchw->bchw", torch.softmax(weights["mixing_weights"], 0), torch.stack(blocks))
    if not spatial:
        return mixed
    for index, padding in ((0, 1), (2, 1), (4, 0)):
        mixed = F.conv2d(mixed, weights[f"output_head.{index}.weight"], weights[f"output_head.{index}.bias"], padding=padding)
        mixed = F.silu(mixed) if index < 4 else mixed
    return mixed.tanh() if tanh else mixed
