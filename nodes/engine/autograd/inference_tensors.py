"""Tensors that were made in inference mode, as plain ones on the same memory, which autograd accepts."""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def is_packed(x: Tensor) -> bool:
    """Whether it is of another pack's kind, such as GGUF's: bytes, and no numbers before their layer has unpacked them."""
    return not (type(x) in (Tensor, nn.Parameter) or hasattr(x, "__tensor_flatten__") or x.is_floating_point())


def as_normal_tensor(x):
    """A tensor made in inference mode as one on the same memory that autograd accepts; anything else as it is."""
    if not isinstance(x, Tensor) or not x.is_inference() or is_packed(x):
        return x
    if hasattr(x, "__tensor_flatten__"):  # quantized: a wrapper around others
        names, context = x.__tensor_flatten__()
        return type(x).__tensor_unflatten__({name: as_normal_tensor(getattr(x, name)) for name in names}, context, x.size(), x.stride())
    return torch.empty(0, dtype=x.dtype, device=x.device).set_(x)


class Weights:
    """Where the weights of models are, looked for once; the weights themselves the host may move, patch and bring anew at any time."""

    def __init__(self):
        self.places: dict[tuple[nn.Module, ...], list[tuple[dict, str, bool]]] = {}  # holder, name, whether it is a parameter
        self.plain: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}  # by holder and name: a weight, and the plain one, which holds its memory

    def of(self, *models: nn.Module) -> Iterator[tuple[dict, str, Tensor, bool]]:
        if models not in self.places:
            self.places[models] = [(slots, name, slots is module._parameters) for model in models for module in model.modules()
                                   for slots in (module._parameters, module._buffers) for name in slots]
        return ((slots, name, tensor, is_parameter) for slots, name, is_parameter in self.places[models]
                if (tensor := slots.get(name)) is not None)

    def plain_one(self, tensor: Tensor, is_parameter: bool, place: tuple[int, str] | None) -> Tensor:
        """A weight as a tensor that autograd accepts: kept by its `place`, if one is given, until another weight is there or it was moved."""
        weight, plain = self.plain.get(place, (None, tensor)) if place else (None, tensor)
        if weight is tensor and plain.data_ptr() == tensor.data_ptr() and plain.dtype == tensor.dtype:
            return plain
        plain = as_normal_tensor(tensor)
        if plain is not tensor:
            plain = nn.Parameter(plain, False) if is_parameter else plain
            plain.__dict__.update(tensor.__dict__)  # such as the type in which dynamic VRAM brings it
            if place and type(tensor) in (Tensor, nn.Parameter):
                self.plain[place] = tensor, plain
        return plain

    @contextmanager
    def differentiable(self, *models: nn.Module, keep: bool = False) -> Iterator[None]:
        """Lets autograd see through `models`, whose weights were loaded in inference mode.

        Autograd refuses inference tensors, so for a while each parameter and buffer is replaced by a plain tensor on the
        same memory: no copy, and afterwards the very same objects are back in place. Those tensors are for the next time too if told to `keep`
        them, which is for weights that the host leaves where they are: they hold its memory.
        """
        replaced = []
        with torch.inference_mode(False):
            try:
                for slots, name, tensor, is_parameter in self.of(*models):
                    if (plain := self.plain_one(tensor, is_parameter, (id(slots), name) if keep else None)) is not tensor:
                        slots[name] = plain
                        replaced.append((slots, name, plain, tensor))
                with torch.enable_grad():
                    yield
            finally:
                for slots, name, alias, tensor in replaced:
                    if slots[name] is alias:  # the host may have put a newly patched weight there meanwhile
                        slots[name] = tensor


def differentiable(*models: nn.Module):
    """See Weights."""
    return Weights().differentiable(*models)


class InferenceTensorMode(TorchFunctionMode):
    """Lets autograd see through tensors that were made in inference mode, wherever they come from."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*map(as_normal_tensors, args), **{name: as_normal_tensors(value) for name, value in (kwargs or {}).items()})


def as_normal_tensors(x):
    """`as_normal_tensor`, also of each tensor in a list. tree_map does the same and takes as long as all that the model's layers do beside it,
    which is most of a step where a GPU waits for Python."""
    return type(x)(map(as_normal_tensors, x)) if type(x) in (list, tuple) else as_normal_tensor(x)
