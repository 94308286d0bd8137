"""What a guided step costs beside its arithmetic: part of bench.py, `--overhead [--rounds N]`.

Real architectures at about a tenth of their width, with random weights, for small latents: numbers cost nearly nothing there, so what is left is
what a fast card waits for. Of a step of Euler with two branches it counts operations, as torch's dispatcher sees them, reads of numbers, each of
which would have a card finish all that it was told, and walks over the modules of a network: what one more step adds to a run, so that what is done
once for a run is not in it. Its time is in plain steps, made in turn in one run.
"""
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import comfy.model_management
import comfy.supported_models
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from readout_guidance_pack.rg_core.features import taps
from readout_guidance_pack.rg_core.features.raw_features import AS_THEY_ARE
from readout_guidance_pack.rg_core.readout.head import ReadoutHead
from tools.benchmarks import transformers
from tools.benchmarks.costs import busy_seconds, in_turn, sample
from tools.benchmarks.models import ALL_THE_TIME, Subject, drag, guided_by, linear, random_model, spatial
from tools.random_weights.checkpoints import SD15_UNET

TIMED, COUNTED = 8, (2, 3)  # steps of the runs that are timed, and of the two whose difference is counted
READS = {"item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "is_nonzero", "cpu", "nonzero", "equal", "allclose"}


# Where reads do not wait for a card: rehearsals of samplers and what references hold are on the CPU where there is one, too, and at the end of a run
# all is done.
NO_WAITING = {("landing.py", "landings"), ("trajectories.py", "segment"), ("trace.py", "settle")}


def waits() -> bool:
    """Whether what is read now may lie on a card that is still at work."""
    frame = sys._getframe(2)
    while frame is not None:
        if (Path(frame.f_code.co_filename).name, frame.f_code.co_name) in NO_WAITING:
            return False
        frame = frame.f_back
    return True


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += getattr(func, "__name__", "") in READS and waits()
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_walks(networks: list[nn.Module]) -> Iterator[list[int]]:
    """How often somebody begins to go through all modules of one of `networks`."""
    own, count = nn.Module.named_modules, [0]

    def named_modules(self, memo=None, *args, **kwargs):
        count[0] += memo is None and any(self is network for network in networks)
        return own(self, memo, *args, **kwargs)

    nn.Module.named_modules = named_modules
    try:
        yield count
    finally:
        nn.Module.named_modules = own


def unet() -> tuple[Subject, dict]:
    """A model and it guided, by setting."""
    model = random_model(comfy.supported_models.SD15, SD15_UNET | {"model_channels": 32}, torch.float16)
    torch.manual_seed(1)
    with torch.inference_mode(False):
        head = ReadoutHead("pose", taps.channels(model.model.diffusion_model), projection_dim=128, emb_channels=128).eval().requires_grad_(False)
    subject = Subject(model, head, [[torch.randn(1, 77, 768), {}]], (1, 4, 16, 16))
    target = spatial(head, **ALL_THE_TIME)
    return subject, {"published head": guided_by(subject, target),
                     "fitted head": guided_by(subject, spatial(linear(subject), **ALL_THE_TIME)),
                     "drag without a head": guided_by(subject, drag(subject, 4096, AS_THEY_ARE, **ALL_THE_TIME)),
                     "blocks computed again": guided_by(subject, target, recompute="on")}


def transformer(family: str, config: dict, words: tuple[int, int]) -> tuple[transformers.Subject, dict]:
    subject = transformers.Subject(random_model(getattr(comfy.supported_models, family), config, torch.bfloat16),
                                   [[torch.randn(1, *words), {"pooled_output": torch.randn(1, 768)}]], (1, 16, 16, 16))
    by = transformers.settings(subject)
    return subject, {"fitted head": by["pose"], "drag without a head": by["drag without a head"],
                     "blocks computed again": by["pose, blocks computed again"]}


SUBJECTS: dict[str, Callable[[], tuple]] = {
    "sd15": unet,
    "flux1": partial(transformer, "Flux", transformers.FLUX1 | {"hidden_size": 384, "num_heads": 3}, (64, 4096)),
    "z-image": partial(transformer, "ZImage", transformers.ZIMAGE | {"dim": 384, "n_heads": 3, "n_kv_heads": 3}, (64, 2560))}


def counted(run: Callable[[torch.Tensor], None], sigmas: torch.Tensor, networks: list[nn.Module]) -> dict[str, float]:
    """What one more step adds to `run` for these `sigmas`."""
    found = []
    for steps in COUNTED:
        with counted_walks(networks) as walks, Reads() as reads, Operations() as operations:
            run(sigmas[:steps + 1])
        found.append({"operations": operations.count, "reads": reads.count, "walks": walks[0]})
    few, more = found
    return {name: more[name] - few[name] for name in few}


@torch.inference_mode()
def measure(name: str, rounds: int) -> dict:
    subject, guided = SUBJECTS[name]()
    high, low = (5.0, 4.0) if name == "sd15" else (0.9, 0.7)
    sigmas = torch.linspace(high, low, TIMED + 1)
    runs = {label: lambda sigmas, model=model: sample(model, subject.conditioning, subject.shape, sigmas)
            for label, model in {"plain": subject.model, **guided}.items()}
    costs = in_turn({label: partial(run, sigmas) for label, run in runs.items()}, rounds, warm=runs)
    plain = costs["plain"].seconds
    found = {label: {"ms": round(1000 * costs[label].seconds / TIMED, 1), "in_plain_steps": round(costs[label].seconds / plain, 2),
                     **counted(run, sigmas, [subject.model.model, subject.model.model.diffusion_model])} for label, run in runs.items()}
    if torch.cuda.is_available():
        for label, run in runs.items():
            found[label]["idle_ms"] = round(1000 * (costs[label].seconds - busy_seconds(partial(run, sigmas))) / TIMED, 1)
    return found


def overhead(rounds: int) -> dict:
    found = {}
    for name in SUBJECTS:
        found[name] = measure(name, rounds)
        for label, figures in found[name].items():
            print(f"bench: {name:8} {label:22} " + "  ".join(f"{what} {value}" for what, value in figures.items()), flush=True)
        comfy.model_management.unload_all_models()
    return {"overhead": found}
