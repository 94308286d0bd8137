"""Whether gradients pass rightly through a model, looked at while its first guided step is made.

Autograd believes what it sees. Layers of other packs may multiply where it does not look, have kernels without a backward pass, or unpack their
weights into memory that the next layer's are unpacked to: predictions are right then, gradients are not, and residual ways still carry something.
So in the first guided step of a model three things are looked at: what comes out of a layer with weights has a gradient if what went in has
one; layers that multiply have the gradient of what they do, by a few rows of their own inputs; what is kept for the backward pass is still
the same there.
docs/measurements/gradients.md has what it finds and costs.
"""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from comfy.model_management import is_oom
from torch import Tensor, nn

from .obstacles import origin

ROWS = 8            # of a layer's input, or the side of a piece of it, that it is tried with
TRIED = 2           # layers of each kind
WRONG = 0.2         # how far off a gradient must be: rounding and quantized products are off by some hundredths
BENT = 0.1          # how far off what a layer does may be from a linear one's, so that a gradient says what it does
SAMPLED = 16        # numbers of each tensor kept that are compared
ALIKE = 0.05        # how far off what is computed again may be

ADVICE = "Load the model with ComfyUI's own Load Diffusion Model from a file in another format, such as fp8, or use the MODEL from before that pack."
looked_at: WeakKeyDictionary = WeakKeyDictionary()  # the kinds of layers that each diffusion model had when it was found right


def needed(network: nn.Module) -> bool:
    """Whether it was not looked at yet, or other layers were put into it since."""
    return looked_at.get(network) != kinds(network)


def kinds(network: nn.Module) -> set[type]:
    return set(map(type, network.modules()))


class Witness:
    """Looks at one step of `network`."""

    def __init__(self, node: str, network: nn.Module):
        self.node, self.network = node, network
        self.tried: dict[tuple, int] = {}
        self.kept: list[Tensor] = []  # whether what was kept is the same, one flag each

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Around the forward and the backward pass. Raises ValueError by the layer's name."""
        hooks = [module.register_forward_hook(self.look) for module in self.network.modules() if multiplies(module)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        if self.kept and not torch.stack(self.kept).all():
            raise ValueError(f"{self.node}: something in this model ({type(self.network).__name__}) is overwritten between the forward and the "
                             "backward pass, so guidance would be wrong. This happens when a pack unpacks compressed weights into memory that layers "
                             f"share. {ADVICE}")
        looked_at[self.network] = kinds(self.network)

    def look(self, layer: nn.Module, given: tuple, out) -> None:
        x = given[0] if given and isinstance(given[0], Tensor) else None
        if not torch.is_grad_enabled() or x is None or not x.requires_grad or not isinstance(out, Tensor) or not out.is_floating_point():
            return
        if not out.requires_grad:
            raise ValueError(f"{self.node}: no gradient passes through {named(layer)}, so guidance would be wrong. {ADVICE}")
        weight = getattr(layer, "weight", None)
        kind = (type(layer), type(weight), getattr(weight, "dtype", None), getattr(weight, "_layout_cls", None))
        self.tried[kind] = self.tried.get(kind, 0) + 1
        if self.tried[kind] <= TRIED and len(given) == 1 and out.ndim == x.ndim:
            self.try_out(layer, x.detach())

    def try_out(self, layer: nn.Module, x: Tensor) -> None:
        """Compares the gradient of `layer` with what it does."""
        found = self.agreement(layer, x)
        if found is not None and not abs(found - 1) < WRONG:
            raise ValueError(f"{self.node}: the gradient of {named(layer)} does not match its output ({found:.2f} of it), so guidance would be "
                             f"wrong. {ADVICE}")

    def agreement(self, layer: nn.Module, x: Tensor) -> float | None:
        """How much of what `layer` does with a piece of its input `x` its gradient says; None where that cannot be told."""
        piece = x[:1]
        for dim in range(1, x.ndim):
            is_channels = dim == (1 if hasattr(layer, "kernel_size") else x.ndim - 1)
            piece = piece if is_channels else piece.narrow(dim, 0, min(ROWS, x.shape[dim]))
        piece = piece.clone()
        way = torch.randn(piece.shape, generator=torch.Generator().manual_seed(0)).to(piece) * piece.std()
        try:
            with torch.no_grad():
                before, after, beyond = (layer.forward(piece + share * way).float() for share in (-1, 0, 1))
            change, further = after - before, beyond - after
        except Exception as error:
            if is_oom(error):
                raise
            return None  # it wants more than its input
        piece.requires_grad_()
        try:
            out = layer.forward(piece)
            gradient, = torch.autograd.grad(out, piece, change.to(out.dtype), allow_unused=True)
        except Exception as error:
            if is_oom(error):
                raise
            raise ValueError(f"{self.node}: there is no gradient through {named(layer)}: {str(error)[:200]}. {ADVICE}") from error
        size = change.square().sum()
        if not torch.isfinite(size) or not size or (further - change).square().sum() > BENT**2 * size:
            return None
        return 0.0 if gradient is None else float((gradient.float() * way.float()).sum() / size)

    def compare(self, outputs: tuple) -> Callable[[tuple], None]:
        """For what a block computed: what must be called with what it computes again, which must be alike."""
        marks = [marked(x) if isinstance(x, Tensor) else None for x in outputs]

        def again(others: tuple) -> None:
            self.kept += [(marked(x) - mark).norm() <= ALIKE * mark.norm() for x, mark in zip(others, marks) if mark is not None]

        return again

    def keeping(self, save: Callable[[Tensor], Tensor]) -> tuple[Callable, Callable]:
        """Hooks for what autograd saves, which saves what `save` makes of it."""
        def pack(x: Tensor) -> tuple:
            x = save(x)
            return x, marked(x)

        def unpack(is_packed: tuple) -> Tensor:
            x, mark = is_packed
            if mark is not None:
                now = marked(x)
                self.kept.append(((now == mark) | now.isnan() & mark.isnan()).all())
            return x

        return pack, unpack


def multiplies(module: nn.Module) -> bool:
    """Whether it has weights of its own, by whichever name: others, such as those that make positions, may look at what they are given and give
    something else."""
    return isinstance(getattr(module, "weight", None), Tensor) or hasattr(module, "in_features") or hasattr(module, "in_channels")


def named(layer: nn.Module) -> str:
    layout = getattr(getattr(layer, "weight", None), "_layout_cls", None)
    return f"{type(layer).__name__} of {origin(type(layer))}" + (f", whose weight is a {layout}" if layout else "")


def marked(x: Tensor) -> Tensor | None:
    """Some of the numbers in the memory of `x`, copied; None of tensors that wrap others."""
    if type(x) not in (Tensor, nn.Parameter) or not x.is_floating_point() or not x.numel():
        return None
    as_normal_tensor = x.detach()
    length = min(x.numel(), x.untyped_storage().nbytes() // x.element_size() - x.storage_offset())
    step = max(1, length // SAMPLED)
    return as_normal_tensor.as_strided((min(SAMPLED, length),), (step,), x.storage_offset()).float().clone()
