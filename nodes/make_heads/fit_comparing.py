"""Fit Comparing Head: a head that tells what in two images is the same, from images alone."""
import re
import time

import torch
from comfy_api.latest import io
from torch import Tensor

from ...rg_core.fitting.pairs import RULES
from ...rg_core.readout import estimates
from ..common import checks, model_checks
from ..common.log import log
from ..common.types import CATEGORY, Head
from ..inputs import track_points
from .comparer import BANDS, Comparer, Found, Images, fit_head
from .examples import conditionings
from .reports import SHOWN, below, on_the_node, preview, row

NODE = "Fit Comparing Head"


def given_images(images: list[Tensor], positive: list[list], kind: str, tracks: list[dict] | None, groups: list[str] | None) -> Images:
    """Of the host's lists."""
    found, counts = [], []
    for image in images:
        image = checks.image(NODE, image).float().cpu()
        checks.brightness(NODE, image)
        found += image.clamp(0, 1).split(1)
        counts.append(len(image))
    if len(found) < 2:
        raise ValueError(f"{NODE}: got one image, but needs at least two, one to fit and one to evaluate. Two dozen work well.")
    return Images(found, conditionings(NODE, positive, counts), labels(groups, kind, len(found)), paths(tracks, kind, found))


def labels(groups: list[str] | None, kind: str, count: int) -> list[str] | None:
    texts = [checks.text(NODE, "groups", text).strip() for text in groups or ()]
    found = texts if len(texts) > 1 else [label.strip() for text in texts for label in re.split(r"[,\n]", text) if label.strip()]
    if not any(found):
        return None
    if kind != "identity":
        raise ValueError(f"{NODE}: groups say who is in each image, which only a head that reads identity can use, but kind is {kind}. Disconnect "
                         "groups, or choose identity.")
    if len(found) != count:
        raise ValueError(f"{NODE}: got {count} images and {len(found)} groups. Give one label for each image, as a list or as one text separated by "
                         "commas or line breaks.")
    if not all(found):
        without = ", ".join(str(i) for i, label in enumerate(found, 1) if not label)
        raise ValueError(f"{NODE}: groups have no label for image {without}. Give each image one.")
    if len(set(found)) < 2:
        raise ValueError(f"{NODE}: every image is in the group {checks.shown(found[0])}, so there is nobody to tell them apart from. Add images of "
                         "somebody else, or disconnect groups.")
    return found


def paths(tracks: list[dict] | None, kind: str, images: list[Tensor]) -> tuple[Tensor, Tensor] | None:
    """Points [N, K, 2] in shares of the images, which are a video's frames, and whether they are seen [N, K]."""
    if tracks is None:
        return None
    if kind != "correspondence":
        raise ValueError(f"{NODE}: tracks say which points are the same, which only a head that reads correspondence can use, but kind is {kind}. "
                         "Disconnect tracks, or choose correspondence.")
    size = images[0].shape[-2:]
    path, seen = track_points.points(NODE, tracks[0], size)
    if len(path) != len(images) or any(image.shape[-2:] != size for image in images):
        raise ValueError(f"{NODE}: got tracks of {len(path)} frames and {len(images)} images. Connect the frames that were tracked, all of one size.")
    path = path / torch.tensor([size[1], size[0]])
    inside = ((path >= 0) & (path <= 1)).all(-1)
    if seen.any() and inside[seen].float().mean() < 0.5:
        raise ValueError(f"{NODE}: most points of the tracks are outside the images of {size[1]}x{size[0]} pixels. Connect the frames at the size "
                         "that they were tracked at.")
    if ((seen & inside).sum(0) > 1).sum() < 2:
        raise ValueError(f"{NODE}: almost no point of the tracks is visible in two frames. Track more points.")
    return path, seen & inside


def report(head, found: Found, count: int, seconds: float) -> str:
    rule = RULES[head.kind]
    share = rule.overall(found.shares)
    words = ("It is not fit for use: it compares hardly better than chance. Give it more images, or images that differ more."
             if share < rule.acts else
             f"It may work, but the {found.count} comparisons of held-out images are too few to show it. Give it more images."
             if not rule.shown(share, found.count) else
             "It compares well." if share >= rule.good else "It compares roughly.")
    if share < rule.acts:
        log.warning("%s: the %s head is not fit for use; see the report.", NODE, head.kind)
    levels = "\n".join(f"  percent {(band + 0.5) / BANDS:.1f}: {share:.2f}" for band, share in enumerate(found.shares))
    return (f"A head that reads {head.kind} from {head.base_model}, fitted from {count} images in {seconds:.0f} seconds.\n{words}\nTargets that use "
            f"it start at percent {found.start:.1f} or later.\n{rule.measure.capitalize()}, for held-out images and changed copies of them, from "
            f"noise (percent 0) to the clean image (1); chance is {rule.chance}:\n{levels}")


def sheet(model, found: Found) -> Tensor:
    """Held-out images below each other, each above its copy [1, H, W, 3]: the image, and what is read of it from the noisiest band
    to the cleanest, in the colors of the three strongest components of both."""
    rows = []
    for comparison, readouts in found.seen[:SHOWN]:
        shown = [torch.cat([preview(model, x[None]) for x in comparison.images[:2]]), *(estimates.colors(x[:2]) for x in readouts)]
        rows += row(shown, comparison.images.shape[-2:]).split(1)
    return below(rows)


class FitComparingHead(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FitComparingHead", display_name=NODE, category=CATEGORY, is_input_list=True,
            search_aliases=["train", "similarity", "correspondence"],
            description="Makes a head for this model that finds what is the same in two images. It needs images only: changed copies of them show "
                        "what should matter and what should not.",
            inputs=[io.Model.Input("model", tooltip="The model that you will sample with. LoRAs on it count; guidance on it does not."),
                    io.Vae.Input("vae", tooltip="The model's VAE, which encodes the changed copies."),
                    io.Image.Input("images", tooltip="Images like those that you will make, as a batch or a list."),
                    io.Conditioning.Input("positive", tooltip="What the images show: one prompt for all, such as an empty one, or a list."),
                    io.Combo.Input("kind", options=list(RULES), tooltip="What the head is for: correspondence for Drag Target, appearance for "
                                   "Appearance Target, identity for Identity Target."),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                                 tooltip="The seed of the noise and of the changes. It also chooses the images that are held out to evaluate the "
                                 "head."),
                    io.Tracks.Input("tracks", optional=True, tooltip="For correspondence, if the images are the frames of a video: points that "
                                    "were tracked through that video."),
                    io.String.Input("groups", optional=True, multiline=True, default="", tooltip="For identity: who is in each image, one label per "
                                    "image, separated by commas or line breaks. Images with the same label show the same person or thing.")],
            outputs=[Head.Output(display_name="head", tooltip="The new head, for targets, Readout Estimate or Save Readout Head."),
                     io.String.Output(display_name="report", tooltip="Whether the head is fit for use, and how well it compares at each noise level. "
                                      "Connect it to Preview as Text to keep it in view."),
                     io.Image.Output(display_name="held out", tooltip="Held-out images, each above its changed copy, and what the head reads from "
                                     "them, as colors.")],
            hidden=[io.Hidden.unique_id])

    @classmethod
    def execute(cls, model, vae, images, positive, kind, seed, tracks=None, groups=None):
        model, kind, begin = model[0], kind[0], time.monotonic()
        model_checks.heads_fit(NODE, model, [])
        if vae[0] is None:
            raise ValueError(f"{NODE}: there is no VAE. Connect the one that belongs to the model, such as from Load VAE.")
        given = given_images(images, positive, kind, tracks, groups)
        head, found = fit_head(Comparer(NODE, model, vae[0], given, kind, seed[0]))
        words = report(head, found, len(given.images), time.monotonic() - begin)
        return io.NodeOutput(head, on_the_node(cls, words), sheet(model, found))
