"""What sampling costs: its time, its memory, and what it keeps for a backward pass."""
import ctypes
import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import comfy.samplers
import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

CFG = 3.0
STEPS = torch.tensor([5.0, 4.5, 4.0])  # noise levels of two steps, where all targets act


def sample(model, conditioning: list, shape: tuple, sigmas: Tensor = STEPS, sampler: str = "euler", cfg: float = CFG) -> None:
    """Samples, if not told otherwise with cfg, so that a plain step has two branches."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(conditioning, conditioning)
    guider.set_cfg(cfg)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    guider.sample(noise, torch.zeros(shape), comfy.samplers.sampler_object(sampler), sigmas, disable_pbar=True)


@dataclass(frozen=True)
class Cost:
    seconds: float  # the median over the rounds
    peak: int       # bytes, the last round's


def in_turn(actions: dict[str, Callable[[], None]], rounds: int, warm: Collection[str]) -> dict[str, Cost]:
    """What each of `actions` costs, done in turn, so that a busy machine slows all; those of `warm` are done once before."""
    times: dict[str, list[float]] = {label: [] for label in actions}
    peaks: dict[str, int] = {}
    for label in warm:
        actions[label]()
    for _ in range(rounds):
        for label, action in actions.items():
            peak_bytes(reset=True)
            start = time.monotonic()
            action()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[label].append(time.monotonic() - start)
            peaks[label] = peak_bytes()
    return {label: Cost(statistics.median(times[label]), peaks[label]) for label in actions}


def busy_seconds(action: Callable[[], None]) -> float:
    """How long an NVIDIA card computes for `action`."""
    with profile(activities=[ProfilerActivity.CUDA]) as run:
        action()
        torch.cuda.synchronize()
    return sum(event.time_range.elapsed_us() for event in run.events() if event.device_type == DeviceType.CUDA) / 1e6


def peak_bytes(reset: bool = False) -> int:
    """Highest memory since the last reset: of the GPU's allocator, or of the process (on Linux) where there is no GPU."""
    if torch.cuda.is_available():
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier steps freed would count as still in use
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


class Tally:
    """Counts the bytes that are kept for a backward pass at one time: each storage once, however many tensors lie in it, and
    none of `weights`, which are there anyway."""

    def __init__(self, weights: Iterable[Tensor]):
        self.weights = {w.untyped_storage().data_ptr() for w in weights}
        self.holders: Counter[int] = Counter()  # by storage
        self.now = self.most = 0

    def hold(self, storage, count: int) -> None:
        place = storage.data_ptr()
        before, after = self.holders[place], self.holders[place] + count
        self.holders[place] = after
        if place not in self.weights and bool(before) != bool(after):
            self.now += storage.nbytes() * (1 if after else -1)
            self.most = max(self.most, self.now)


class Kept:
    """A tensor that is kept for the backward pass, as long as it is."""

    def __init__(self, x: Tensor, tally: Tally):
        self.x, self.tally = x, tally
        tally.hold(x.untyped_storage(), 1)

    def __del__(self):
        self.tally.hold(self.x.untyped_storage(), -1)


def most_kept(action: Callable[[], None], weights: Iterable[Tensor]) -> int:
    """The most bytes that `action` keeps for backward passes at one time."""
    tally = Tally(weights)
    with saved_tensors_hooks(lambda x: Kept(x, tally), lambda kept: kept.x):
        action()
    return tally.most
