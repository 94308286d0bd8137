"""Drag Path."""
from dataclasses import replace

import torch
from comfy_api.latest import io

from ...rg_core.guidance.targets import Drag
from ..common.types import CATEGORY, Guidance


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
