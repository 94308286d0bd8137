"""Readout heads on disk: safetensors with their config in the metadata, or pickles as the method's authors publish them.

Shapes and layout are those of the weights, whatever the config says; what it says, and what stands in for it, is in config.py.
Nothing in a file is believed: what is built from it is checked, field by field and weight by weight, before it takes memory.
"""
import json
import pickle
import re
import zipfile
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..rg_core.readout.head import ReadoutHead
from ..rg_core.readout.linear_head import LinearHead
from . import published
from .config import KINDS, FieldError, HeadConfig, kind_of

METADATA_KEY = "readout_head"
TRAINING = "training."  # begins the names of what is no weight
RELATIVE = {"correspondence", "appearance", "identity"}


class HeadFileError(ValueError):
    """A file that is no readout head, or cannot be read safely. The message names the file and says what to do."""


@torch.inference_mode(False)  # autograd runs through heads and refuses weights made in inference mode
def load_head(path: str | PathLike, kind: str | None = None) -> ReadoutHead | LinearHead:
    """Reads a head from a .safetensors file or a published .pt, running no code from it; `kind` is what it reads, if the file
    and its name do not say so rightly. Raises HeadFileError."""
    path = Path(path)
    try:
        weights, config = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_pickle(path)
    except HeadFileError:
        raise
    except Exception as error:  # damaged files make the readers fail in every way there is
        raise HeadFileError(f"{path.name} cannot be read as a readout head: it is damaged, incomplete or another kind of "
                            f"file ({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no details'}). "
                            "Download or export it again.") from error
    try:
        return _build(path, weights, HeadConfig.of(config), kind)
    except FieldError as error:
        raise HeadFileError(f"{path.name} is not a complete readout head: {error}. Download or export it again.") from error


def save_head(head: ReadoutHead | LinearHead, path: str | PathLike, dtype: torch.dtype = torch.float16,
              state: dict[str, Tensor] | None = None, **about: object) -> None:
    """Writes `head` as safetensors; `about` joins the config in the metadata (training set, quality, ...). `state` is what is needed to
    train on: load_training alone reads it, and it is kept as it is, whatever `dtype`. A file that is there is replaced at once or not at all.
    Raises HeadFileError."""
    config = {**head.config, "kind": head.kind, "model_id": head.base_model, "dims": head.channels,
              "dataset_args": (head.config.get("dataset_args") or {}) | {"control_range": list(head.control_range)},
              "output_stride": head.stride, "start": head.start, "pooled": head.pooled, "taps": head.taps, **about}
    if isinstance(head, LinearHead):
        config["fold"] = head.fold
    if isinstance(head, ReadoutHead):
        config["aggregation_kwargs"] = (head.config.get("aggregation_kwargs") or {}) | {
            "bottleneck_sequential": False, "use_output_head": head.output_head is not None,
            "output_head_act": head.output_head is not None and isinstance(head.output_head[-1], torch.nn.Tanh)}
    # The sizes of features in transformers can be beyond what half precision holds.
    weights = {name: value.detach().to("cpu", torch.float32 if name.endswith((".mean", ".deviation")) else dtype).contiguous()
               for name, value in head.state_dict().items()}
    weights |= {TRAINING + name: value.detach().cpu().contiguous() for name, value in (state or {}).items()}
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        save_file(weights, part, metadata={METADATA_KEY: json.dumps(config, default=str)})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise HeadFileError(f"{path} cannot be written ({error}). Check its name, your write permission and the free space.") from error


def load_training(path: str | PathLike) -> tuple[dict[str, Tensor], dict]:
    """What `save_head` was given as `state`, and all that the file says. Nobody has looked at either. Raises HeadFileError."""
    path = Path(path)
    try:
        weights, config = _read_safetensors(path)
    except Exception as error:  # as in load_head
        raise HeadFileError(f"{path.name} cannot be read: it is damaged, incomplete or another kind of file ({type(error).__name__}).") from error
    # Copies, for a file that is mapped cannot be replaced on Windows.
    state = {name.removeprefix(TRAINING): value.clone() for name, value in weights.items() if name.startswith(TRAINING)}
    if not state:
        raise HeadFileError(f"{path.name} contains a head, but no training state to continue from.")
    return state, config


def _read_safetensors(path: Path) -> tuple[Any, Any]:
    with safe_open(path, "pt") as file:
        config = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, config


def _read_pickle(path: Path) -> tuple[Any, Any]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise HeadFileError(f"{path.name} was refused: it is compressed or claims to be larger than it is, which no file of torch does. Get "
                                    "the head from its authors.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise HeadFileError(f"{path.name} was refused: it is damaged, or it tries to run code while it is opened, which a readout head never needs. "
                            "Nothing in it was run. Get the head from its authors.") from error
    if not isinstance(content, dict) or not isinstance(content.get("aggregation_network"), dict):
        raise HeadFileError(f"{path.name} is not a readout head: it has no 'aggregation_network'. Choose another file.")
    return content["aggregation_network"], content.get("config")


def _kind(path: Path, config: HeadConfig, chosen: str | None) -> str:
    kind = chosen or config.kind or kind_of(path.stem)
    if kind:
        return kind
    raise HeadFileError(f"{path.name} does not say what it reads. Choose kind in Load Readout Head, or rename the file to say it, for example "
                        f"readout_sdv15_spatial_pose{path.suffix}; known kinds are {', '.join(dict.fromkeys(KINDS.values()))}.")


def _build(path: Path, weights: dict, config: HeadConfig, chosen: str | None) -> ReadoutHead | LinearHead:
    weights = {name: value for name, value in weights.items() if isinstance(name, str)}
    sequential = "bottleneck_layers.0.0.conv1.weight" in weights  # each block in a Sequential of one
    if sequential:
        weights = {re.sub(r"^(bottleneck_layers\.\d+)\.0\.", r"\1.", name): value for name, value in weights.items()}
    if "levels" in weights and "weights.0" in weights:
        return _filled(_empty_linear(_kind(path, config, chosen), weights, config), weights)
    if "mixing_weights" not in weights or "bottleneck_layers.0.conv1.weight" not in weights:
        raise HeadFileError(f"{path.name} is not a readout head: its weights have other names "
                            f"({', '.join(sorted(weights)[:3])}, ...). Choose another file.")
    kind, about = _kind(path, config, chosen), config.rest
    source = None if config.ours else published.HEADS.get(path.stem)
    if source:
        about = about | {"model_id": config.model_id or source.base_model, "license": source.license, "source": source.url}
    # The authors' blocks all have weights for the embedding, but none is applied in their sequential layout, nor, at
    # guidance time, in a correspondence head.
    embedded = any("emb_layers" in name for name in weights) and not sequential and (config.ours or kind != "correspondence")
    more = {"tanh": config.tanh, "control_range": config.range_for(kind), "base_model": about.get("model_id") or "", "stride": config.stride,
            "start": config.start, "taps": config.taps, "config": about}
    return _filled(_empty(kind, weights, embedded, more), weights)


def _empty(kind: str, weights: dict, embedded: bool, more: dict) -> ReadoutHead:
    """The head that `weights` are of, without memory for its own: what is said of shapes is yet to be checked."""
    taps, = _shape(weights, "mixing_weights", 1)
    channels = [_shape(weights, f"bottleneck_layers.{i}.conv1.weight", 4)[1] for i in range(taps)]
    out = None if kind in RELATIVE else _shape(weights, "output_head.4.weight", 4)
    try:
        with torch.device("meta"):
            head = ReadoutHead(
                kind, channels, projection_dim=_shape(weights, "bottleneck_layers.0.conv3.weight", 4)[0],
                emb_channels=_shape(weights, "bottleneck_layers.0.emb_layers.weight", 2)[1] if embedded else None,
                out_channels=None if out is None else out[0],
                hidden=(128, 32) if out is None else (_shape(weights, "output_head.0.weight", 4)[0], out[1]), **more)
            if "bottleneck_layers.0.mean" in weights:
                for block, count in zip(head.bottleneck_layers, channels):
                    block.rescale(torch.empty(count), torch.empty(count))  # pyright: ignore[reportCallIssue]  # for torch any Module
            return head
    except FieldError:
        raise
    except (RuntimeError, ValueError) as error:  # widths that its layers cannot have
        raise FieldError(str(error).splitlines()[0]) from error


def _empty_linear(kind: str, weights: dict, config: HeadConfig) -> LinearHead:
    """A fitted head, likewise."""
    names = [f"weights.{i}" for i in range(sum(name.startswith("weights.") for name in weights))]
    shapes = [_shape(weights, "levels", 2), _shape(weights, "bias", 2), *(_shape(weights, name, 3) for name in names)]
    levels, bias, *maps = (torch.empty(shape, device="meta") for shape in shapes)
    for name, x in zip(names, maps):
        if x.shape[:2] != bias.shape:
            raise FieldError(f"its weight {name} has the shape {tuple(x.shape)}, but must begin with {tuple(bias.shape)}")
    if bias.shape[1] % config.fold**2:
        raise FieldError(f"its field fold is {config.fold}, but it reads {bias.shape[1]} values, which is not a multiple of fold squared")
    return LinearHead(kind, levels, maps, bias, compares=kind in RELATIVE, pooled=config.pooled, control_range=config.range_for(kind),
                      base_model=config.model_id, stride=config.stride, start=config.start, taps=config.taps, fold=config.fold, config=config.rest)


def _filled(head: ReadoutHead | LinearHead, weights: dict) -> ReadoutHead | LinearHead:
    """`head` with those of `weights` that it has; a file may hold more."""
    found = {}
    for name, x in head.state_dict().items():
        if _shape(weights, name, x.ndim) != tuple(x.shape):
            raise FieldError(f"its weight {name} has the shape {tuple(weights[name].shape)}, but must have {tuple(x.shape)}")
        found[name] = weights[name].detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        if not torch.isfinite(found[name]).all():
            raise FieldError(f"its weight {name} contains NaN or infinite values")
    head.load_state_dict(found, assign=True)
    return head.eval().requires_grad_(False)


def _shape(weights: dict, name: str, dimensions: int) -> tuple[int, ...]:
    """That of a weight, which must be numbers that lie in the file. Raises FieldError."""
    x = weights.get(name)
    if x is None:
        raise FieldError(f"it has no {name}")
    if type(x) not in (Tensor, torch.nn.Parameter) or x.layout != torch.strided or not x.is_floating_point() or x.is_meta:
        raise FieldError(f"its weight {name} is not a tensor of floating-point numbers")
    if x.ndim != dimensions or 0 in x.shape:
        raise FieldError(f"its weight {name} has the shape {tuple(x.shape)}, but must have {dimensions} dimensions")
    if x.numel() * x.itemsize > x.untyped_storage().nbytes():
        raise FieldError(f"its weight {name} has the shape {tuple(x.shape)}, but the file has fewer numbers")
    return tuple(x.shape)
