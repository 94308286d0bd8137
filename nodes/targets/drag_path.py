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
            description="Turns a drag into a batch of images along its path, ready for a video node. The first image is undragged.",
            inputs=[Guidance.Input("guidance", tooltip="Guidance that contains a Drag Target."),
                    io.Latent.Input("latent", tooltip="The latent that the dragged image is sampled from: exactly one."),
                    io.Int.Input("frames", default=8, min=2, max=4096, tooltip="Number of images along the path.")],
            outputs=[Guidance.Output(display_name="guidance", tooltip="The guidance, with each drag spread over the images of the batch. Connect it "
                                     "to the sampler."),
                     io.Latent.Output(display_name="latents", tooltip="A batch that holds the latent once per image, all with the same noise. "
                                      "Connect it to the sampler.")])

    @classmethod
    def execute(cls, guidance, latent, frames):
        node = "Drag Path"
        if not any(isinstance(t, Drag) for t in guidance):
            raise ValueError(f"{node}: the guidance contains no drag. Connect a Drag Target with at least one drag.")
        if len(latent["samples"]) != 1:
            raise ValueError(f"{node}: got {len(latent['samples'])} latents, but a path starts from exactly one. Select one with Get Latent From "
                             "Batch.")
        stops = tuple(torch.linspace(0, 1, frames).tolist())
        guidance = tuple(replace(t, stops=stops) if isinstance(t, Drag) else t for t in guidance)
        batch = {"samples": latent["samples"].expand(frames, *latent["samples"].shape[1:]).clone(),
                 "batch_index": latent.get("batch_index", [0]) * frames}  # all from the same noise
        return io.NodeOutput(guidance, {**latent, **batch})
