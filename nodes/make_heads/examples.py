"""What heads are made from: images as latents, what each shows, and what should be read of it."""
import math
from dataclasses import dataclass

from comfy_api.latest import io
from torch import Tensor

from ...heads.config import KINDS, NAME
from ..common import checks
from ..common.latents import samples_for
from ..inputs.depth_maps import FLAT
from ..inputs.maps import ADVICE_MAP, maps_of

BATCH_PIXELS, MOST_AT_ONCE = 2**16, 16  # latent pixels, and images, that the model is asked about at a time
ADVICE = ADVICE_MAP._replace(holes="are set to the farthest distance")
NOT_MAPS = ("appearance", "correspondence", "identity", "keypoints")


@dataclass(frozen=True, eq=False)
class Example:
    """Its tensors lie in main memory, wherever the host keeps its own."""
    latent: Tensor    # [1, C, H, W]
    positive: list    # the host's CONDITIONING
    image: Tensor     # [1, 3, h, w], 0 to 1: what should be read


def example_inputs() -> list:
    """The inputs of nodes that make heads from images and what should be read from each: see `examples`."""
    return [io.Model.Input("model", tooltip="The model that you will sample with. LoRAs on it count; guidance on it does not."),
            io.Latent.Input("latents", tooltip="The images, as a batch or a list of latents. The model may have sampled them itself."),
            io.Conditioning.Input("positive", tooltip="What the images show: one prompt for all, such as an empty one, or a list."),
            io.Image.Input("image", tooltip="What the head should read from each image, in the same order: a batch or a list, of any size."),
            io.String.Input("kind", default="depth", tooltip="What the head reads: pose, depth, edge, or a name of your own for Map Target.")]


def kind_given(node: str, kind: str, called: str = "kind") -> str:
    """What a new head reads, as the input `called` so says it: "Edges" are what other heads call edge."""
    kind = checks.text(node, called, kind).strip()
    kind = {singular(known): known for known in KINDS.values()}.get(singular(kind), kind)
    if not NAME.fullmatch(kind) or kind.endswith("."):
        raise ValueError(f"{node}: {called} is {checks.shown(kind)}. Write a short name: up to 40 letters, digits, spaces, '.', '_' and '-', "
                         "starting with a letter or digit.")
    if kind in NOT_MAPS:
        raise ValueError(f"{node}: a head that reads {kind} outputs no image, so it cannot be made from images of it. Choose another {called}.")
    return kind


def singular(kind: str) -> str:
    return kind.lower().rstrip("s")


def examples(node: str, model, latents: list[dict], positive: list[list], images: list[Tensor], kind: str) -> list[Example]:
    """One for each image, of the host's lists of LATENTs, CONDITIONINGs and IMAGEs; a single conditioning is for all."""
    samples = [x[None].cpu() for latent in latents for x in samples_for(node, model, latent)]
    shown = prepared(node, images, kind)
    if len(samples) != len(shown):
        raise ValueError(f"{node}: got {len(samples)} images as latents and {len(shown)} images of what to read. Connect the same number of both."
                         + (said_of_batches(model) if len(samples) < len(shown) else ""))
    said = conditionings(node, positive, [len(latent["samples"]) for latent in latents])
    for i, (latent, image) in enumerate(zip(samples, shown), 1):
        shapes = [x.shape[-1] / x.shape[-2] for x in (latent, image)]
        pixel = 1 / min(latent.shape[-2:])  # a VAE cuts off less than one
        if abs(math.log(shapes[0] / shapes[1])) > max(0.03, pixel):
            raise ValueError(f"{node}: image {i} is {latent.shape[-1]}x{latent.shape[-2]} in latents, but the image of what to read from it is "
                             f"{image.shape[-1]}x{image.shape[-2]} pixels, a different aspect ratio. Make both from the same image.")
    if len(samples) < 2:
        raise ValueError(f"{node}: got one image, but needs at least two, one to learn from and one to evaluate. Ten make a head; more make a better "
                         "one.")
    if all((x.amax((2, 3)) - x.amin((2, 3))).max() < FLAT for x in shown):
        raise ValueError(f"{node}: every image of what to read has one color everywhere, so there is nothing to read. Check the node they come from.")
    return [Example(*parts) for parts in zip(samples, said, shown)]


def prepared(node: str, images: list[Tensor], kind: str) -> list[Tensor]:
    """Each of the images in the host's IMAGEs, [1, 3, h, w]."""
    single = []
    for image in images:
        image = checks.image(node, image).float().cpu()
        checks.brightness(node, image)
        single += image.split(1)
    images = [image for image, _ in maps_of(node, kind, single, ADVICE)]
    return images if kind in KINDS.values() else [image.clamp(0, 1) for image in images]


def conditionings(node: str, positive: list[list], counts: list[int]) -> list[list]:
    """One for each image, of which the host's lists have so many (`counts`) in each item."""
    positive, count = each_its_own(positive, counts), sum(counts)
    if len(positive) not in (1, count):
        raise ValueError(f"{node}: got {count} images and {len(positive)} conditionings. Connect one for all, or one for each.")
    for tensor, more in (part for conditioning in positive for part in conditioning):
        if len(tensor) > 1:
            raise ValueError(f"{node}: one conditioning contains {len(tensor)} prompts. Connect a list of conditionings instead.")
        if more.get("start_percent", 0.0) > 0 or more.get("end_percent", 1.0) < 1:
            raise ValueError(f"{node}: a conditioning is active for only part of the time. Connect one without a time limit.")
        most = max(map(len, per_image(more)), default=1)
        if most > 1:
            raise ValueError(f"{node}: one conditioning contains {most} images or masks, such as those of a ControlNet, and they would go to the "
                             "wrong images. Connect a list of conditionings instead, such as from Apply ControlNet after Rebatch Images (batch_size "
                             "1).")
    return positive * (count if len(positive) == 1 else 1)


def each_its_own(positive: list[list], counts: list[int]) -> list[list]:
    """`positive`, where ComfyUI's Resolution Bucket has put the conditionings of a batch's images into one."""
    if [len(conditioning) for conditioning in positive] != counts or any(x in more for c in positive for _, more in c for x in ("area", "mask")):
        return positive
    return [[part] for conditioning in positive for part in conditioning]


def per_image(more: dict) -> list[Tensor]:
    """What a conditioning holds beside its words, of which the host gives the first to the first image of a batch, and so on."""
    found, control = [more.get(key) for key in ("mask", "concat_mask", "concat_latent_image")], more.get("control")
    while control is not None:
        found.append(control.cond_hint_original)
        control = control.previous_controlnet
    return [x for x in found if isinstance(x, Tensor) and x.ndim > 2]  # a mask may be [H, W]


def said_of_batches(model) -> str:
    """What may have left too few latents of many images."""
    if model.get_model_object("latent_format").latent_dimensions != 3:
        return ""
    return " This model's VAE treats a batch of images as a video: put Rebatch Images (batch_size 1) before VAE Encode."


def batches(given: list[Example]) -> list[list[int]]:
    """The places of those that the model can be asked about at a time: of one size and by the same conditioning."""
    groups: dict[tuple, list[int]] = {}
    for i, example in enumerate(given):
        groups.setdefault((id(example.positive), *example.latent.shape[-2:]), []).append(i)
    found = []
    for (_, height, width), places in groups.items():
        most = max(1, min(MOST_AT_ONCE, BATCH_PIXELS // (height * width)))
        found += [places[i:i + most] for i in range(0, len(places), most)]
    return found
