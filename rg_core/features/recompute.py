"""Blocks of a network computed again in the backward pass, for keeping their inputs instead of all that lies between.

torch.utils.checkpoint is not used because it takes a block's arguments as they are in the backward pass: where the network
writes into its arguments meanwhile (residuals added in place, options that say which block is at work), what it computes
again is silently another thing.
"""
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten


@contextmanager
def recomputed_blocks(modules: Iterable[nn.Module], within: Callable[[], AbstractContextManager] = nullcontext,
                      watch: Callable[[tuple], Callable[[tuple], None]] | None = None) -> Iterator[None]:
    """In here each of `modules`, none inside another, keeps only its inputs for the backward pass.

    It is called with its gradients' sources as tensors among its own arguments, not deeper inside them; otherwise it
    works as if it were not among the modules. Whatever it draws at random it draws again, and it must not keep a state.
    Blocks are computed again in the contexts that `within()` gives. The modules' hooks run once, in the forward pass. What `watch` gives for
    what a module computed is called with what it computed again.
    """
    before = []
    try:
        for module in modules:
            own = module.__dict__.get("forward")
            before.append((module, own))
            module.forward = checkpointed(module.forward, within, watch)
            vars(module.forward)["stands_for"] = own  # an attribute of the function: what it is in the place of
        yield
    finally:
        for module, own in before:
            del module.forward
            if own is not None:
                module.forward = own


def checkpointed(forward: Callable, within: Callable[[], AbstractContextManager], watch: Callable | None) -> Callable:
    """`forward` with gradients that are computed on what it computes again."""
    def called(*args, **kwargs):
        arguments = dict(enumerate(args)) | kwargs
        moving = [key for key, x in arguments.items() if isinstance(x, Tensor) and x.requires_grad]
        sources = sum(isinstance(x, Tensor) and x.requires_grad for x in tree_leaves(arguments))
        if not torch.is_grad_enabled() or not moving or sources > len(moving):
            return forward(*args, **kwargs)
        later = tree_map(lambda x: x, {key: x for key, x in arguments.items() if key not in moving})  # containers are written into
        layouts: list[TreeSpec] = []  # of what it computes, each time

        def run(others: dict, inputs: tuple[Tensor, ...]) -> tuple:
            now = {key: x.clone() if isinstance(x, Tensor) else x for key, x in (others | dict(zip(moving, inputs))).items()}  # and tensors too
            outputs, layout = tree_flatten(forward(*(now[i] for i in range(len(args))), **{key: now[key] for key in kwargs}))
            layouts.append(layout)
            return tuple(outputs)

        outputs = CheckpointFunction.apply(run, arguments, later, within, watch, *(arguments[key] for key in moving))
        return tree_unflatten(outputs, layouts[0])
    return called


class CheckpointFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, run, arguments, later, within, watch, *inputs):
        ctx.run, ctx.later, ctx.within = run, later, within
        ctx.random = RandomState(inputs[0].device)
        ctx.save_for_backward(*inputs)
        outputs = run(arguments, inputs)
        ctx.compare = watch and watch(outputs)
        return outputs

    @staticmethod
    def backward(ctx, *gradients):
        inputs = [x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.enable_grad(), ctx.within(), ctx.random.checkpointed():
            outputs = ctx.run(ctx.later, inputs)
        if ctx.compare:
            ctx.compare(outputs)
        reached = [(out, g) for out, g in zip(outputs, gradients) if isinstance(out, Tensor) and out.requires_grad and g is not None]
        found = torch.autograd.grad([out for out, _ in reached], inputs, [g for _, g in reached], allow_unused=True)
        return None, None, None, None, None, *found


class RandomState:
    """What the next random numbers on the CPU and on `device` depend on."""

    def __init__(self, device: torch.device):
        self.device = device
        self.cpu = torch.get_rng_state()
        self.own = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)

    def restore(self) -> None:
        """From here on the same numbers are drawn again."""
        torch.set_rng_state(self.cpu)
        if self.own is not None:
            torch.get_device_module(self.device).set_rng_state(self.own, self.device)

    @contextmanager
    def checkpointed(self) -> Iterator[None]:
        """Draws the same numbers again, and afterwards goes on where the caller was."""
        there = [] if self.own is None else [self.device]
        with torch.random.fork_rng(there, device_type=self.device.type if there else "cuda"):
            self.restore()
            yield
