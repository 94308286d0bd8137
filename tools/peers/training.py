"""How a peer learns, by the recipe of its authors; the UNet stays as it is."""
import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from readout_guidance_pack.heads.demo import text
from tools.demo_world import demo_training, demo_unet
from tools.peers import networks
from tools.peers.pairs import Pairs

IMAGES, LEVELS = 2, 4  # of a batch: images, and noise levels of each, for which its hint, most of the work, is read but once
LEARNING_RATE, WARM_UP, EMA_DECAY = 1e-3, 100, 0.995
UNPROMPTED = 0.5  # of a ControlNet's images; Zhang, Rao and Agrawala, arXiv 2302.05543, section 3.3
LEARNS = demo_training.Noise(demo_unet.Schedule().sigmas)


def levels(what: str, images: int) -> Tensor:
    """Timesteps [images * LEVELS], those of each image in equal parts of the schedule; of T2I-Adapters more of the early, noisy ones: 1 - u^3 for
    a uniform u (Mou et al., "T2I-Adapter", arXiv 2302.08453, section 3.4)."""
    share = (torch.arange(LEVELS) + torch.rand(images, LEVELS)) / LEVELS
    if what == "t2i":
        share = 1 - share**3
    return (share.flatten() * len(LEARNS.sigmas)).long().clamp(max=len(LEARNS.sigmas) - 1)


def predicted(what: str, network: nn.Module, unet: nn.Module, x: Tensor, t: Tensor, hint: Tensor, context: Tensor) -> Tensor:
    """The UNet's prediction [B * LEVELS, ...] with what `network` makes of the hints [B, 3, H, W]."""
    if what == "t2i":
        found = {name: [f if f is None else f.repeat_interleave(LEVELS, 0) for f in given] for name, given in network(hint).items()}
    else:
        with shared(network.input_hint_block):
            found = network(x=x, hint=hint, timesteps=t, context=context)
    return unet(x, t, context=context, control=found)


@contextmanager
def shared(block: nn.Module) -> Iterator[None]:
    """While it lasts, what a hint block gives is repeated for the LEVELS of each image."""
    handle = block.register_forward_hook(lambda module, given, found: found.repeat_interleave(LEVELS, 0))
    try:
        yield
    finally:
        handle.remove()


@dataclass
class Progress:
    """Where a training is: what is written beside its weights."""
    step: int = 0
    seconds: float = 0.0                         # of training, without looking how far it is
    history: list[dict] = field(default_factory=list)  # one entry each time it was looked at


class Training:
    """A peer of one kind that is being trained on `pairs`."""

    def __init__(self, what: str, unet: nn.Module, words: text.TextEncoder, pairs: Pairs):
        self.what, self.unet, self.words, self.pairs = what, unet, words, pairs
        self.network = networks.UNTRAINED[what](unet).train().requires_grad_()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.best = copy.deepcopy(self.average.state_dict())
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01)
        self.progress, self.rng = Progress(), torch.Generator().manual_seed(0).get_state()

    def step(self) -> float:
        """One batch's loss."""
        torch.set_rng_state(self.rng)
        start, step = time.monotonic(), self.progress.step
        self.optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP)
        pick = torch.randint(len(self.pairs), (IMAGES,))
        loss = self.loss(self.network, self.pairs, pick, levels(self.what, IMAGES))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)
        self.rng = torch.get_rng_state()
        self.progress.step, self.progress.seconds = step + 1, self.progress.seconds + time.monotonic() - start
        return loss.item()

    def loss(self, network: nn.Module, pairs: Pairs, pick: Tensor, t: Tensor) -> Tensor:
        """Of the images `pick` [B] at the timesteps `t` [B * LEVELS]."""
        said = text.drop(pairs.tokens[pick].repeat_interleave(LEVELS, 0))
        if self.what == "controlnet":
            said[torch.rand(len(said)) < UNPROMPTED] = text.EMPTY
        x0 = pairs.images(pick).repeat_interleave(LEVELS, 0) * 2 - 1
        x, t, wanted, weight = LEARNS.noised(x0, t, late=True)
        found = predicted(self.what, network, self.unet, x, t, pairs.hints(pick), self.words(said).detach())
        return (weight * (found - wanted) ** 2).mean()

    def save(self, file: Path) -> None:
        part = file.with_suffix(".part")
        torch.save({"network": self.network.state_dict(), "average": self.average.state_dict(), "best": self.best,
                    "optimizer": self.optimizer.state_dict(), "rng": self.rng, "progress": vars(self.progress)}, part)
        part.replace(file)

    def load(self, file: Path) -> None:
        found = torch.load(file, weights_only=True)
        for name in ("network", "average", "optimizer"):
            getattr(self, name).load_state_dict(found[name])
        self.best, self.rng, self.progress = found["best"], found["rng"], Progress(**found["progress"])
