"""The host's model options with which a model can be read and differentiated."""
from collections.abc import Callable
from functools import wraps

import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ....rg_core.features.taps import StopForward
from ...common.log import Log
from .kernels import override_attention
from .obstacles import origin

UNREADABLE = {COMPILE_KEY, "easycache"}  # keys of wrappers
# By the class that their code is of (a server loads nodes under names of modules of its own): what rests, and why guided steps cannot have it.
DISABLED = {"NAGuidance": ("Normalized Attention Guidance", "call the model for the positive and the negative branch one after the other"),
           **dict.fromkeys(["FluxKVCache", "KV_Attn_Input"], ("Flux KV Cache", "compute the images that it would cache in each call"))}


def readable_options(model_options: dict) -> dict:
    """The options with which taps can be read: torch.compile and other GPUs run copies of the model, which have no taps, and
    EasyCache may not run it at all. What is compared is computed with one kind of attention, that which has a backward pass."""
    transformer_options = model_options["transformer_options"]
    wrappers = {kind: {key: value for key, value in keyed.items() if key not in UNREADABLE}
                for kind, keyed in transformer_options.get("wrappers", {}).items()}
    options = {key: value for key, value in model_options.items() if key != "multigpu_clones"}
    return shared_options(options | {"transformer_options": transformer_options | {"wrappers": wrappers}})


def early_exit_options(model_options: dict) -> dict:
    """The options with which taps can be read, and the model is left as soon as they are, and predicts nothing."""
    options = readable_options(model_options)
    add_wrapper_with_key(WrappersMP.APPLY_MODEL, "readout_guidance", catch_early_exit, options, is_model_options=True)
    return options


def catch_early_exit(executor, x, *args, **kwargs) -> Tensor:
    """Comes back from where a call of the model was left, to have the host go on with its other ones."""
    try:
        return executor(x, *args, **kwargs)
    except StopForward:
        return torch.zeros_like(x)


def shared_options(model_options: dict) -> dict:
    """The options that all branches have: cfg multiplies what they differ in. That is attention with a backward pass, and no patches that
    rest: a cache would be filled by calls that are left, or that are made again in the backward pass."""
    transformer_options = model_options["transformer_options"] | {"optimized_attention_override": override_attention}
    if "patches" in transformer_options:
        awake = {name: [patch for patch in patches if not disabled_patch(patch)] for name, patches in transformer_options["patches"].items()}
        transformer_options["patches"] = {name: patches for name, patches in awake.items() if patches}
    return model_options | {"transformer_options": transformer_options}


def disabled_patch(patch: Callable) -> tuple[str, str] | None:
    """The node of a patch that rests in guided steps, and what these do instead."""
    return DISABLED.get(getattr(patch, "__qualname__", type(patch).__qualname__).partition(".")[0])


def with_gradients(model_options: dict, log: Log) -> dict:
    """The options with which a model can be differentiated; says which patches rest."""
    for name, instead in filter(None, map(disabled_patch, tree_leaves(model_options["transformer_options"].get("patches", {})))):
        log.warn(f"{name} is disabled in guided steps, which {instead}. It is active in the other steps, after end_percent.")
    options = readable_options(model_options)
    transformer_options = options["transformer_options"]
    for kind in ("patches", "patches_replace"):
        if kind in transformer_options:
            transformer_options[kind] = tree_map(lambda patch: warn_if_detached(patch, log) if callable(patch) else patch, transformer_options[kind])
    return options


def warn_if_detached(patch: Callable, log: Log) -> Callable:
    """`patch`, another pack's or the host's; warns where no gradient passes through it, so that guidance would not see what is
    before it: code that is detached, or a kernel without a backward pass."""
    @wraps(patch, updated=())
    def called(*args, **kwargs):
        out = patch(*args, **kwargs)
        if torch.is_grad_enabled() and sources(args) and not sources(out):
            log.warn(f"no gradient passes through a patch of {origin(patch)}, so guidance does not see what it changes. If the image follows the "
                     "targets badly, sample without the patch, or start ComfyUI with --use-pytorch-cross-attention.", origin(patch))
        return out
    return called


def sources(x) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(x))
