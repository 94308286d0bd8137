"""Trains the demo world's diffusion models from nothing."""
import copy
import math
import time

import torch
from torch import Tensor, nn

from readout_guidance_pack.heads.demo import text, world

SHAPES = {(64, 64): 16384, (48, 80): 4096, (80, 48): 4096}  # height, width: how many images
# Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", arXiv 2303.09556, equation 8: their cap of
# 5 draws figures soonest; raised in the second half, it also cleans the grain that is left.
LOSS_SNR_CAPS = 5.0, 20.0
EMA_DECAY = 0.999


def drawn(seed: int) -> list[tuple[Tensor, Tensor]]:
    """For each of SHAPES its images [N, 3, H, W] as bytes and their tokens [N, 3]."""
    rng = torch.Generator().manual_seed(seed)
    sets = []
    for (height, width), count in SHAPES.items():
        samples = [world.draw(128, height, width, rng=rng) for _ in range(count // 128)]
        images = torch.cat([(s.image * 255).round().byte() for s in samples])
        tokens = torch.cat([text.tokens(s.shirt, s.trousers, s.scene) for s in samples])
        sets.append((images, tokens))
    return sets


class Noise:
    """What a network learns that predicts noise, at the levels `sigmas` [T]."""

    def __init__(self, sigmas: Tensor):
        self.sigmas = sigmas

    def draw(self, x0: Tensor, late: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of images [B, 3, H, W], noised: what the network is given, its timesteps [B], what it should predict, and what the error of each
        counts; `late` in the training or not."""
        return self.noised(x0, torch.randint(len(self.sigmas), (len(x0),)).to(x0.device), late)

    def noised(self, x0: Tensor, t: Tensor, late: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same at the timesteps `t` [B]."""
        sigma = self.sigmas.to(x0.device)[t][:, None, None, None]
        noise = torch.randn(x0.shape).to(x0.device)
        return (x0 + sigma * noise) / (1 + sigma**2).sqrt(), t.float(), noise, (sigma**2 * LOSS_SNR_CAPS[late]).clamp(max=1)


class Flow:
    """What a network learns that predicts the way from image to noise; most often halfway, as Esser et al., "Scaling Rectified Flow
    Transformers", arXiv 2403.03206, section 3.1, logit-normal with location 0 and scale 1."""

    def draw(self, x0: Tensor, late: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As of Noise."""
        t = torch.randn(len(x0)).sigmoid().to(x0.device)
        sigma = t[:, None, None, None]
        noise = torch.randn(x0.shape).to(x0.device)
        return (1 - sigma) * x0 + sigma * noise, t, noise - x0, torch.ones_like(sigma)


def train(unet: nn.Module, words: text.TextEncoder, learns: Noise | Flow, steps: int, *, first: int = 0, batch: int = 16,
          lr: float = 7e-4, seed: int = 0, device: torch.device = torch.device("cpu"), save=None) -> tuple[nn.Module, nn.Module]:
    """Trains `unet`, whatever it is, and its text encoder `words`; returns averaged copies.

    `save(unet, words, step)` is called now and then with the averages so far; `first` takes training up again there.
    """
    torch.manual_seed(seed + first)
    data = drawn(seed)
    model = nn.ModuleDict({"unet": unet, "text": words}).to(device).train()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
    share = torch.tensor([float(len(images)) for images, _ in data])
    print("diffusion model: the pictures are drawn, training begins", flush=True)
    rolling, start = None, time.monotonic()
    for step in range(first, steps):
        warm, cool = min(1.0, (step - first + 1) / 300), 0.5 + 0.5 * math.cos(math.pi * step / steps)
        optimizer.param_groups[0]["lr"] = lr * warm * cool
        images, tokens = data[torch.multinomial(share, 1).item()]
        pick = torch.randint(len(images), (batch,))
        x0 = images[pick].to(device).float() / 127.5 - 1
        context = model["text"](text.drop(tokens[pick]).to(device))
        x, t, wanted, weight = learns.draw(x0, 2 * step >= steps)
        with torch.autocast(device.type, torch.bfloat16):
            predicted = model["unet"](x, t, context=context)
        loss = (weight * (predicted.float() - wanted) ** 2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(EMA_DECAY, (step - first + 1) / (step - first + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        rolling = loss.item() if rolling is None else 0.99 * rolling + 0.01 * loss.item()
        if (step + 1) % 100 == 0:
            print(f"diffusion model: step {step + 1} of {steps}, loss {rolling:.4f}, "
                  f"{time.monotonic() - start:.0f} s", flush=True)
        if save and (step + 1) % 500 == 0:
            save(average["unet"], average["text"], step + 1)
    return average["unet"], average["text"]
