"""The demo model's language: the colors of a shirt and of trousers, and a scene."""
import re

import torch
from torch import Tensor, nn

from .world import CLOTHES, SCENES

EMPTY = 0  # the token of whatever a prompt leaves open
VOCABULARY = ["", *(f"{c} shirt" for c in CLOTHES), *(f"{c} trousers" for c in CLOTHES), *SCENES]
WIDTH = 64
_FIRST = {"shirt": 1, "trousers": 1 + len(CLOTHES), "scene": 1 + 2 * len(CLOTHES)}


def tokens(shirt: Tensor, trousers: Tensor, scene: Tensor) -> Tensor:
    """Tokens [B, 3] of indices [B] into CLOTHES, CLOTHES and SCENES."""
    return torch.stack([shirt + _FIRST["shirt"], trousers + _FIRST["trousers"], scene + _FIRST["scene"]], -1)


def tokenize(prompt: str) -> list[int]:
    """The three tokens of a prompt; EMPTY where it says nothing about shirt, trousers or scene.

    Other words are passed over; of two phrases about the same thing the first counts.
    """
    said = re.sub(r"[^a-z]+", " ", prompt.lower())

    def first(phrases: list[str]) -> int:
        found = [(match.start(), VOCABULARY.index(p)) for p in phrases if (match := re.search(rf"\b{p}\b", said))]
        return min(found)[1] if found else EMPTY

    return [first([v for v in VOCABULARY if v.endswith(" shirt")]),
            first([v for v in VOCABULARY if v.endswith(" trousers")]), first(list(SCENES))]


def drop(said: Tensor) -> Tensor:
    """Tokens [B, 3] with some left open, so that the model also learns to draw what no prompt asks for."""
    keep = (torch.rand(said.shape) > 0.1) & (torch.rand(len(said), 1) > 0.1)
    return torch.where(keep, said, EMPTY)


class TextEncoder(nn.Module):
    """Tokens [B, 3] to a context [B, 3, WIDTH]."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), WIDTH)

    def forward(self, said: Tensor) -> Tensor:
        return self.embedding(said)
