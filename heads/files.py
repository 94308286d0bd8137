"""Readout heads on disk: safetensors with their config in the metadata, or pickles as the method's authors publish them.

Shapes and layout are those of the weights, whatever the config says. It may lack any of its fields, and a file its config:

| field of the config | without it |
|---|---|
| `kind` (only in files written here) | the first to name one: the file's name, `dataset_args.control_type`, `wandb_kwargs.name` |
| `model_id` | the model of the published head that the file is named after, else "" |
| `dims`, `projection_dim`, `aggregation_kwargs`: `use_output_head`, `output_head_channels`, `bottleneck_sequential` | never read |
| `aggregation_kwargs`: `output_head_act` (tanh) | true |
| `dataset_args`: `control_range` | (-1, 1) for depth, (-0.5, 0.5) for the rest |
| `output_stride` (only in files written here) | 1 |

All other fields stay on the head and go into the files that it is saved to.
"""
import json
import pickle
import re
import struct
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..rg_core.head import ReadoutHead
from . import published

METADATA_KEY = "readout_head"
# How the published files name what a head reads, and the control range it was trained with unless its config says.
KINDS = {"pose_keypoint": "keypoints", "drag_correspondence": "correspondence", "drag_appearance": "appearance",
         "identity": "identity", "correspondence": "correspondence", "appearance": "appearance", "pose": "pose",
         "depth": "depth", "edge": "edge", "keypoints": "keypoints"}
RELATIVE = {"correspondence", "appearance", "identity"}
CONTROL_RANGES = {"depth": (-1.0, 1.0)}
DEFAULT_RANGE = (-0.5, 0.5)


class HeadFileError(ValueError):
    """A file that is no readout head, or cannot be read safely. The message names the file and says what to do."""


@torch.inference_mode(False)  # autograd runs through heads and refuses weights made in inference mode
def load_head(path: str | PathLike) -> ReadoutHead:
    """Reads a head from a .safetensors file or a published .pt, running no code from it. Raises HeadFileError."""
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
    dataset = {"control_range": list(head.control_range)}
    config = {**head.config, "kind": head.kind, "model_id": head.base_model, "dims": head.channels,
              "aggregation_kwargs": (head.config.get("aggregation_kwargs") or {}) | aggregation,
              "dataset_args": (head.config.get("dataset_args") or {}) | dataset, "output_stride": head.stride, **about}
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in head.state_dict().items()}
    save_file(weights, path, metadata={METADATA_KEY: json.dumps(config, default=str)})


def kind_of(name: str) -> str | None:
    """What a head reads, by a name like the published ones; None for other names."""
    return next((kind for pattern, kind in KINDS.items() if pattern in name), None)


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
    if not isinstance(content, dict) or not isinstance(content.get("aggregation_network"), dict):
        raise HeadFileError(f"{path.name} is not a readout head: it has no 'aggregation_network'. Choose another file.")
    return content["aggregation_network"], content.get("config") or {}


def _kind(path: Path, config: dict, dataset: dict) -> str:
    names = config.get("kind"), path.stem, dataset.get("control_type"), (config.get("wandb_kwargs") or {}).get("name")
    for kind in (kind_of(name) for name in names if name):
        if kind:
            return kind
    raise HeadFileError(f"{path.name} does not say what it reads. Name it after its kind, for example "
                        f"readout_sdv15_spatial_pose{path.suffix}; known are {', '.join(KINDS)}.")


def _build(path: Path, weights: dict[str, Tensor], config: dict) -> ReadoutHead:
    sequential = "bottleneck_layers.0.0.conv1.weight" in weights  # each block in a Sequential of one
    if sequential:
        weights = {re.sub(r"^(bottleneck_layers\.\d+)\.0\.", r"\1.", name): value for name, value in weights.items()}
    if "mixing_weights" not in weights or "bottleneck_layers.0.conv1.weight" not in weights:
        raise HeadFileError(f"{path.name} is not a readout head: its weights have other names "
                            f"({', '.join(sorted(weights)[:3])}, ...). Choose another file.")
    aggregation, dataset = config.get("aggregation_kwargs") or {}, config.get("dataset_args") or {}
    kind, ours = _kind(path, config, dataset), "kind" in config
    source = None if ours else published.HEADS.get(path.stem)
    if source:
        config = config | {"model_id": config.get("model_id") or source.base_model, "license": source.license, "source": source.url}
    # The authors' blocks all have weights for the embedding, but none is applied in their sequential layout, nor, at
    # guidance time, in a correspondence head.
    embedded = any("emb_layers" in name for name in weights) and not sequential and (ours or kind != "correspondence")
    try:
        emb = weights["bottleneck_layers.0.emb_layers.weight"] if embedded else None
        out = None if kind in RELATIVE else weights["output_head.4.weight"]
        head = ReadoutHead(
            kind, [weights[f"bottleneck_layers.{i}.conv1.weight"].shape[1] for i in range(len(weights["mixing_weights"]))],
            projection_dim=weights["bottleneck_layers.0.conv3.weight"].shape[0],
            emb_channels=None if emb is None else emb.shape[1], out_channels=None if out is None else out.shape[0],
            hidden=(128, 32) if out is None else (weights["output_head.0.weight"].shape[0], out.shape[1]),
            tanh=bool(aggregation.get("output_head_act", True)),
            control_range=dataset.get("control_range") or CONTROL_RANGES.get(kind, DEFAULT_RANGE),
            base_model=config.get("model_id") or "", stride=config.get("output_stride", 1), config=config)
        head.load_state_dict({name: weights[name].float() for name in head.state_dict()})  # a file may hold more
    except (KeyError, RuntimeError, ValueError) as error:
        wrong = f"it lacks {error}." if isinstance(error, KeyError) else str(error).splitlines()[-1].strip()
        raise HeadFileError(f"{path.name} is not a whole readout head: {wrong} Download or export it again.") from error
    return head.eval().requires_grad_(False)
