"""What the nodes that are KSamplers share with the stock one."""
import comfy.samplers
import nodes as host_nodes
from comfy_api.latest import io
from torch import Tensor

from .log import log

LATENT_OUT = "The denoised latent."


def tooltips() -> dict[str, str | None]:
    """ComfyUI's own, by the names of the KSampler's inputs."""
    return {name: spec[1].get("tooltip") if len(spec) > 1 else None for name, spec in host_nodes.KSampler.INPUT_TYPES()["required"].items()}


def inputs() -> list:
    """The stock KSampler's, in its order. Asked for anew each time: other packs add samplers and schedulers."""
    said = tooltips()
    return [
        io.Model.Input("model", tooltip=said.get("model")),
        io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True, tooltip=said.get("seed")),
        io.Int.Input("steps", default=20, min=1, max=10000, tooltip=said.get("steps")),
        io.Float.Input("cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip=said.get("cfg")),
        io.Combo.Input("sampler_name", options=comfy.samplers.KSampler.SAMPLERS, tooltip=said.get("sampler_name")),
        io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS, tooltip=said.get("scheduler")),
        io.Conditioning.Input("positive", tooltip=said.get("positive")),
        io.Conditioning.Input("negative", tooltip=said.get("negative")),
        io.Latent.Input("latent_image", tooltip=said.get("latent_image")),
        io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip=said.get("denoise")),
    ]


def compare_denoise(node: str, steps: int, denoise: float, latent: dict) -> None:
    """Says where `denoise` has no effect on an image that is given: of steps that are made for it the host leaves out whole ones."""
    samples = latent.get("samples")
    if 0 < denoise < 1 and int(steps / denoise) == steps and isinstance(samples, Tensor) and samples.min() != samples.max():  # else it is empty
        log.warning("%s: with %d steps, a denoise of %g acts like 1, so little or nothing of the input image is kept. Set denoise to %.2g or less, "
                    "or use more steps.", node, steps, denoise, int(100 * steps / (steps + 1)) / 100)
