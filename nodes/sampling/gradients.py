"""What autograd needs to see through the host's model: plain tensors, options with a backward pass, and copies where the
host overwrites."""
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from itertools import chain

import comfy.model_management
import comfy.ops
import comfy_kitchen
import torch
from comfy.ldm.modules import attention
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from comfy_kitchen.backends import eager
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from ...rg_core import architectures
from ...rg_core.taps import Enough
from .log import Log
from .obstacles import origin
from .witness import Witness

# Names of such kernels in the host's modules; the last two are ComfyUI 0.18's.
CALLED = ("optimized_attention", "optimized_attention_masked", "q_apply_rope", "q_apply_rope1")
UNREADABLE = {COMPILE_KEY, "easycache"}  # keys of wrappers
# By the class that their code is of (a server loads nodes under names of modules of its own): what rests, and why guided steps cannot have it.
RESTING = {"NAGuidance": ("Normalized Attention Guidance", "ask the model for the positive and the negative branch one after the other"),
           **dict.fromkeys(["FluxKVCache", "KV_Attn_Input"], ("Flux KV Cache", "compute the pictures that it would keep in each call"))}


def packed(x: Tensor) -> bool:
    """Whether it is of another pack's kind, such as GGUF's: bytes, and no numbers before their layer has unpacked them."""
    return not (type(x) in (Tensor, nn.Parameter) or hasattr(x, "__tensor_flatten__") or x.is_floating_point())


def plain(x):
    """A tensor made in inference mode as one on the same memory that autograd accepts; anything else as it is."""
    if not isinstance(x, Tensor) or not x.is_inference() or packed(x):
        return x
    if hasattr(x, "__tensor_flatten__"):  # quantized: a wrapper around others
        names, context = x.__tensor_flatten__()
        return type(x).__tensor_unflatten__({name: plain(getattr(x, name)) for name in names}, context, x.size(), x.stride())
    return torch.empty(0, dtype=x.dtype, device=x.device).set_(x.untyped_storage(), x.storage_offset(), x.size(), x.stride())


@contextmanager
def differentiable(*models: nn.Module):
    """Lets autograd see through `models`, whose weights were loaded in inference mode.

    Autograd refuses inference tensors, so for a while each parameter and buffer is replaced by a plain tensor on the
    same memory: no copy, and afterwards the very same objects are back in place.
    """
    replaced = []
    with torch.inference_mode(False):
        try:
            for module in chain.from_iterable(model.modules() for model in models):
                for slots in (module._parameters, module._buffers):
                    for name, tensor in slots.items():
                        if tensor is not None and (alias := plain(tensor)) is not tensor:
                            slots[name] = nn.Parameter(alias, False) if slots is module._parameters else alias
                            slots[name].__dict__.update(tensor.__dict__)  # such as the type in which dynamic VRAM brings it
                            replaced.append((slots, name, slots[name], tensor))
            with torch.enable_grad():
                yield
        finally:
            for slots, name, alias, tensor in replaced:
                if slots[name] is alias:  # the host may have put a newly patched weight there meanwhile
                    slots[name] = tensor


def with_backward(_func, *args, **kwargs):
    """Attention that has a backward pass, in place of whichever the user runs with."""
    return torch_attention(*args, **kwargs)


def torch_attention(*args, preferred_attention=None, **kwargs) -> Tensor:
    """The host's attention by torch alone, whichever a checkpoint names for the layer (`preferred_attention`, ComfyUI 0.38). It takes q, k and v
    out of their containers (0.33)."""
    return attention.attention_pytorch(*args, **kwargs)


def no_product(_layer, _x) -> None:
    """In place of the host's fast products in fp8, which have no backward pass: without one it casts the weights."""


@contextmanager
def with_backwards() -> Iterator[None]:
    """What has a backward pass where the host or another pack would call kernels without: attention in the host's modules, some of which ask no
    override, products in fp8, and comfy-kitchen's rotations and norms, for which it has the same in plain torch. The host's own training has
    a mark by which its modules choose; it is set too."""
    before = [(module, name, getattr(module, name), instead) for module, name, instead in replaceable()]
    try:
        for module, name, _, instead in before:
            setattr(module, name, instead)
        yield
    finally:
        for module, name, own, _ in before:
            setattr(module, name, own)


def replaceable() -> Iterator[tuple[object, str, Callable | bool]]:
    """Where such kernels are called from or chosen, by which name, and what takes their place."""
    for path, module in list(sys.modules.items()):
        if path.startswith("comfy.ldm."):
            yield from ((module, name, getattr(eager, name.removeprefix("q_"), torch_attention))
                        for name in CALLED if name in vars(module))
    yield from ((comfy_kitchen, name, own) for name, own in vars(eager).items()
                if ("rope" in name or "adaln" in name) and name in vars(comfy_kitchen))
    if hasattr(comfy.ops, "fp8_linear"):  # the host calls it a legacy
        yield comfy.ops, "fp8_linear", no_product
    if hasattr(comfy.model_management, "in_training"):  # ComfyUI 0.30
        yield comfy.model_management, "in_training", True


def readable(model_options: dict) -> dict:
    """The options with which taps can be read: torch.compile and other GPUs run copies of the model, which have no taps, and
    EasyCache may not run it at all. What is compared is computed with one kind of attention, that which has a backward pass."""
    transformer_options = model_options["transformer_options"]
    wrappers = {kind: {key: value for key, value in keyed.items() if key not in UNREADABLE}
                for kind, keyed in transformer_options.get("wrappers", {}).items()}
    options = {key: value for key, value in model_options.items() if key != "multigpu_clones"}
    return alike(options | {"transformer_options": transformer_options | {"wrappers": wrappers}})


def until_read(model_options: dict) -> dict:
    """The options with which taps can be read, and the model is left as soon as they are, and predicts nothing."""
    options = readable(model_options)
    add_wrapper_with_key(WrappersMP.APPLY_MODEL, "readout_guidance", left, options, is_model_options=True)
    return options


def left(executor, x, *args, **kwargs) -> Tensor:
    """Comes back from where a call of the model was left, to have the host go on with its other ones."""
    try:
        return executor(x, *args, **kwargs)
    except Enough:
        return torch.zeros_like(x)


def alike(model_options: dict) -> dict:
    """The options that all branches have: cfg multiplies what they differ in. That is attention with a backward pass, and no patches that
    rest: a cache would be filled by calls that are left, or that are made again in the backward pass."""
    transformer_options = model_options["transformer_options"] | {"optimized_attention_override": with_backward}
    if "patches" in transformer_options:
        awake = {name: [patch for patch in patches if not resting(patch)] for name, patches in transformer_options["patches"].items()}
        transformer_options["patches"] = {name: patches for name, patches in awake.items() if patches}
    return model_options | {"transformer_options": transformer_options}


def resting(patch: Callable) -> tuple[str, str] | None:
    """The node of a patch that rests in guided steps, and what these do instead."""
    return RESTING.get(getattr(patch, "__qualname__", type(patch).__qualname__).partition(".")[0])


def with_gradients(model_options: dict, log: Log) -> dict:
    """The options with which a model can be differentiated; says which patches rest."""
    for name, instead in filter(None, map(resting, tree_leaves(model_options["transformer_options"].get("patches", {})))):
        log.warn(f"{name} rests in guided steps, which {instead}. It acts in the others, behind end_percent.")
    options = readable(model_options)
    transformer_options = options["transformer_options"]
    for kind in ("patches", "patches_replace"):
        if kind in transformer_options:
            transformer_options[kind] = tree_map(lambda patch: seen_through(patch, log) if callable(patch) else patch, transformer_options[kind])
    return options


def seen_through(patch: Callable, log: Log) -> Callable:
    """`patch`, another pack's or the host's; warns where no gradient passes through it, so that guidance would not see what is
    before it: code that is detached, or a kernel without a backward pass."""
    @wraps(patch, updated=())
    def called(*args, **kwargs):
        out = patch(*args, **kwargs)
        if torch.is_grad_enabled() and sources(args) and not sources(out):
            log.warn(f"no gradient passes through a patch of {origin(patch)}, so guidance does not see what it changes. If pictures obey badly, "
                     "sample without it, or start ComfyUI with --use-pytorch-cross-attention.", origin(patch))
        return out
    return called


def sources(x) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(x))


class Borrowing(TorchFunctionMode):
    """Lets autograd see through tensors that were made in inference mode, wherever they come from."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*map(borrowed, args), **{name: borrowed(value) for name, value in (kwargs or {}).items()})


def borrowed(x):
    """`plain`, also of each tensor in a list. tree_map does the same and takes as long as all that the model's layers do beside it,
    which is most of a step where a GPU waits for Python."""
    return type(x)(map(borrowed, x)) if type(x) in (list, tuple) else plain(x)


def patched(model, conds: list[dict], options: dict) -> bool:
    """Whether others' code runs within the model, or weights are of others' kinds. `model` is the host's BaseModel."""
    return (any(options["transformer_options"].get(kind) for kind in ("patches", "patches_replace"))
            or any("gligen" in c for c in conds) or bool(model.current_patcher.injections) or any(packed(w) for w in model.parameters()))


def streamed(model) -> bool:
    """Whether weights are brought to the device for each operation, so that what is saved of them may be gone by the backward pass."""
    return model.model_lowvram or model.current_patcher.is_dynamic()


def lenient(model, conds: list[dict], options: dict, witness: Witness | None = None) -> Callable[[], AbstractContextManager]:
    """Makes contexts that let ControlNets, GLIGEN, patches and offloaded weights do what autograd forbids, at a cost for every
    operation. `witness` looks at what is kept in them.

    ControlNets' hints are added in place, patches overwrite too, and some models themselves: so all that is saved for the backward pass is
    copied, but for the weights themselves. Weights that are not on the device may be brought there through a buffer that the next ones use again, or
    lie in memory that the host takes back: then what no gradient passes through is copied. Patches may also bring weights of their
    own, loaded in inference mode, packed weights be unpacked to such, and streamed ones have arrived in it. `model` is the host's
    BaseModel.
    torch.autograd.graph.allow_mutation_on_saved_tensors would copy less, but it tells tensors by their id, which Python gives
    to others once they are gone, and then hands out the wrong ones.
    """
    patches = patched(model, conds, options)
    borrows = patches or model.current_patcher.is_dynamic()
    overwritten = patches or any("control" in c for c in conds) or architectures.of(model.diffusion_model).overwrites
    copies = borrows or streamed(model) or overwritten
    if not copies and witness is None:
        return nullcontext
    weights = {memory_of(w) for w in chain(model.parameters(), model.buffers())}

    def saved(x: Tensor) -> Tensor:
        return x if not copies or x.requires_grad and not overwritten or memory_of(x) in weights else x.clone()

    pack, unpack = (saved, lambda x: x) if witness is None else witness.keeping(saved)

    @contextmanager
    def seeing() -> Iterator[None]:
        with saved_tensors_hooks(pack, unpack), Borrowing() if borrows else nullcontext():
            yield

    return seeing


def memory_of(x: Tensor) -> int:
    """Which memory a tensor lies in; a quantized one is told by the first of those that it wraps."""
    while hasattr(x, "__tensor_flatten__"):
        x = getattr(x, x.__tensor_flatten__()[0][0])
    return x.untyped_storage().data_ptr()
