"""Drag, Appearance and Identity Target: what should stay or change between a reference and the picture being made."""
import math
from dataclasses import replace

import torch
from comfy_api.latest import io, ui

from ..rg_core.features import AS_THEY_ARE
from ..rg_core.regions import WHOLE, Box
from ..rg_core.targets import Appearance, Drag, Identity, Target
from . import checks, drag_paths, track_points
from .log import log
from .targets import CHAIN, when
from .types import CATEGORY, Drags, Guidance, Head, ReferenceType

# A run shows the picture to draw on even where the cache has the rest. An old host shows so only what it always runs.
SHOWS_WHAT_IS_CACHED = {"has_intermediate_output" if hasattr(io.Schema, "has_intermediate_output") else "is_output_node": True}
MOST_SHARES = 2  # of the picture's side: a box that ends before that is in shares; in pixels it would hold next to nothing
REFERENCE = ReferenceType.Input("reference", tooltip="From Readout Invert, KSampler (Readout Reference) or Readout Reference.")


def optional_head(kind: str):
    return Head.Input("head", optional=True, tooltip=f"A head that reads {kind}, for the model that you sample with. Without one the model's own "
                      "features are compared as they are.")


def comparing(node: str, head, kind: str):
    """The head to compare with; the features as they are where there is none."""
    if head is None:
        return AS_THEY_ARE
    checks.head_kind(node, head, kind)
    return head


# ComfyUI's own text field, so that its page keeps what is drawn whether or not the editor in web/ lies over it.
AS_TEXT = {"widgetType": "STRING", "multiline": True, "dynamicPrompts": False, "default": "[]"}


class DragTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutDragTarget", display_name="Drag Target", category=CATEGORY,
            search_aliases=["dragdiffusion", "draggan", "move", "point", "arrow"],
            **SHOWS_WHAT_IS_CACHED,
            description="Moves things in a reference picture: draw arrows from where they are to where they should be.",
            inputs=[
                REFERENCE,
                Drags.Input("drags", extra_dict=AS_TEXT, tooltip="Arrows from where things are to where they should be: draw them on the picture, "
                            "or type them as text, [[[x, y], [x, y]], ...] from 0 to 1. Where this is promoted to a subgraph node, draw there."),
                *when(Drag),
                optional_head("correspondence"),
                io.Image.Input("image", optional=True, tooltip="The reference as a picture, to draw on."),
                io.String.Input("drags_json", optional=True, force_input=True,
                                tooltip="More drags: [[[x, y], [x, y]], ...], each from its first to its last point, from 0 to 1 or in pixels "
                                "of the image, or of the reference without one. Points may be {\"x\": x, \"y\": y}, as spline editors "
                                "give them."),
                io.Tracks.Input("tracks", optional=True, tooltip="More drags: each point goes from its first to its last place, in "
                                "pixels of the image, or of the reference without one."),
                io.Mask.Input("mask", optional=True, tooltip="What may change: white. The rest follows the reference."),
                CHAIN,
            ],
            outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, reference, drags, weight, start_percent, end_percent, head=None, image=None, drags_json=None, tracks=None,
                mask=None, guidance=None):
        node = "Drag Target"
        head = comparing(node, head, "correspondence")
        checks.when(node, weight, start_percent, end_percent)
        start_percent = checks.later_start(node, head, start_percent, end_percent)
        size = checks.pixels(reference) if image is None else tuple(checks.picture(node, image).shape[-2:])
        found = [] if drags == "" else drag_paths.from_json(node, drags, size)  # a text that somebody emptied
        if drags_json is not None:
            found += drag_paths.from_json(node, drags_json, size)
        if tracks is not None:
            found += track_points.paths(node, tracks, size)
        targets = ()
        if found:  # none drawn yet: the first run only shows the picture to draw on
            checks.drawn_on(node, size, reference)
            targets = (Drag(name="drag", head=head, weight=weight, start=start_percent, end=end_percent, reference=reference,
                                 paths=drag_paths.usable(node, found), mask=checks.mask_of(node, mask, reference)),)
        shown = {} if image is None else {"readout_picture": ui.PreviewImage(image[:1], cls=cls).as_dict()["images"]}
        return io.NodeOutput((*(guidance or ()), *targets), ui=shown)


def box_of(node: str, name: str, box: dict | list | None, reference) -> Box | None:
    """The host's BOUNDING_BOX, in pixels of the reference, as shares of it. Detectors give lists of them, one for each picture."""
    if box is None:
        return None
    if isinstance(box, list) and all(isinstance(part, (dict, list)) for part in box):
        found = [one for part in box for one in (part if isinstance(part, list) and all(isinstance(p, dict) for p in part) else [part])]
        if len(found) != 1:
            raise ValueError(f"{node}: got {len(found)} boxes, and it needs one. Let the detector find one thing, or draw a box with "
                             "Bounding Box.")
        box, = found
    try:
        x, y, wide, high = (float(box[side]) for side in ("x", "y", "width", "height")) if isinstance(box, dict) else ()
        good = all(map(math.isfinite, (x, y, wide, high)))
    except (TypeError, LookupError, ValueError, OverflowError, RuntimeError):
        good = False
    if not good:
        raise ValueError(f"{node}: the box is {checks.shown(box)}, and should be an object with x, y, width and height in pixels. Draw it with "
                         "Bounding Box, or bring it into that form.")
    height, width = checks.pixels(reference)
    if max(map(abs, (x, y))) <= 1 and max(x + wide, y + high) <= MOST_SHARES:  # of the picture, as some detectors have it
        x, y, wide, high = x * width, y * height, wide * width, high * height
    left, top = max(0, x) / width, max(0, y) / height
    right, bottom = min(width, x + wide) / width, min(height, y + high) / height
    if right <= left or bottom <= top:
        raise ValueError(f"{node}: the box {checks.shown(box)} holds nothing of a picture of {width}x{height} pixels. Draw it inside the picture.")
    rest = reference.downscale - 1  # pixels of the picture that encoding may have cut off
    inside = (min(width + rest, x + wide) - max(-rest, x)) * (min(height + rest, y + high) - max(-rest, y))
    if inside < 0.8 * wide * high:
        log.warning("%s: more than a fifth of the %s %s is outside the reference's picture of %dx%d pixels, and is cut off. If it was found on a "
                    "picture of another size, find it on the one that went into VAE Encode.", node, name, checks.shown(box), width, height)
    return left, top, right - left, bottom - top


def box_input(name: str, tooltip: str):
    """A box that is connected or not there. The host's input has a default, 512 pixels wide and high, which clients would fill in for it."""
    box = io.BoundingBox.Input(name, optional=True, socketless=False, force_input=True, tooltip=tooltip)
    box.default = None
    return box


def likeness_inputs(head: list, target: type[Target]) -> list:
    where = "The same size as the reference's picture, or of its shape."
    return [
        *head, REFERENCE, *when(target),
        io.Mask.Input("mask", optional=True, tooltip=f"Where it acts in the picture being made: white. {where}"),
        io.Mask.Input("reference_mask", optional=True, tooltip=f"What counts of the reference: white. {where}"),
        box_input("box", "Where it acts in the picture being made, in its pixels."),
        box_input("reference_box", "What counts of the reference, in its pixels."),
        CHAIN,
    ]


def likeness(kind: str, make, head, reference, weight, start_percent, end_percent, mask, reference_mask, box, reference_box,
             guidance) -> io.NodeOutput:
    node = f"{kind.capitalize()} Target"
    checks.when(node, weight, start_percent, end_percent)
    start = checks.later_start(node, head, start_percent, end_percent)
    box, reference_box = (box_of(node, name, given, reference) for name, given in (("box", box), ("reference_box", reference_box)))
    if make is Appearance:  # places are compared, so one box means the same on both sides
        box, reference_box = box or reference_box, reference_box or box
    target = make(name=kind, head=head, weight=weight, start=start, end=end_percent, reference=reference,
                  mask=checks.mask_of(node, mask, reference),
                  reference_mask=checks.mask_of(node, reference_mask, reference, "reference_mask"),
                  box=box or WHOLE, reference_box=reference_box or WHOLE)
    return io.NodeOutput((*(guidance or ()), target))


class AppearanceTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutAppearanceTarget", display_name="Appearance Target", category=CATEGORY,
            search_aliases=["style", "ip adapter", "look"],
            description="Keeps the looks of a reference, place by place. With boxes, what is in the reference's box should be in the "
                        "picture's.",
            inputs=likeness_inputs([optional_head("appearance")], Appearance), outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, reference, weight, start_percent, end_percent, head=None, mask=None, reference_mask=None, box=None,
                reference_box=None, guidance=None):
        head = comparing("Appearance Target", head, "appearance")
        return likeness("appearance", Appearance, head, reference, weight, start_percent, end_percent, mask, reference_mask,
                        box, reference_box, guidance)


class StructureTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutStructureTarget", display_name="Structure Target", category=CATEGORY,
            search_aliases=["layout", "composition"],
            description="Keeps where things are in a reference picture; what they are and their colours come from the prompt. It needs no head and "
                        "no preprocessor.",
            inputs=likeness_inputs([], Appearance), outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, reference, weight, start_percent, end_percent, mask=None, reference_mask=None, box=None, reference_box=None,
                guidance=None):
        return likeness("structure", Appearance, AS_THEY_ARE, reference, weight, start_percent, end_percent, mask, reference_mask,
                        box, reference_box, guidance)


class IdentityTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutIdentityTarget", display_name="Identity Target", category=CATEGORY,
            search_aliases=["character", "face", "ip adapter", "same person"],
            description="Keeps who is in a reference, wherever they stand in the new picture.",
            inputs=likeness_inputs([Head.Input("head", tooltip="A head that reads identity, for the model that you sample with.")], Identity),
            outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, reference, weight, start_percent, end_percent, mask=None, reference_mask=None, box=None,
                reference_box=None, guidance=None):
        checks.head_kind("Identity Target", head, "identity")
        return likeness("identity", Identity, head, reference, weight, start_percent, end_percent, mask, reference_mask,
                        box, reference_box, guidance)


class DragPath(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutDragPath", display_name="Drag Path", category=CATEGORY,
            search_aliases=["animate", "video", "frames"],
            description="Turns a drag into a batch of pictures along its way, the first one undragged, ready for a video node.",
            inputs=[Guidance.Input("guidance", tooltip="With a Drag Target in it."),
                    io.Latent.Input("latent", tooltip="What the dragged picture is sampled from: one latent."),
                    io.Int.Input("frames", default=8, min=2, max=4096)],
            outputs=[Guidance.Output(display_name="guidance"), io.Latent.Output(display_name="latents")])

    @classmethod
    def execute(cls, guidance, latent, frames):
        node = "Drag Path"
        if not any(isinstance(t, Drag) for t in guidance):
            raise ValueError(f"{node}: there is no drag in the guidance. Connect a Drag Target with at least one drag.")
        if len(latent["samples"]) != 1:
            raise ValueError(f"{node}: got {len(latent['samples'])} latents, and a path starts from one. Take one of them with Get "
                             "Latent From Batch.")
        stops = tuple(torch.linspace(0, 1, frames).tolist())
        guidance = tuple(replace(t, stops=stops) if isinstance(t, Drag) else t for t in guidance)
        batch = {"samples": latent["samples"].expand(frames, *latent["samples"].shape[1:]).clone(),
                 "batch_index": latent.get("batch_index", [0]) * frames}  # all from the same noise
        return io.NodeOutput(guidance, {**latent, **batch})
