"""The heads that the authors of the method published. Data only: they are not in this repository, and nothing fetches them."""
from typing import NamedTuple

from .base_models import BASE_MODELS

PAGE = "https://huggingface.co/g-luo/readout-guidance"
LICENSE = "Apache-2.0"
FAMILIES = ("sdv15", "sdxl")
# What they read, and the folder of the page.
NAMES = {"spatial_pose": ("pose", "weights"), "spatial_depth": ("depth", "weights"), "spatial_edge": ("edge", "weights"),
         "drag_correspondence": ("correspondence", "weights"), "drag_appearance": ("appearance", "weights"),
         "pose_keypoint": ("keypoints", "readout_pose")}


class Published(NamedTuple):
    file: str
    kind: str  # as in ReadoutHead
    base_model: str
    license: str
    url: str


def _head(family: str, name: str) -> Published:
    file, (kind, folder) = f"readout_{family}_{name}.pt", NAMES[name]
    return Published(file, kind, BASE_MODELS[family].name, LICENSE, f"{PAGE}/resolve/main/{folder}/{file}")


HEADS = {f"readout_{family}_{name}": _head(family, name) for family in FAMILIES for name in NAMES}  # by the file's stem
