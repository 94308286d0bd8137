"""What the nodes that are KSamplers share with the stock one."""
import comfy.samplers
from comfy_api.latest import io
from torch import Tensor

from .log import log


def inputs() -> list:
    """The stock KSampler's, in its order. Asked for anew each time: other packs add samplers and schedulers."""
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


def compare_denoise(node: str, steps: int, denoise: float, latent: dict) -> None:
    """Says where `denoise` has no effect on a picture that is given: of steps that are made for it the host leaves out whole ones."""
    samples = latent.get("samples")
    if 0 < denoise < 1 and int(steps / denoise) == steps and isinstance(samples, Tensor) and samples.min() != samples.max():  # else it is empty
        log.warning("%s: in %d steps a denoise of %g samples as 1 does, so little or nothing of the given picture is left. Take %.2g or less, or "
                    "more steps.", node, steps, denoise, int(100 * steps / (steps + 1)) / 100)
