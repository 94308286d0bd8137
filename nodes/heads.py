"""Load Readout Head."""
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ..heads import load_head
from ..heads.demo import HEADS_FOLDER
from .types import CATEGORY, Head

FOLDER = "readout_heads"
SUFFIXES = {".safetensors", ".pt"}


def register_folder() -> None:
    """Adds models/readout_heads and the bundled heads to the host's model folders; extra model paths stay."""
    for path in (Path(folder_paths.models_dir) / FOLDER, HEADS_FOLDER):
        folder_paths.add_model_folder_path(FOLDER, str(path))
    folder_paths.folder_names_and_paths[FOLDER][1].update(SUFFIXES)


class LoadReadoutHead(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadReadoutHead", display_name="Load Readout Head", category=CATEGORY,
            description="Loads a small network that reads pose, depth or edges out of a diffusion model's own features.",
            inputs=[io.Combo.Input("head_name", options=folder_paths.get_filename_list(FOLDER),
                                   tooltip="A file in models/readout_heads. The demo_* heads belong to the demo model.")],
            outputs=[Head.Output(display_name="head")])

    @classmethod
    def execute(cls, head_name):
        path = folder_paths.get_full_path_or_raise(FOLDER, head_name)
        with torch.inference_mode(False):  # autograd runs through heads and refuses weights made in inference mode
            return io.NodeOutput(load_head(path))

    @classmethod
    def fingerprint_inputs(cls, head_name):
        return Path(folder_paths.get_full_path_or_raise(FOLDER, head_name)).stat().st_mtime
