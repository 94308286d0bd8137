"""What may stand between a guided step and the diffusion model: other packs' wrappers, caches and replacements."""
from collections.abc import Iterator
from contextlib import contextmanager

from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import nn

from ....rg_core.features import taps

# Keys of wrappers that are known to let every call through, or that guided steps leave out (see options.py).
KNOWN = {COMPILE_KEY, "easycache", "lazycache", "readout_guidance", "readout_reference"}


def names(model, options: dict) -> list[str]:
    """Where the code comes from that wraps or replaces calls of the diffusion model. `model` is the host's BaseModel."""
    found, wrappers = [], wrappers_of(options)
    if "model_function_wrapper" in options:
        found.append(f"a model function wrapper of {origin(options['model_function_wrapper'])}")
    for kind in (WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL):
        found += [f"a wrapper of {origin(wrapper)}" for key, keyed in wrappers.get(kind, {}).items() if key not in KNOWN for wrapper in keyed]
    unet = model.diffusion_model
    found += dict.fromkeys(f"a replaced forward of {origin(code)}" for code in replaced(unet))
    if type(unet).__module__.startswith("torch."):
        found.append("a compiled model")
    return found


def replaced(network: nn.Module) -> list:
    """What another pack has given `network` and its blocks in the place of their methods, or put in the place of blocks: it may be a cache's."""
    try:
        blocks = taps.blocks(network)
    except taps.NoTaps:
        blocks = []
    found = [block for block in blocks if not type(block).__module__.startswith(("comfy.", "torch."))]
    for module in (network, *blocks):
        own = {} if taps.is_compiled(module) else vars(module)
        codes = (getattr(code, "stands_for", code) for name, code in own.items() if callable(code) and hasattr(type(module), name))
        found += [code for code in codes if code is not None]
    return found


def wrappers_of(options: dict) -> dict:
    return options.get("transformer_options", {}).get("wrappers", {})


def origin(code) -> str:
    """The module that a function or object is from."""
    module = getattr(code, "__module__", None) or type(code).__module__
    return module.removeprefix("custom_nodes.")


def message(node: str, what: str, model, options: dict, so: str = "so its features cannot be read") -> str:
    standing = " and ".join(names(model, options)) or "another pack"
    guided = "readout_guidance" in wrappers_of(options).get(WrappersMP.CALC_COND_BATCH, {})
    when, cache = ("in a guided step ", "; if it is a cache, let it start where the targets end (end_percent)") if guided else ("", "")
    return f"{node}: {when}the diffusion model {what}, {so}. The model call is changed by {standing}. Connect the MODEL from before it{cache}."


@contextmanager
def whole_runs(node: str, model, options: dict, standing: list[str], until: str | None = None) -> Iterator[None]:
    """In here the diffusion model must run all of its blocks, or those up to the one of this name, if another pack is `standing` in between (see
    `names`): one call may not have another one's results. Patches may leave blocks out on purpose."""
    unet = model.diffusion_model
    if not standing or "dit" in options["transformer_options"].get("patches_replace", {}):
        yield
        return
    with taps.blocks_run(unet) as runs:
        yield
    blocks = taps.blocks(unet)
    last = next((i for i, block in enumerate(blocks) if until and block is unet.get_submodule(until)), None if until else len(blocks) - 1)
    if last is not None and any(not run.issuperset(range(last + 1)) for run in runs):
        raise ValueError(message(node, "was not run completely", model, options, "so its prediction may belong to another call"))
