"""Trains readout heads on a frozen diffusion model.

Works on any model that has taps: the caller hands over a function that noises its own latents and reads the taps.
Source of the recipe: Luo et al., "Readout Guidance", CVPR 2024, section 3.2 (features at random noise levels, a mean
squared error against the property's picture).
"""
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .head import ReadoutHead
from .taps import Reading

Read = Callable[[Tensor, Tensor], Reading]


def train_spatial(heads: dict[str, ReadoutHead], read: Read, targets: dict[str, Tensor], timesteps: int, steps: int, *,
                  batch: int = 16, lr: float = 1e-3, seed: int = 0, report: Callable[[str], None] = print) -> None:
    """Trains spatial `heads` in place, all on the same features, so that reading them is paid for once.

    `read(indices [B], t [B])` noises the latents with these indices to these timesteps, 0 to `timesteps` - 1, and
    returns the taps' reading; `targets[name]` [N, channels, H, W] is what head `name` should read, in its control
    range, for latent 0 to N - 1. The heads decide the device. Adam with a cosine-shaped learning rate; each head's
    loss is in units of its control range, squared.
    """
    rng = torch.Generator().manual_seed(seed)
    modules = nn.ModuleDict(heads).train().requires_grad_()
    device = next(modules.parameters()).device
    optimizer = torch.optim.Adam(modules.parameters(), lr=lr)
    count = len(next(iter(targets.values())))
    rolling, start = dict.fromkeys(heads, 0.0), time.monotonic()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        pick = torch.randint(count, (batch,), generator=rng)
        with torch.no_grad():
            reading = read(pick, torch.randint(timesteps, (batch,), generator=rng))
        losses = {}
        for name, head in heads.items():
            wanted = targets[name][pick].to(device)
            low, high = head.control_range
            readout = head([f.float() for f in reading.features], reading.emb.float(), tuple(wanted.shape[-2:]))
            losses[name] = ((readout - wanted) / (high - low)).square().mean()
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        optimizer.step()
        for name, loss in losses.items():
            rolling[name] = loss.item() if step == 0 else 0.98 * rolling[name] + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            report(f"heads: step {step + 1} of {steps}, "
                   + ", ".join(f"{name} {loss:.4f}" for name, loss in rolling.items())
                   + f", {time.monotonic() - start:.0f} s")
    modules.eval().requires_grad_(False)


@torch.no_grad()
def explained(head: ReadoutHead, read: Read, target: Tensor, t: int, *, batch: int = 32) -> float:
    """How much of `target`'s variance [N, channels, H, W] around its mean picture `head` reads at timestep `t`; at most 1."""
    error = spread = 0.0
    mean = target.mean(0, keepdim=True)
    for pick in torch.arange(len(target)).split(batch):
        reading = read(pick, torch.full((len(pick),), t))
        readout = head([f.float() for f in reading.features], reading.emb.float(), tuple(target.shape[-2:])).cpu()
        error += (readout - target[pick]).square().sum().item()
        spread += (mean - target[pick]).square().sum().item()
    return 1 - error / spread
