"""What a peer or a head learns from: drawn images of the demo world, each with the image that stands for it in a control."""
from dataclasses import dataclass

import torch
from torch import Tensor

from readout_guidance_pack.heads.demo import text, world
from readout_guidance_pack.rg_core.images import control_images

KINDS = ("pose", "depth", "edge")
BLOCK = 128  # drawn at a time, so that the first of many pairs are those of few
SEED, HELD_OUT_SEED = 7000, 7001


@dataclass(frozen=True)
class Pairs:
    images: Tensor  # [N, 3, H, W], 0 to 1
    tokens: Tensor  # [N, 3], their prompts
    hints: Tensor   # [N, 3, H, W], 0 to 1: the skeleton, the depth map or the edges

    def __len__(self) -> int:
        return len(self.images)


def hints(sample: world.Sample, kind: str) -> Tensor:
    """The control images [B, 3, H, W] of scenes, 0 to 1, as large as they are."""
    if kind == "pose":
        size = tuple(sample.image.shape[-2:])
        return torch.cat([control_images.fit(control_images.draw_pose(points[:, None], (4 * size[0], 4 * size[1]), size), size)
                          for points in sample.keypoints.split(32)])
    grey = sample.nearness if kind == "depth" else world.edges(sample.image)
    return grey[:, None].expand(-1, 3, -1, -1)


def drawn(kind: str, count: int, seed: int = SEED) -> Pairs:
    """`count` pairs, the same for the same `seed`; fewer are the first of more."""
    rng = torch.Generator().manual_seed(seed)
    blocks = [world.draw(BLOCK, rng=rng) for _ in range(0, count, BLOCK)]
    images = torch.cat([block.image for block in blocks])[:count]
    tokens = torch.cat([text.tokens(block.shirt, block.trousers, block.scene) for block in blocks])[:count]
    return Pairs(images, tokens, torch.cat([hints(block, kind) for block in blocks])[:count])
