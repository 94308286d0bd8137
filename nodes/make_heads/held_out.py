"""Which images are held out, to judge a head by: none that it has learnt from, also not as a copy."""
import torch
import torch.nn.functional as F
from torch import Tensor

HELD_OUT = 0.2    # of the images
MOST_HELD_OUT = 16
SIDE, ALIKE = 16, 0.05  # of the small images that are compared, and how much of one may differ in a copy of it


def distinct(images: list[Tensor]) -> list[list[int]]:
    """The places of `images` [1, C, ..., H, W], those of the same one together, in the order in which each comes first."""
    small = torch.stack([F.adaptive_avg_pool2d(x.flatten(1, -3).float(), SIDE).flatten() for x in images]) if images else torch.zeros(0, 1)
    found: list[list[int]] = []
    for i, x in enumerate(small):
        firsts = small[[places[0] for places in found]]
        near = (firsts - x).norm(dim=1) <= ALIKE * x.norm() + 1e-12
        if near.any():
            found[int(near.int().argmax())].append(i)
        else:
            found.append([i])
    return found


def split(node: str, several: list[list[int]], rng: torch.Generator) -> tuple[list[int], list[int]]:
    """The places of images to learn from, and of those to judge by, at random; those of one image, as `distinct` has them, stay together."""
    count = sum(map(len, several))
    if len(several) < 2:
        raise ValueError(f"{node}: all {count} images are the same one, but a head is evaluated on other images than it is made from. Use "
                         "images that differ.")
    most = max(1, min(MOST_HELD_OUT, round(HELD_OUT * count)))
    rest, held = [], []
    for k in torch.randperm(len(several), generator=rng).tolist():
        (held if len(held) < most else rest).extend(several[k])
    return (rest, held) if rest else (several[k], [i for i in held if i not in several[k]])
