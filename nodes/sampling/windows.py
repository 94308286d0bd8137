"""Context windows: calls of the model for some of a batch's pictures."""
import torch
from torch import Tensor

from .log import Log


def pictures(x: Tensor, whole: Tensor | None, options: dict, log: Log) -> Tensor | None:
    """The places in the batch `whole` [B, ...] of the pictures `x` [P, ...] that one call of the model makes; None if it makes
    all. The first ones where nobody can tell, which it says once."""
    if whole is None or len(x) == len(whole):
        return None
    window = options.get("transformer_options", {}).get("context_window")  # the host's
    if window is not None and window.dim == 0:
        places = window.get_tensor(torch.arange(len(whole)))
        if len(places) == len(x):
            return places
    if x.shape[1:] == whole.shape[1:]:
        alike = (x[:, None] == whole).flatten(2).all(2)  # another pack's windows: by what is in them
        if (alike.sum(1) == 1).all():
            return alike.int().argmax(1).cpu()
    log.warn(f"another node samples parts of the picture or of the batch ({len(x)} of {len(whole)} pictures, {x.shape[-1]}x{x.shape[-2]} latents "
             f"of {whole.shape[-1]}x{whole.shape[-2]}) and does not say which. Each is guided as if it were the whole, by the first targets. "
             "ComfyUI's Context Windows say which.", "parts")
    return torch.arange(len(x))


def of_window(branch: list[dict] | None, conds: list[dict]) -> bool:
    """Whether `branch` is what a window made of `conds`."""
    return bool(branch) and {c["uuid"] for c in branch} <= {c["uuid"] for c in conds}
