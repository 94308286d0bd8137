"""The stock KSampler's inputs, in its order."""
import comfy.samplers
from comfy_api.latest import io


def inputs() -> list:
    """Asked for anew each time: other packs add samplers and schedulers."""
    return [
        io.Model.Input("model"),
        io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True),
        io.Int.Input("steps", default=20, min=1, max=10000),
        io.Float.Input("cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01),
        io.Combo.Input("sampler_name", options=comfy.samplers.KSampler.SAMPLERS),
        io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS),
        io.Conditioning.Input("positive"),
        io.Conditioning.Input("negative"),
        io.Latent.Input("latent_image"),
        io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
    ]
