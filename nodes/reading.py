"""How the host's model is run so that its taps can be read, and differentiated.

For that autograd needs a model, options, conditioning and ControlNets that it can see through.
"""
from contextlib import contextmanager, nullcontext
from itertools import chain

import comfy.model_management
import comfy.samplers
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import attention_pytorch
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ..rg_core import taps

UNREADABLE = {COMPILE_KEY, "easycache"}  # keys of wrappers


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
def differentiable(model: nn.Module):
    """Lets autograd see through `model`, whose weights were loaded in inference mode.

    Autograd refuses inference tensors, so for a while each parameter and buffer is replaced by a plain tensor on the
    same memory: no copy, and afterwards the very same objects are back in place.
    """
    replaced = []
    with torch.inference_mode(False):
        try:
            for module in model.modules():
                for slots in (module._parameters, module._buffers):
                    for name, tensor in slots.items():
                        if tensor is not None and (alias := plain(tensor)) is not tensor:
                            slots[name] = nn.Parameter(alias, False) if slots is module._parameters else alias
                            replaced.append((slots, name, slots[name], tensor))
            with torch.enable_grad():
                yield
        finally:
            for slots, name, alias, tensor in replaced:
                if slots[name] is alias:  # the host may have put a newly patched weight there meanwhile
                    slots[name] = tensor


def with_backward(_func, *args, **kwargs):
    """Attention that has a backward pass, in place of whichever the user runs with."""
    return attention_pytorch(*args, **kwargs)


def readable(model_options: dict) -> dict:
    """The options with which taps can be read: torch.compile and other GPUs run copies of the model, which have no taps, and
    EasyCache may not run it at all."""
    transformer_options = model_options.get("transformer_options", {})
    wrappers = {kind: {key: value for key, value in keyed.items() if key not in UNREADABLE}
                for kind, keyed in transformer_options.get("wrappers", {}).items()}
    options = {key: value for key, value in model_options.items() if key != "multigpu_clones"}
    return options | {"transformer_options": transformer_options | {"wrappers": wrappers}}


def with_gradients(model_options: dict) -> dict:
    """The options with which a model can be differentiated."""
    options = readable(model_options)
    options["transformer_options"]["optimized_attention_override"] = with_backward
    return options


class Still:
    """A ControlNet or T2I-Adapter whose hints are given: the gradient takes the way through the diffusion model alone."""

    def __init__(self, control):
        self.control = control

    def get_control(self, *args, **kwargs):
        with torch.no_grad():
            return self.control.get_control(*args, **kwargs)


def still(conds: list[dict]) -> list[dict]:
    """`conds` with ControlNets that autograd need not see through."""
    controls = {id(c["control"]): Still(c["control"]) for c in conds if "control" in c}
    return [c | {"control": controls[id(c["control"])]} if "control" in c else c for c in conds]


class Borrowing(TorchFunctionMode):
    """Lets autograd see through tensors that were made in inference mode, wherever they come from."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*tree_map(plain, args), **tree_map(plain, kwargs or {}))


@contextmanager
def lenient(model, conds: list[dict], options: dict):
    """Lets ControlNets, GLIGEN, patches and offloaded weights do what autograd forbids, at a cost for every operation.

    ControlNets' hints are added in place, patches overwrite too, and weights that are not on the device may be brought there
    through a buffer that the next ones use again: so all that is saved for the backward pass is copied, but for the weights
    themselves. Patches may also bring weights of their own, loaded in inference mode, and packed weights be unpacked to such.
    `model` is the host's BaseModel.
    torch.autograd.graph.allow_mutation_on_saved_tensors would copy less, but it tells tensors by their id, which Python gives
    to others once they are gone, and then hands out the wrong ones.
    """
    patched = any(options["transformer_options"].get(kind) for kind in ("patches", "patches_replace"))
    patched = patched or any("gligen" in c for c in conds) or bool(model.current_patcher.injections)
    patched = patched or any(packed(w) for w in model.parameters())
    if not patched and not model.model_lowvram and not any("control" in c for c in conds):
        yield
        return
    weights = {memory(w) for w in chain(model.parameters(), model.buffers())}

    def saved(x: Tensor) -> Tensor:
        return x if memory(x) in weights else x.clone()

    with saved_tensors_hooks(saved, lambda x: x), Borrowing() if patched else nullcontext():
        yield


def memory(x: Tensor) -> int:
    """Which memory a tensor lies in; a quantized one is told by the first of those that it wraps."""
    while hasattr(x, "__tensor_flatten__"):
        x = getattr(x, x.__tensor_flatten__()[0][0])
    return x.untyped_storage().data_ptr()


def by_hooks(conds: list[dict]) -> list[list[dict]]:
    """`conds` that the model's weights are the same for; hooks change the weights in place between the groups."""
    groups: dict = {}
    for c in conds:
        groups.setdefault(c.get("hooks"), []).append(c)
    return list(groups.values())


def parts(conds: list[dict], x: Tensor, timestep: Tensor) -> dict:
    """Of each of `conds` that acts at this timestep, by its uuid, the part of the picture that it paints: a taps.Part."""
    whole, acting = torch.zeros_like(x[:, :1]), []

    def within(area: list[int] | None) -> Tensor:
        return whole if area is None else whole[..., area[2]:area[2] + area[0], area[3]:area[3] + area[1]]

    for c in sorted(conds, key=lambda c: "default" in c):
        acts = comfy.samplers.get_area_and_mult(c, x, timestep)
        if acts is not None:
            weight = F.relu(1 - whole) if "default" in c else acts.mult[:, :1]  # the default fills what others leave
            within(acts.area).add_(weight)
            acting.append((acts.uuid, acts.area, weight))
    return {uuid: taps.Part(weight / within(area).clamp(min=1e-6), area and tuple(area)) for uuid, area, weight in acting}


def look(predict, model, conds: list[dict], latent: Tensor, timestep: Tensor, options: dict, among: list[dict] | None = None
         ) -> tuple[Tensor, taps.Reading]:
    """What `model` predicts for `conds` by `predict`, which is calc_cond_batch or what wraps it, and their reading of the whole
    picture; their part of it, if they are some `among` others. At least one of `conds` acts at this timestep (see `parts`)."""
    with taps.record(model.diffusion_model) as readings:
        predicted = predict(model, [conds], latent, timestep.clone(), options)[0]
    comfy.model_management.throw_exception_if_processing_interrupted()
    areas = parts(among or conds, latent, timestep)
    pieces = []
    for reading in readings:
        labels = reading.options["uuids"]
        pieces += zip(zip(*(f.chunk(len(labels)) for f in reading.features)), (areas[label] for label in labels))
    return predicted, taps.Reading(readings[0].emb[:len(latent)], taps.blended(pieces, tuple(latent.shape[-2:])))


def read(head, reading: taps.Reading, size: tuple[int, int], emb: Tensor | None = None) -> Tensor:
    """What `head` reads [B, C, *size] without gradients; `emb` [1, E], if given, is what it is told of the timestep instead of
    the model's own embedding."""
    with torch.inference_mode(False), torch.no_grad():
        emb = reading.emb if emb is None else emb
        return head([f.clone().float() for f in reading.features], emb.clone().float(), size)
