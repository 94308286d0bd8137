"""Forward pass and way back of the diffusion model as CUDA graphs: captured once in a run for a shape and replayed in its later steps, in which a
card then waits for no Python.

Off: no card has measured it yet. `python run.py gpu --only cost` does.
"""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from comfy.model_management import is_oom
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...rg_core.features import taps
from .autograd.saved_tensors import is_patched, is_streamed

if TYPE_CHECKING:
    from .step import Step

ENABLED = False
DEVICES = {"cuda"}
MOST = 2  # shapes in one run, each of which holds the memory of a guided step
PLAIN = (str, int, float, bool, type(None))  # what a call may be given beside tensors: it is the same in each that is replayed
# What the host tells the code in its models; with anything else in the options, somebody else's code may run there.
OPTIONS = {"sigmas", "sample_sigmas", "cond_or_uncond", "uuids", "wrappers", "callbacks", "patches", "patches_replace",
           "optimized_attention_override", "prefetch_dynamic_vbars"}


@dataclass
class Captures:
    """Those of one run. The first call of a shape is made as always, the second one is captured."""
    seen: set[tuple] = field(default_factory=set)
    graphs: dict[tuple, Callable] = field(default_factory=dict)

    @contextmanager
    def record(self, network: nn.Module, selection: taps.Selection, weights: list[Tensor]) -> Iterator[list[taps.Reading]]:
        """As taps.record. One call is replayed; what further ones compute would lie in the same memory, before the way back of the first."""
        own, readings = network.forward, []

        def forward(*args, **given):
            network.forward = own
            try:
                out, reading = self.call(network, selection, weights, args, given, alone=not readings)
            finally:
                network.forward = forward
            readings.append(reading)
            return out

        network.forward = forward
        try:
            yield readings
        finally:
            del network.forward

    def call(self, network: nn.Module, selection: taps.Selection, weights: list[Tensor], args: tuple, given: dict,
             alone: bool) -> tuple[Tensor, taps.Reading]:
        """What the network predicts for these arguments, and the reading."""
        options = given.get("transformer_options", {})
        leaves, spec = tree_flatten((args, {name: x for name, x in given.items() if name != "transformer_options"}))
        tensors, others = [x for x in leaves if isinstance(x, Tensor)], [None if isinstance(x, Tensor) else x for x in leaves]

        def run(*tensors: Tensor) -> tuple[Tensor, taps.Reading]:
            here = iter(tensors)
            args, named = tree_unflatten([next(here) if isinstance(x, Tensor) else x for x in leaves], spec)
            with taps.record(network, selection) as readings:
                out = network(*args, **named, transformer_options=options)
            return out, readings[0]

        key = (selection.read[-1].name, len(selection.read), str(spec), *others, *((x.shape, x.dtype, x.requires_grad) for x in tensors),
               *(w.data_ptr() for w in weights))
        if not (alone and all(isinstance(x, PLAIN) for x in others) and is_hosts_alone(options)):
            return run(*tensors)
        if key not in self.seen or key not in self.graphs and len(self.graphs) == MOST:
            self.seen.add(key)
            return run(*tensors)
        if key not in self.graphs:
            self.graphs[key] = self.capture(run, tensors)
        out, emb, *features = self.graphs[key](*tensors)
        names = tuple(tap.name for tap in selection.read), tuple(tap.name for tap in selection.default)
        x = args[0].squeeze(2) if args[0].ndim == 5 else args[0]
        return out, taps.Reading(emb if emb.numel() else None, features, options, x, *names)

    def capture(self, run: Callable, tensors: list[Tensor]) -> Callable:
        """`run` as a function that replays it; what it returns is copied out of the graphs' memory."""
        def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
            out, reading = run(*tensors)
            return out, out.new_empty(0) if reading.emb is None else reading.emb, *reading.features

        static = tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in tensors)
        try:
            graphed = torch.cuda.make_graphed_callables(flat, static, num_warmup_iters=1)
        except Exception as error:
            if not is_oom(error):
                raise
            return flat
        return lambda *tensors: [x.clone() for x in graphed(*tensors)]


def may_replay(step: "Step", conds: list[dict]) -> bool:
    """Whether the model's calls for `conds` may be replayed: on a card that holds all of it, and what others hang on it would run while a graph is
    captured, and never again."""
    if not ENABLED or step.x.device.type not in DEVICES:
        return False
    network, weights = step.model.diffusion_model, [weight for _, _, weight, _ in step.known.weights.of(step.model)]
    others = ("forward" in vars(network) or network._forward_hooks or network._forward_pre_hooks or step.known.obstacles(step.model, step.options)
              or is_patched(step.model, conds, step.options, weights) or any("control" in c for c in conds))
    return not others and not is_streamed(step.model)


def is_hosts_alone(options: dict) -> bool:
    """Whether no code but the host's runs in a model with these transformer_options."""
    return options.keys() <= OPTIONS and not any(options.get(kind) for kind in ("patches", "patches_replace"))
