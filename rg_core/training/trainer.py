"""Training step by step: it can stop between any two steps, be saved, and go on as if it had not."""
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..readout.head import ReadoutHead
from .processes import ALONE, Processes

MOMENTS = ("exp_avg", "exp_avg_sq")  # what Adam remembers of each weight
WARM_UP = 50  # steps

Losses = Callable[[torch.Generator], Iterable[dict[str, Tensor]]]
Schedule = Callable[[float, int, int], float]


class Diverged(ValueError):
    """The loss is no number any more."""


def cosine(lr: float, step: int, steps: int) -> float:
    """The learning rate of step 0 to `steps` - 1: up to `lr` in WARM_UP of them, and down to 0 at the end."""
    return lr * min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def constant(lr: float, step: int, steps: int) -> float:
    return lr


class Trainer:
    """Trains `heads` in place by Adam: `losses(rng)` draws a batch and yields, for each part of it that fits into memory at a time, the
    loss of each head by name; where several `processes` train together, its own share of it. What a step does depends on the seed, on the steps
    before it and on how many there will be."""

    def __init__(self, heads: dict[str, ReadoutHead], losses: Losses, steps: int, *, lr: float = 1e-3, seed: int = 0,
                 schedule: Schedule = cosine, processes: Processes = ALONE):
        self.losses, self.steps, self.lr, self.schedule, self.processes = losses, steps, lr, schedule, processes
        self.modules = nn.ModuleDict(heads).train().requires_grad_()
        self.optimizer = torch.optim.Adam(self.modules.parameters(), lr=lr)
        self.rng = torch.Generator().manual_seed(seed)
        self.done, self.dice = 0, self.rng.get_state()  # after whole steps: one that breaks off has rolled the dice for nothing
        self.torn = False  # a step broke off while it changed the weights: there is nothing to go on from

    def step(self) -> dict[str, float]:
        """One step; the losses before it. Raises Diverged."""
        self.optimizer.param_groups[0]["lr"] = self.schedule(self.lr, self.done, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        found: dict[str, float] = {}
        for part in self.losses(self.rng):
            torch.stack([*part.values()]).sum().backward()
            for name, loss in part.items():
                found[name] = found.get(name, 0.0) + loss.item()
        found = self.added_up(found)
        if not all(map(math.isfinite, found.values())):
            raise Diverged(f"the loss is {sum(found.values())} at step {self.done + 1}")
        self.torn = True
        self.optimizer.step()
        self.done, self.dice, self.torn = self.done + 1, self.rng.get_state(), False
        return found

    def added_up(self, found: dict[str, float]) -> dict[str, float]:
        """The losses of all processes, whose gradients each has from now on."""
        if self.processes.count == 1:
            return found
        losses, gradients = [torch.tensor(found.get(name, 0.0)) for name in self.modules], []
        for weight in self.modules.parameters():
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            gradients.append(weight.grad)
        self.processes.add([*gradients, *losses])
        return dict(zip(self.modules, (loss.item() for loss in losses)))

    def finish(self) -> None:
        """Has the heads read, as they are, from now on."""
        self.modules.eval().requires_grad_(False)

    def state(self) -> dict[str, Tensor]:
        """All that the next steps depend on beside the heads' weights, after one step at least."""
        moments = {f"{name}.{key}": self.optimizer.state[weight][key] for name, weight in self.modules.named_parameters() for key in MOMENTS}
        return moments | {"dice": self.dice}

    def restore(self, done: int, state: dict[str, Tensor]) -> None:
        """Goes on after `done` steps that left the heads' weights as they are, and this `state`. Raises ValueError for one of other heads, or
        a damaged one."""
        for name, weight in self.modules.named_parameters():
            moments = {}
            for key in MOMENTS:
                x = state.get(f"{name}.{key}")
                if x is None or x.shape != weight.shape or x.dtype != weight.dtype or not x.isfinite().all():
                    raise ValueError(f"the optimizer state of {name} is damaged or missing")
                moments[key] = x.to(weight.device, copy=True)
            self.optimizer.state[weight] = moments | {"step": torch.tensor(float(done))}
        try:
            self.rng.set_state(state["dice"])
        except (KeyError, RuntimeError, TypeError) as error:
            raise ValueError("the state of the random numbers is damaged or missing") from error
        self.done, self.dice = done, self.rng.get_state()
