"""Several processes that train one head together. torchrun and accelerate start them and say so in the environment (RANK, WORLD_SIZE, ...)."""
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

Some = TypeVar("Some")


@dataclass(frozen=True)
class Processes:
    """This one is number `rank` of `count`. All must make the same calls in the same order."""
    rank: int = 0
    count: int = 1
    device: torch.device | None = None  # where what they tell each other lies

    def share(self, items: Sequence[Some]) -> list[Some]:
        """Those of `items` that are this process's."""
        return list(items[self.rank::self.count])

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Each of `tensors`, in place, is the sum of what all processes have there."""
        if self.count > 1:
            together = torch.cat([x.flatten().to(self.device, torch.float32) for x in tensors])
            distributed.all_reduce(together)
            for x, summed in zip(tensors, together.split([x.numel() for x in tensors]), strict=True):
                x.copy_(summed.view_as(x))

    def any(self, flag: bool) -> bool:
        """Whether it is so in one of them."""
        told = torch.tensor([float(flag)], device=self.device)
        self.add([told])
        return bool(told > 0)


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Those that were started with this one; ALONE for none."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    cards = torch.cuda.is_available()
    distributed.init_process_group("nccl" if cards else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), torch.device("cuda" if cards else "cpu"))
    finally:
        distributed.destroy_process_group()
