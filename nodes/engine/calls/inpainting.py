"""What inpainting models are shown beside noisy latents: which part of the image is to be made, the hole, and the rest of it."""
import hashlib
from dataclasses import dataclass, field

import comfy.samplers
import comfy.utils
import torch
from comfy.model_base import BaseModel
from comfy.sampler_helpers import prepare_mask
from torch import Tensor

from ....rg_core.images.regions import repeat

SHOWN = ("c_concat", "denoise_mask")       # the host's names for it among what it made of a conditioning
MASK, IMAGE = "concat_mask", "concat_latent_image"  # and in a conditioning, which then has its own
SAME = 0.5  # of an image's size: encoded with a hole and without, its latents differ by less around the hole; those of two images by more


@dataclass(frozen=True, eq=False)
class Inpainting:
    """What a run shows, made ready for its references: these are seen with the same hole, filled as there, and with their own image around it.

    `latent_image` [B, C, H, W], in the sampler's scale, is the image that is sampled on, `denoise_mask` what of it, as the host has prepared it.
    `concat` holds MASK and IMAGE as the positive conditioning has them, which outrank those.
    """
    latent_image: Tensor
    denoise_mask: Tensor | None = None
    concat: dict = field(default_factory=dict)

    @classmethod
    def of_run(cls, positive: list[dict] | None, latent_image: Tensor, denoise_mask: Tensor | None) -> "Inpainting":
        concat = next(({key: c[key] for key in (MASK, IMAGE) if key in c} for c in positive or () if MASK in c), {})
        return cls(latent_image, denoise_mask, concat)

    def around(self, shown: Tensor, own: Tensor) -> Tensor:
        """`shown` in the hole and the image `own` [N, C, H, W] around it; `shown` as it is where that is the same image."""
        given = self.concat.get(MASK, self.denoise_mask)
        if given is None or shown.shape[1] != own.shape[1]:
            return own if given is None else shown
        hole = prepare_mask(given, own.shape, own.device) > 0.5
        if shown.shape[-2:] != own.shape[-2:]:
            shown = comfy.utils.common_upscale(shown, own.shape[-1], own.shape[-2], "bilinear", "center")
        shown = repeat(shown.to(own), len(own))
        mixed = torch.where(hole, shown, own)
        same = (mixed - shown).flatten(1).norm(dim=1) < SAME * (own * ~hole).flatten(1).norm(dim=1)
        return torch.where(same.view(-1, *[1] * (own.ndim - 1)), shown, mixed)

    def told(self, model, own: Tensor, conds: list[dict]) -> tuple[list[dict], dict]:
        """`conds` for the reference images `own` [N, C, H, W] with the run's hole in the place of another one, and what else the host completes
        them with."""
        concat = dict(self.concat)
        if IMAGE in concat:
            concat[IMAGE] = model.process_latent_out(self.around(model.process_latent_in(concat[IMAGE]).to(own), own))
        conds = [{k: v for k, v in c.items() if MASK not in c or k not in (MASK, IMAGE)} | concat for c in conds]
        mask = None if self.denoise_mask is None else repeat(self.denoise_mask, len(own))
        # The image and the seed are what inpainting and unCLIP models complete a conditioning with.
        return conds, {"latent_image": self.around(self.latent_image, own), "denoise_mask": mask, "seed": 0}

    def noisy(self, model, x: Tensor, own: Tensor, sigma: float) -> Tensor:
        """The latents `x` of the images `own` as a run shows them: some models see what is kept in another way than under noise."""
        if self.denoise_mask is None or type(model).scale_latent_inpaint is BaseModel.scale_latent_inpaint:
            return x
        mask = repeat(self.denoise_mask.to(x), len(x))
        kept = model.scale_latent_inpaint(x=x, sigma=x.new_full((len(x),), sigma), noise=torch.zeros_like(x), latent_image=own)
        return x * mask + kept * (1 - mask)

    def again(self, model, own: Tensor, conds: list[dict]) -> list[dict]:
        """`conds` that the host has prepared for the image being made, for the reference images `own`."""
        conds, more = self.told(model, own, conds)
        return comfy.samplers.encode_model_conds(model.extra_conds, conds, own, own.device, "negative", **more)


def shown(conds: list[dict]) -> list[Tensor]:
    """What of `conds`, as the host has prepared them, shows a model a mask or an image, [N, ...] each."""
    found = [getattr(c["model_conds"].get(key), "cond", None) for c in conds for key in SHOWN]
    return [x for x in found if isinstance(x, Tensor)]


def rows(conds: list[dict], least: int) -> int:
    """How many images differ in what they are `shown`, if it is more than `least`, after which others begin anew."""
    return max((len(x) for x in shown(conds) if not torch.equal(x, repeat(x[:least], len(x)))), default=least)


def digest(conds: list[dict], count: int) -> str:
    """What tells apart what `count` images are `shown`."""
    made = hashlib.sha256()
    for x in shown(conds):
        made.update(x[:count].float().cpu().contiguous().numpy().tobytes())
    return made.hexdigest()


def takes_masks(model) -> bool:
    """Whether MODEL is shown which part of an image is to be made."""
    network, made = model.model, model.get_model_object("latent_format")
    x = torch.zeros(1, made.latent_channels, *[1] * (made.latent_dimensions - 2), 2, 2)
    parts = [network.concat_cond(noise=x, latent_image=x, denoise_mask=mask, device=x.device) for mask in (x, x + 1)]
    return parts[0] is not None and not torch.equal(*parts)


def with_holes(model, positive: list, samples: Tensor, rng: torch.Generator, holes: int) -> list:
    """The CONDITIONING `positive` for images [B, C, H, W] that heads of MODEL are made from. On inpainting models, where it says nothing of a hole
    itself, it has one at random in each, `holes` in all: as often the whole image, as without a mask, as a part with the image around it."""
    if any(MASK in more for _, more in positive) or not takes_masks(model):
        return positive
    hole = repeat(torch.stack([a_hole(samples.shape[-2:], rng) for _ in range(holes)]), len(samples))
    hole = hole.view(-1, *[1] * (samples.ndim - 3), *hole.shape[-2:])
    blank = getattr(model.model, "blank_inpaint_image_like", None)  # as latents are inside the model
    blank = torch.zeros_like(samples) if blank is None else model.model.process_latent_out(blank(samples))
    return [[words, more | {MASK: hole.float(), IMAGE: torch.where(hole, blank, samples)}] for words, more in positive]


def holes_of(positive: list, places: list[int]) -> list:
    """What `with_holes` made of a CONDITIONING, for the images at these `places` alone."""
    return [[words, more | {key: more[key][places] for key in (MASK, IMAGE) if len(more.get(key, ())) > max(places)}] for words, more in positive]


def a_hole(size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """[H, W], true where it is: everywhere in half of the cases, else a box of a quarter to the whole of each side."""
    hole, (half, *sides) = torch.zeros(size, dtype=torch.bool), torch.rand(5, generator=rng).tolist()
    if half < 0.5:
        return ~hole
    spans = []
    for n, extent, place in zip(size, sides[:2], sides[2:]):
        length = max(1, round(n * (0.25 + 0.75 * extent)))
        low = round((n - length) * place)
        spans.append(slice(low, low + length))
    hole[tuple(spans)] = True
    return hole
