"""What a peer or a head learns from: drawn images of the demo world, each with the image that stands for it in a control."""
from dataclasses import dataclass, field

import torch
from torch import Tensor

from readout_guidance_pack.heads.demo import text, world
from readout_guidance_pack.rg_core.images import control_images

KINDS = ("pose", "depth", "edge")
BLOCK = 128  # drawn at a time, so that the first of many pairs are those of few
SEED, HELD_OUT_SEED = 7000, 7001


@dataclass(frozen=True)
class Pairs:
    """Scenes as PNG files would hold them. A hint is drawn when it is first asked for: a skeleton takes a fiftieth of a second."""
    kind: str
    pixels: Tensor     # [N, 3, H, W], bytes
    tokens: Tensor     # [N, 3], their prompts
    keypoints: Tensor  # [N, 18, 3]
    nearness: Tensor   # [N, H, W]
    known: dict[int, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, pick: Tensor) -> Tensor:
        """Of the pairs `pick` [B] the images [B, 3, H, W], 0 to 1."""
        return self.pixels[pick].float() / 255

    def hints(self, pick: Tensor) -> Tensor:
        """Of the pairs `pick` [B] what stands for them in a control [B, 3, H, W], 0 to 1: the skeleton, the depth map or the edges."""
        for i in pick.tolist():
            if i not in self.known:
                self.known[i] = hints(self.kind, self.images(torch.tensor([i])), self.keypoints[i:i + 1], self.nearness[i:i + 1])[0]
        return torch.stack([self.known[i] for i in pick.tolist()])


def hints(kind: str, images: Tensor, keypoints: Tensor, nearness: Tensor) -> Tensor:
    """The control images [B, 3, H, W] of scenes, 0 to 1, as large as their images."""
    if kind == "pose":
        size = tuple(images.shape[-2:])
        return torch.cat([control_images.fit(control_images.draw_pose(points[:, None], (4 * size[0], 4 * size[1]), size), size)
                          for points in keypoints.split(32)])
    grey = nearness if kind == "depth" else world.edges(images)
    return grey[:, None].expand(-1, 3, -1, -1)


def drawn(kind: str, count: int, seed: int = SEED) -> Pairs:
    """`count` pairs, the same for the same `seed`; fewer are the first of more."""
    rng = torch.Generator().manual_seed(seed)
    blocks = [world.draw(BLOCK, rng=rng) for _ in range(0, count, BLOCK)]

    def joined(part) -> Tensor:
        return torch.cat([part(block) for block in blocks])[:count]

    return Pairs(kind, joined(lambda block: (block.image * 255).round().byte()),
                 joined(lambda block: text.tokens(block.shirt, block.trousers, block.scene)), joined(lambda block: block.keypoints),
                 joined(lambda block: block.nearness))
