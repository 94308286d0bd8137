"""What a run tells its user when it cannot do what it should."""
import torch
from torch import Tensor

from .calls.conditioning import holds_nan

OUT_OF_MEMORY = ("out of memory in a guided step for {} latents of {}x{}, although blocks were recomputed to save memory. Make fewer or smaller "
                 "images at a time, or give the model less memory (a smaller data type, or --lowvram).")


def nothing_guided(reached: set[str], guider) -> str:
    """Why, by how far a run has come: `reached` has asked, if the model was asked for predictions, acting, if targets acted then, and
    said, if a positive conditioning did."""
    instead = guider.model_options.get("sampler_calc_cond_batch_function")
    why = ("another pack has replaced the code that asks the model for predictions" if "asked" not in reached else
           "no step between start_percent and end_percent of a target could be guided (a flow model's first step, which is pure noise, cannot be "
           "guided, nor can the last of 20 or more steps, nor a last step that begins with very little noise)" if "acting" not in reached else
           "no positive conditioning was active in those steps" if "said" not in reached else
           f"{getattr(instead, '__module__', None) or 'another pack'} calls the model instead of ComfyUI")
    return f"nothing in this run was guided: {why}."


def not_finite(x: Tensor, conds: list[dict], sigma: float, model) -> str:
    """Where NaN or infinite numbers come from, of a step from `x` with `conds`; `model` is the host's BaseModel."""
    if not torch.isfinite(x).all():
        return f"the latents contained NaN or infinite values before the step at sigma {sigma:.3g}. Check the node they come from, or the sampler."
    if holds_nan(conds):
        return "the positive conditioning contains NaN or infinite values. Check the text encoder, or the node it comes from."
    return (f"the model gave NaN or infinite values at sigma {sigma:.3g}, computing in {model.get_dtype_inference()}. Use a wider data type: start "
            "ComfyUI with --bf16-unet or --fp32-unet, or choose it where the model is loaded.")
