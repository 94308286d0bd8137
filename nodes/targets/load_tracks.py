"""Load Tracks."""
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io

from ..common.types import CATEGORY
from ..inputs import track_points

NODE = "Load Tracks (.npy)"


def files() -> list[str]:
    """Those at the top of ComfyUI's input folder, as its own nodes list them; files deeper down can be named."""
    return sorted(path.name for path in Path(folder_paths.get_input_directory()).glob("*.npy"))


def path_of(file: str | None) -> Path | None:
    """Where a file of that name is in the input folder; names may come from workflows of any system. None: another node will say the name."""
    if file is None:
        return None
    root = Path(folder_paths.get_input_directory()).resolve()
    path = (root / str(file).replace("\\", "/").replace("\0", "")).resolve()
    return path if path.is_relative_to(root) and path.is_file() else None


class LoadTracks(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadReadoutTracks", display_name=NODE, category=CATEGORY,
            search_aliases=["npy", "point tracks"],
            description="Loads point tracks from a NumPy file in ComfyUI's input folder. The array has the shape [1, frames, points, 2] or "
                        "[frames, points, 2], with x and y in pixels.",
            inputs=[io.Combo.Input("file", options=files(), tooltip="A .npy file in ComfyUI's input folder.")],
            outputs=[io.Tracks.Output(tooltip="The tracks, for Drag Target or Fit Comparing Head.")])

    @classmethod
    def validate_inputs(cls, file=None):
        """In place of the host's own check, which takes names as they are written."""
        if file is None or path_of(file):  # None: another node will say
            return True
        return f"{NODE}: there is no {file} in ComfyUI's input folder. Put it there, or choose another file."

    @classmethod
    def execute(cls, file):
        path = path_of(file)
        if path is None:
            raise ValueError(cls.validate_inputs(file))
        try:
            tracks = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped, so that a lie about its size takes no memory
            with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused below
                points = torch.from_numpy(np.array(tracks, dtype=np.float32))
        except Exception as error:  # damaged files make the reader fail in every way there is
            raise ValueError(f"{NODE}: {file} cannot be read as a NumPy file of numbers ({str(error)[:200]}). Choose another file.") from error
        points = points[0] if points.ndim == 4 and len(points) == 1 else points
        if points.ndim != 3 or points.shape[-1] != 2 or not torch.isfinite(points).all():
            raise ValueError(f"{NODE}: {file} contains an array of shape {tuple(points.shape)}, but tracks must be finite numbers of shape [1, "
                             "frames, points, 2] or [frames, points, 2].")
        points = track_points.frames_first(points)
        return io.NodeOutput({"track_path": points, "track_visibility": torch.ones(points.shape[:2], dtype=torch.bool)})

    @classmethod
    def fingerprint_inputs(cls, file):
        path = path_of(file)
        return path.stat().st_mtime if path else float("nan")  # a new one, which equals no other: the host runs the node
