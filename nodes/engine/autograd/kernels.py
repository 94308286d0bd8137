"""Kernels that have a backward pass, in the place of those that have none."""
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import comfy.model_management
import comfy.ops
import comfy_kitchen
from comfy.ldm.modules import attention
from comfy_kitchen.backends import eager
from torch import Tensor

# Names of such kernels in the host's modules; the last two are ComfyUI 0.18's.
CALLED = ("optimized_attention", "optimized_attention_masked", "q_apply_rope", "q_apply_rope1")


def override_attention(_func, *args, **kwargs):
    """Attention that has a backward pass, in place of whichever the user runs with."""
    return pytorch_attention(*args, **kwargs)


def pytorch_attention(*args, preferred_attention=None, **kwargs) -> Tensor:
    """The host's attention by torch alone, whichever a checkpoint names for the layer (`preferred_attention`, ComfyUI 0.38). It takes q, k and v
    out of their containers (0.33)."""
    return attention.attention_pytorch(*args, **kwargs)


def no_product(_layer, _x) -> None:
    """In place of the host's fast products in fp8, which have no backward pass: without one it casts the weights."""


@contextmanager
def differentiable_kernels() -> Iterator[None]:
    """What has a backward pass where the host or another pack would call kernels without: attention in the host's modules, some of which ask no
    override, products in fp8, and comfy-kitchen's rotations and norms, for which it has the same in plain torch. The host's own training has
    a mark by which its modules choose; it is set too."""
    before = [(module, name, getattr(module, name), instead) for module, name, instead in replacements(len(sys.modules))]
    try:
        for module, name, _, instead in before:
            setattr(module, name, instead)
        yield
    finally:
        for module, name, own, _ in before:
            setattr(module, name, own)


@lru_cache(maxsize=1)
def replacements(_modules: int) -> list[tuple[object, str, Callable | bool]]:
    """Where such kernels are called from or chosen, by which name, and what takes their place: looked for again once there are more modules."""
    found: list[tuple[object, str, Callable | bool]] = []
    for path, module in list(sys.modules.items()):
        if path.startswith("comfy.ldm."):
            found += [(module, name, getattr(eager, name.removeprefix("q_"), pytorch_attention)) for name in CALLED if name in vars(module)]
    found += [(comfy_kitchen, name, own) for name, own in vars(eager).items() if ("rope" in name or "adaln" in name) and name in vars(comfy_kitchen)]
    if hasattr(comfy.ops, "fp8_linear"):  # the host calls it a legacy
        found.append((comfy.ops, "fp8_linear", no_product))
    if hasattr(comfy.model_management, "in_training"):  # ComfyUI 0.30
        found.append((comfy.model_management, "in_training", True))
    return found
