"""Context windows: calls of the model for some of a batch's pictures."""
import torch
from torch import Tensor


def pictures(x: Tensor, whole: Tensor | None, options: dict) -> Tensor | None:
    """The places in the batch `whole` [B, ...] of the pictures `x` [P, ...] that one call of the model makes; None if it makes
    all. Raises LookupError if that cannot be told."""
    if whole is None or len(x) == len(whole):
        return None
    window = options.get("transformer_options", {}).get("context_window")  # the host's
    if window is not None and window.dim == 0:
        places = window.get_tensor(torch.arange(len(whole)))
        if len(places) == len(x):
            return places
    if x.shape[1:] != whole.shape[1:]:
        raise LookupError
    alike = (x[:, None] == whole).flatten(2).all(2)  # another pack's windows: by what is in them
    if not (alike.sum(1) == 1).all():
        raise LookupError
    return alike.int().argmax(1).cpu()


def of_window(branch: list[dict] | None, conds: list[dict]) -> bool:
    """Whether `branch` is what a window made of `conds`."""
    return bool(branch) and {c["uuid"] for c in branch} <= {c["uuid"] for c in conds}
