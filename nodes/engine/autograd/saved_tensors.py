"""Copies of what is saved for the backward pass, where the host or a patch overwrites it."""
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ....rg_core.features import architectures
from .inference_tensors import InferenceTensorMode, is_packed
from .witness import Witness


def is_patched(model, conds: list[dict], options: dict, weights: list[Tensor]) -> bool:
    """Whether others' code runs within the model, or weights are of others' kinds. `model` is the host's BaseModel."""
    return (any(options["transformer_options"].get(kind) for kind in ("patches", "patches_replace"))
            or any("gligen" in c for c in conds) or bool(model.current_patcher.injections) or any(map(is_packed, weights)))


def is_streamed(model) -> bool:
    """Whether weights are brought to the device for each operation, so that what is saved of them may be gone by the backward pass."""
    return model.model_lowvram or model.current_patcher.is_dynamic()


def saved_tensor_context(model, conds: list[dict], options: dict, weights: list[Tensor],
                         witness: Witness | None = None) -> Callable[[], AbstractContextManager]:
    """Makes contexts that let ControlNets, GLIGEN, patches and offloaded weights do what autograd forbids, at a cost for every
    operation. `witness` looks at what is kept in them.

    ControlNets' hints are added in place, patches overwrite too, and some models themselves: so all that is saved for the backward pass is
    copied, but for the weights themselves. Weights that are not on the device may be brought there through a buffer that the next ones use again, or
    lie in memory that the host takes back: then what no gradient passes through is copied. Patches may also bring weights of their
    own, loaded in inference mode, packed weights be unpacked to such, and streamed ones have arrived in it. `model` is the host's
    BaseModel, with these `weights`.
    torch.autograd.graph.allow_mutation_on_saved_tensors would copy less, but it tells tensors by their id, which Python gives
    to others once they are gone, and then hands out the wrong ones.
    """
    patches = is_patched(model, conds, options, weights)
    borrows = patches or model.current_patcher.is_dynamic()
    overwritten = patches or any("control" in c for c in conds) or architectures.architecture_of(model.diffusion_model).overwrites
    copies = borrows or is_streamed(model) or overwritten
    if not copies and witness is None:
        return nullcontext
    places = set(map(memory_of, weights))

    def saved(x: Tensor) -> Tensor:
        return x if not copies or x.requires_grad and not overwritten or memory_of(x) in places else x.clone()

    pack, unpack = (saved, lambda x: x) if witness is None else witness.keeping(saved)

    @contextmanager
    def seeing() -> Iterator[None]:
        with saved_tensors_hooks(pack, unpack), InferenceTensorMode() if borrows else nullcontext():
            yield

    return seeing


def memory_of(x: Tensor) -> int:
    """Which memory a tensor lies in; a quantized one is told by the first of those that it wraps."""
    while hasattr(x, "__tensor_flatten__"):
        x = getattr(x, x.__tensor_flatten__()[0][0])
    return x.untyped_storage().data_ptr()
