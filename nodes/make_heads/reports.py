"""What the nodes that make heads say of them, and show."""
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from ...rg_core.readout.estimates import from_range
from ..common.log import log
from ..common.previews import latents_to_rgb, page_server
from . import order
from .evaluation import GOOD, USEFUL, Quality, accuracy
from .examples import Example

FEW, ROUGHLY, WELL = 10, 0.65, 0.8  # of a sort, to be judged by at all; shares of them that are told rightly
SHOWN, SIDE = 4, 128  # images on the sheet, and pixels of an image's shorter side


def report(node: str, head, found: Quality, made: str, given: list[Example]) -> str:
    """In words; `made` says how it was made from the images `given`."""
    best = max(found.shares)
    words = ("It reads well." if best >= GOOD else "It reads roughly: guidance with it should work, but not exactly." if best >= USEFUL else
             "It is not fit for use: it reads almost nothing. Give it more images, or images that differ more; perhaps the model does not know what "
             "should be read.")
    if best < GOOD and order.differs(given):
        words += (" The latents and the images of what to read are in different orders: most of these images fit another latent than the one in "
                  "their place. Give both in the same order.")
    if best < USEFUL:
        log.warning("%s: the %s head is not fit for use; see the report.", node, head.kind)
    levels = "\n".join(f"  percent {p:.1f}: {max(0.0, share):.2f}" for p, share in zip(found.percents, found.shares))
    return (f"A head that reads {head.kind} from {head.base_model}, {made}.\n{words}\nTargets that use it start at percent {found.start:.1f} or "
            f"later.\nFraction of the differences between {len(found.seen)} held-out images that it "
            f"reads{'' if len(found.seen) > 1 else ' (few to judge by)'}, from noise (percent 0) to the clean image (1):\n{levels}\n1 is everything, "
            "0 is no better than their average.")


def on_the_node(cls, words: str) -> str:
    """`words`, shown on the node of class `cls` that is being executed too, as the host's Get Image Size does, but only in the page that runs it."""
    server, node_id = page_server(), cls.hidden and cls.hidden.unique_id
    if server is not None and node_id:
        server.send_progress_text(words, node_id, sid=server.client_id)
    return words


def attribute_report(node: str, head, found: Quality, features: tuple[Sequence[Tensor], Sequence[Tensor]], seconds: float) -> str:
    """The report on a head that tells images with something from those without it, by the features of some of each [N, bands, F], and by those of
    their sizes [N, 1, F]. All bands count: the best of five praises chance. docs/measurements/attributes.md has how often this does."""
    sides, (rights, share), (_, by_size) = features[0], *map(accuracy, features)
    if by_size >= WELL:
        log.warning("%s: the images with %s and those without it have different sizes, and the size alone classifies %.0f%% of them correctly, so "
                    "the head may have learned that. Use images of the same sizes on both sides.", node, head.kind, 100 * by_size)
    elif share < ROUGHLY:
        log.warning("%s: the head for %s is not fit for use; see the report.", node, head.kind)
    words = ("It may classify by size alone, because the sizes differ. Use images of the same sizes on both sides." if by_size >= WELL else
             "It is not fit for use: it hardly tells them apart. Give it more images that differ only in this." if share < ROUGHLY else
             f"It may work, but so few images cannot show it. Give it {FEW} of each or more." if min(map(len, sides)) < FEW else
             "It classifies well." if share >= WELL else "It classifies roughly.")
    levels = "\n".join(f"  percent {p:.1f}: {right} of {len(rights)}" for p, right in zip(found.percents, rights.sum(0).tolist()))
    return (f"A head for {head.base_model} that detects: {head.kind}. Fitted from {head.config['fitted_on']['pictures']} images in {seconds:.0f} "
            f"seconds.\n{words}\nAttribute Target starts at percent {found.start:.1f} or later.\nClassified correctly, each image by what the others "
            f"show, from noise (percent 0) to the clean image (1):\n{levels}\nChance classifies half of them correctly.")


def sheet(model, head, found: Quality) -> Tensor:
    """Held-out images below each other [1, H, W, 3]: the image, what was wanted, and what is read from the noisiest band to the
    cleanest."""
    rows = []
    for example, wanted, readouts in found.seen[:SHOWN]:
        shown = [preview(model, example.latent), *(from_range(x, head.control_range) for x in (wanted, *readouts))]
        rows.append(row(shown, wanted.shape[-2:]))
    return below(rows)


def row(shown: list[Tensor], shape: tuple[int, int]) -> Tensor:
    """Images [B, 3, h, w] of any sizes beside each other, in the `shape` (H, W) of that which they show."""
    size = [round(n * SIDE / min(shape)) for n in shape]
    return torch.cat([torch.nn.functional.interpolate(x, size, mode="nearest-exact") for x in shown], -1)


def below(rows: list[Tensor]) -> Tensor:
    """Images [1, 3, h, w] below each other [1, H, W, 3], with black beside those that are narrower."""
    widest = max(x.shape[-1] for x in rows)
    return torch.cat([torch.nn.functional.pad(x, (0, widest - x.shape[-1])) for x in rows], -2).movedim(1, -1)


def preview(model, latent: Tensor) -> Tensor:
    """[1, 3, h, w], as the host shows latents while it samples; grey where it cannot."""
    image = latents_to_rgb(model.get_model_object("latent_format"))(latent)
    return torch.full((1, 3, 1, 1), 0.5) if image is None else pil_to_tensor(image)[None].float() / 255
