"""Context windows: calls of the model for some of a batch's images."""
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...common.log import Log


def batch_index(x: Tensor, whole: Tensor | None, options: dict, log: Log) -> Tensor | None:
    """The places in the batch `whole` [B, ...] of the images `x` [P, ...] that one call of the model makes; None if it makes
    all. The first ones where nobody can tell, which it says once. Raises ValueError for parts of images."""
    if whole is None:
        return None
    window = options.get("transformer_options", {}).get("context_window")  # the host's
    if x.shape[2:] != whole.shape[2:] or window is not None and window.dim:
        raise ValueError(f"{log.node}: the model is given parts of the image ({x.shape[-1]}x{x.shape[-2]} latents of "
                         f"{whole.shape[-1]}x{whole.shape[-2]}), as from Context Windows along height or width (dim 2 or 3), but targets are for the "
                         "whole image. Let Context Windows divide the batch (dim 0), or sample the MODEL from before guidance.")
    if window is not None:  # also where it has as many images as the batch: in another order, maybe
        kept = getattr(options.get("context_handler"), "latent_retain_index_list", [])  # images that all windows are shown in their own places
        places = window.get_tensor(torch.arange(len(whole)), **({"retain_index_list": kept} if kept else {}))
        if len(places) == len(x):
            return places
    if len(x) == len(whole):
        return None
    if x.shape[1:] == whole.shape[1:]:
        alike = (x[:, None] == whole).flatten(2).all(2)  # another pack's windows: by what is in them
        if (alike.sum(1) == 1).all():
            return alike.int().argmax(1).cpu()
    log.warn(f"another node samples parts of the batch ({len(x)} of {len(whole)} images) and does not say which. Each part is guided as if it were "
             "the whole batch, by the first targets. ComfyUI's Context Windows do say which.", "parts")
    return torch.arange(len(x))


def of_window(branch: list[dict] | None, conds: list[dict]) -> bool:
    """Whether `branch` is what a window made of `conds`."""
    return bool(branch) and {c["uuid"] for c in branch} <= {c["uuid"] for c in conds}


def undo(model) -> None:
    """Takes from MODEL, in place, the host's context windows that it may have, and the shuffling of noise that belongs to them."""
    model.model_options.pop("context_handler", None)
    model.remove_wrappers_with_key(WrappersMP.SAMPLER_SAMPLE, "ContextWindows_sampler_sample")
