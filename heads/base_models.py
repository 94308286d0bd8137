"""The diffusion models that heads are published for, and how to tell them apart."""
from typing import NamedTuple


class BaseModel(NamedTuple):
    name: str
    model_id: str           # as the published files call it
    called: tuple[str, ...]  # what is in any of its names
    channels: list[int]     # of its taps
    text_width: int         # of its conditioning, where taps are those of another one
    pixels: int             # a side of its usual images


BASE_MODELS = {
    "sdv15": BaseModel("Stable Diffusion 1.5", "runwayml/stable-diffusion-v1-5", ("diffusion-v1", "Diffusion 1.5"),
                       [1280] * 6 + [640] * 3 + [320] * 3, 768, 512),
    "sdv2": BaseModel("Stable Diffusion 2", "stabilityai/stable-diffusion-2-1", ("diffusion-2", "Diffusion 2"),
                      [1280] * 6 + [640] * 3 + [320] * 3, 1024, 768),
    "sdxl": BaseModel("Stable Diffusion XL", "stabilityai/stable-diffusion-xl-base-1.0", ("diffusion-xl", "Diffusion XL"),
                      [1280] * 3 + [640] * 3 + [320] * 3, 2048, 1024),
}


def named(name: str) -> BaseModel | None:
    """The one that a head says it was trained on; None for others."""
    return next((base for base in BASE_MODELS.values() if any(part in name for part in base.called)), None)
