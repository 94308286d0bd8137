"""Readout heads on disk: safetensors with their config in the metadata, or the published pickles."""
import json
import pickle
import struct
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

try:
    from ..rg_core.head import ReadoutHead
except ImportError:  # the repository's root is on the path instead of the pack being a package
    from rg_core.head import ReadoutHead

METADATA_KEY = "readout_head"
# How the published files name what a head reads, and the control range it was trained with unless its config says.
KINDS = {"pose_keypoint": "keypoints", "drag_correspondence": "correspondence", "drag_appearance": "appearance",
         "identity": "identity", "correspondence": "correspondence", "appearance": "appearance", "pose": "pose",
         "depth": "depth", "edge": "edge", "keypoints": "keypoints"}
CONTROL_RANGES = {"depth": (-1.0, 1.0)}
DEFAULT_RANGE = (-0.5, 0.5)


class HeadFileError(ValueError):
    """A file that is no readout head, or cannot be read safely. The message names the file and says what to do."""


def load_head(path: str | PathLike) -> ReadoutHead:
    """Reads a head from a .safetensors file or a published .pt, running no code from it.

    Shapes come from the weights; the kind from the config or, failing that, the file's name. Raises HeadFileError.
    """
    path = Path(path)
    try:
        weights, config = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except HeadFileError:
        raise
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError, OSError, KeyError, struct.error,
            json.JSONDecodeError) as error:
        raise HeadFileError(f"{path.name} cannot be read as a readout head: it is damaged, incomplete or another kind of "
                            f"file ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}). "
                            "Download or export it again.") from error
    return _build(path, weights, config)


def save_head(head: ReadoutHead, path: str | PathLike, dtype: torch.dtype = torch.float16, **about: object) -> None:
    """Writes `head` as safetensors; `about` joins the config in the metadata (training set, quality, ...)."""
    aggregation = {"bottleneck_sequential": False, "use_output_head": head.output_head is not None,
                   "output_head_act": head.output_head is not None and isinstance(head.output_head[-1], torch.nn.Tanh)}
    config = {"kind": head.kind, "model_id": head.base_model, "dims": head.channels, "aggregation_kwargs": aggregation,
              "dataset_args": {"control_range": list(head.control_range)}, "output_stride": head.stride, **about}
    weights = {name: value.detach().to(dtype).contiguous() for name, value in head.state_dict().items()}
    save_file(weights, path, metadata={METADATA_KEY: json.dumps(config)})


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    with safe_open(path, "pt") as file:
        config = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, config


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], dict]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise HeadFileError(f"{path.name} was refused: it is damaged, or it wants to run code while it is opened, which a "
                            "readout head never needs. Nothing of it was run. Get the head from its authors.") from error
    if not isinstance(content, dict) or "aggregation_network" not in content:
        raise HeadFileError(f"{path.name} is not a readout head: it has no 'aggregation_network'. Choose another file.")
    return content["aggregation_network"], content.get("config") or {}


def _kind(path: Path, config: dict) -> str:
    named = config.get("kind", path.stem)
    for pattern, kind in KINDS.items():
        if pattern in named:
            return kind
    raise HeadFileError(f"{path.name} does not say what it reads. Name it after its kind, for example "
                        f"readout_sdv15_spatial_pose{path.suffix}; known are {', '.join(KINDS)}.")


def _build(path: Path, weights: dict[str, Tensor], config: dict) -> ReadoutHead:
    # With bottleneck_sequential each block sits in a Sequential of one and takes no embedding.
    weights = {name.replace(".0.", ".", 1) if name.startswith("bottleneck_layers.") and name.split(".")[2] == "0" else name:
               value for name, value in weights.items()}
    if "mixing_weights" not in weights or "bottleneck_layers.0.conv1.weight" not in weights:
        raise HeadFileError(f"{path.name} is not a readout head: its weights have other names "
                            f"({', '.join(sorted(weights)[:3])}, ...). Choose another file.")
    kind = _kind(path, config)
    layers = len(weights["mixing_weights"])
    aggregation, dataset = config.get("aggregation_kwargs") or {}, config.get("dataset_args") or {}
    emb = weights.get("bottleneck_layers.0.emb_layers.weight")
    out = weights.get("output_head.4.weight")
    try:
        head = ReadoutHead(
            kind, [weights[f"bottleneck_layers.{i}.conv1.weight"].shape[1] for i in range(layers)],
            projection_dim=weights["bottleneck_layers.0.conv3.weight"].shape[0],
            emb_channels=None if emb is None else emb.shape[1], out_channels=None if out is None else out.shape[0],
            hidden=(128, 32) if out is None else (weights["output_head.0.weight"].shape[0], out.shape[1]),
            tanh=bool(aggregation.get("output_head_act", True)),
            control_range=dataset.get("control_range") or CONTROL_RANGES.get(kind, DEFAULT_RANGE),
            base_model=config.get("model_id", ""), stride=config.get("output_stride", 1))
        head.load_state_dict({name: value.float() for name, value in weights.items()})
    except (KeyError, RuntimeError) as error:
        raise HeadFileError(f"{path.name} is not a whole readout head: {str(error).splitlines()[-1].strip()} "
                            "Download or export it again.") from error
    return head.eval().requires_grad_(False)
