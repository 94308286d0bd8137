"""What guided steps look for in a model, once for a run."""
from collections.abc import Sequence

from torch import nn

from ...rg_core.features import taps
from .autograd import obstacles
from .autograd.inference_tensors import Weights
from .captured import Captures


class Known:
    """What was found so far. The host may move weights and put others in their places; blocks and wrappers stay."""

    def __init__(self):
        self.weights, self.captures = Weights(), Captures()
        self.selections: dict[tuple, taps.Selection] = {}
        self.block_lists: dict[nn.Module, list[nn.Module]] = {}
        self.standing: dict[tuple[int, ...], tuple[list, list[str]]] = {}  # by ids: what they are of, and what stands between

    def let_go(self) -> None:
        """Of what holds memory: at the run's end the host may want it at once, and Python may find what is left of a run much later."""
        self.weights.plain.clear()
        self.captures = Captures()

    def selection(self, network: nn.Module, heads: Sequence[taps.Head]) -> taps.Selection:
        """The taps that `heads` read. Raises NoTaps."""
        key = network, *heads
        if key not in self.selections:
            self.selections[key] = taps.select_for(network, heads)
        return self.selections[key]

    def blocks(self, network: nn.Module) -> list[nn.Module]:
        """taps.blocks. Raises NoTaps."""
        if network not in self.block_lists:
            self.block_lists[network] = taps.blocks(network)
        return self.block_lists[network]

    def obstacles(self, model, options: dict) -> list[str]:
        """obstacles.names of the host's BaseModel and its model_options."""
        wrappers = [wrapper for keyed in obstacles.wrappers_of(options).values() for some in keyed.values() for wrapper in some]
        found_for = [model, options.get("model_function_wrapper"), *wrappers]
        key = tuple(map(id, found_for))
        if key not in self.standing:
            self.standing[key] = found_for, obstacles.names(model, options)
        return self.standing[key][1]
