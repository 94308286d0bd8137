"""Drag, Appearance and Identity Target: what should stay or change between a reference and the picture being made."""
from dataclasses import replace
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io, ui

from ..rg_core.regions import WHOLE, Box
from ..rg_core.targets import Appearance, Drag, Identity, Target
from . import checks, drag_paths
from .targets import CHAIN, when
from .types import CATEGORY, Drags, Guidance, Head, ReferenceType

REFERENCE = ReferenceType.Input("reference", tooltip="From Readout Invert, KSampler (Readout Reference) or Readout Reference.")


class DragTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutDragTarget", display_name="Drag Target", category=CATEGORY,
            is_output_node=True,  # so that a run shows the picture to draw on even where the cache has the rest
            description="Moves things in a reference picture: draw arrows from where they are to where they should be.",
            inputs=[
                Head.Input("head", tooltip="A head that reads correspondence, for the model that you sample with."),
                REFERENCE,
                Drags.Input("drags"),
                *when(Drag),
                io.Image.Input("image", optional=True, tooltip="The reference as a picture, to draw on."),
                io.String.Input("drags_json", optional=True, force_input=True,
                                tooltip="More drags: [[[x, y], [x, y]], ...], each from its first to its last point, in shares of the "
                                "picture."),
                io.Tracks.Input("tracks", optional=True, tooltip="More drags: each point goes from its first to its last place, in "
                                "pixels of the image, or of the reference without one."),
                io.Mask.Input("mask", optional=True, tooltip="What may change: white. The rest follows the reference."),
                CHAIN,
            ],
            outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, reference, drags, weight, start_percent, end_percent, image=None, drags_json=None, tracks=None,
                mask=None, guidance=None):
        node = "Drag Target"
        checks.head_kind(node, head, "correspondence")
        checks.percents(node, start_percent, end_percent)
        size = checks.pixels(reference) if image is None else tuple(checks.picture(node, image).shape[-2:])
        found = drag_paths.from_json(node, drags)
        if drags_json is not None:
            found += drag_paths.from_json(node, drags_json)
        if tracks is not None:
            found += drag_paths.from_tracks(node, tracks, size)
        targets = ()
        if found:  # none drawn yet: the first run only shows the picture to draw on
            targets = (Drag(name="drag", head=head, weight=weight, start=start_percent, end=end_percent, reference=reference,
                                 paths=drag_paths.usable(node, found), mask=checks.mask(node, mask)),)
        shown = {} if image is None else {"readout_picture": ui.PreviewImage(image[:1], cls=cls).as_dict()["images"]}
        return io.NodeOutput((*(guidance or ()), *targets), ui=shown)


def box_of(node: str, box: dict | list | None, reference) -> Box:
    """The host's BOUNDING_BOX, in pixels of the reference, as shares of it. Detectors give lists of them, one for each picture."""
    if box is None:
        return WHOLE
    if isinstance(box, list):
        found = [one for part in box for one in (part if isinstance(part, list) else [part])]
        if len(found) != 1:
            raise ValueError(f"{node}: got {len(found)} boxes, and it needs one. Let the detector find one thing, or draw a box with "
                             "Bounding Box.")
        box, = found
    height, width = checks.pixels(reference)
    left, top = max(0, box["x"]) / width, max(0, box["y"]) / height
    right, bottom = min(width, box["x"] + box["width"]) / width, min(height, box["y"] + box["height"]) / height
    if right <= left or bottom <= top:
        raise ValueError(f"{node}: the box {box} holds nothing of a picture of {width}x{height} pixels. Draw it inside the picture.")
    return left, top, right - left, bottom - top


def likeness_inputs(kind: str, target: type[Target]) -> list:
    where = "The same size as the reference's picture, or of its shape."
    return [
        Head.Input("head", tooltip=f"A head that reads {kind}, for the model that you sample with."),
        REFERENCE, *when(target),
        io.Mask.Input("mask", optional=True, tooltip=f"Where it acts in the picture being made: white. {where}"),
        io.Mask.Input("reference_mask", optional=True, tooltip=f"What counts of the reference: white. {where}"),
        io.BoundingBox.Input("box", optional=True, socketless=False, force_input=True,
                             tooltip="Where it acts in the picture being made, in its pixels."),
        io.BoundingBox.Input("reference_box", optional=True, socketless=False, force_input=True,
                             tooltip="What counts of the reference, in its pixels."),
        CHAIN,
    ]


def likeness(kind: str, make, head, reference, weight, start_percent, end_percent, mask, reference_mask, box, reference_box,
             guidance) -> io.NodeOutput:
    node = f"{kind.capitalize()} Target"
    checks.head_kind(node, head, kind)
    checks.percents(node, start_percent, end_percent)
    target = make(name=kind, head=head, weight=weight, start=start_percent, end=end_percent, reference=reference,
                  mask=checks.mask(node, mask), reference_mask=checks.mask(node, reference_mask),
                  box=box_of(node, box, reference), reference_box=box_of(node, reference_box, reference))
    return io.NodeOutput((*(guidance or ()), target))


class AppearanceTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutAppearanceTarget", display_name="Appearance Target", category=CATEGORY,
            description="Keeps the looks of a reference, place by place. With boxes, what is in the reference's box should be in the "
                        "picture's.",
            inputs=likeness_inputs("appearance", Appearance), outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, reference, weight, start_percent, end_percent, mask=None, reference_mask=None, box=None,
                reference_box=None, guidance=None):
        # A box on one side means the same box on the other.
        return likeness("appearance", Appearance, head, reference, weight, start_percent, end_percent, mask, reference_mask,
                        reference_box if box is None else box, box if reference_box is None else reference_box, guidance)


class IdentityTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutIdentityTarget", display_name="Identity Target", category=CATEGORY,
            description="Keeps who is in a reference, wherever they stand in the new picture.",
            inputs=likeness_inputs("identity", Identity), outputs=[Guidance.Output(display_name="guidance")])

    @classmethod
    def execute(cls, head, reference, weight, start_percent, end_percent, mask=None, reference_mask=None, box=None,
                reference_box=None, guidance=None):
        return likeness("identity", Identity, head, reference, weight, start_percent, end_percent, mask, reference_mask,
                        box, reference_box, guidance)


class DragPath(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutDragPath", display_name="Drag Path", category=CATEGORY,
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


class LoadTracks(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadReadoutTracks", display_name="Load Tracks (.npy)", category=CATEGORY,
            description="Loads point tracks from a NumPy file in ComfyUI's input folder: [1, frames, points, 2] or [frames, points, "
                        "2], x and y in pixels.",
            inputs=[io.Combo.Input("file", options=track_files())], outputs=[io.Tracks.Output()])

    @classmethod
    def execute(cls, file):
        try:
            tracks = np.load(folder_paths.get_annotated_filepath(file), allow_pickle=False)
            path = torch.from_numpy(tracks.astype(np.float32))
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(f"Load Tracks (.npy): {file} cannot be read as a NumPy file of numbers ({error}).") from error
        path = path[0] if path.ndim == 4 and len(path) == 1 else path
        if path.ndim != 3 or path.shape[-1] != 2 or not torch.isfinite(path).all():
            raise ValueError(f"Load Tracks (.npy): {file} holds an array of shape {tuple(tracks.shape)}, and tracks are finite numbers "
                             "of shape [1, frames, points, 2] or [frames, points, 2].")
        return io.NodeOutput({"track_path": path, "track_visibility": torch.ones(path.shape[:2], dtype=torch.bool)})

    @classmethod
    def fingerprint_inputs(cls, file):
        return Path(folder_paths.get_annotated_filepath(file)).stat().st_mtime


def track_files() -> list[str]:
    root = Path(folder_paths.get_input_directory())
    return sorted(str(p.relative_to(root)) for p in root.rglob("*.npy"))
