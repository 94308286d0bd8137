"""What a run tells its user when it cannot do what it should."""
import torch
from torch import Tensor

from .calls.conditioning import holds_nan

OUT_OF_MEMORY = ("out of memory in a guided step for {} latents of {}x{}, although blocks were computed again to spare it. Make fewer pictures "
                 "at a time, or smaller ones, or give the model less memory (a smaller type, or --lowvram).")


def nothing_guided(reached: set[str], guider) -> str:
    """Why, by how far a run has come: `reached` has asked, if the model was asked for predictions, acting, if targets acted then, and
    said, if a positive conditioning did."""
    instead = guider.model_options.get("sampler_calc_cond_batch_function")
    why = ("another pack has replaced what asks the model for predictions" if "asked" not in reached else
           "no step that can be guided was between start_percent and end_percent of a target (a flow model's first step, of noise alone, cannot, nor "
           "the last of 20 or more, nor a last one that begins with very little noise)" if "acting" not in reached else
           "no positive conditioning acted in those steps" if "said" not in reached else
           f"{getattr(instead, '__module__', None) or 'another pack'} asks the model in place of ComfyUI")
    return f"nothing in this run was guided: {why}."


def not_finite(x: Tensor, conds: list[dict], sigma: float, model) -> str:
    """Where NaN or infinite numbers come from, of a step from `x` with `conds`; `model` is the host's BaseModel."""
    if not torch.isfinite(x).all():
        return f"the latents held NaN or infinite values before the step at sigma {sigma:.3g}. Check what made them, or the sampler."
    if holds_nan(conds):
        return "the positive conditioning holds NaN or infinite values. Check the text encoder, or the node that made it."
    return (f"the model gave NaN or infinite values at sigma {sigma:.3g}, computing in {model.get_dtype_inference()}. Run it in a wider type: "
            "start ComfyUI with --bf16-unet or --fp32-unet, or choose it where the model is loaded.")
