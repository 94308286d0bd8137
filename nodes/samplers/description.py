"""Guidance as plain numbers, texts and tensors, which can be sent to another process: a worker of Ray, a farm, a cloud. The pack's own objects
cannot, because a custom node's modules have no name that another process finds them by.

A description holds no code and passes torch.save and torch.load(weights_only=True). `guided_by` builds its guidance where it arrives.
"""
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from ...heads import load_head, save_head
from ...rg_core.features.raw_features import AS_THEY_ARE, Features
from ...rg_core.guidance.targets import Appearance, Attribute, Color, Drag, Identity, Spatial, Target
from ...rg_core.guidance.trajectories import Trajectory
from ...rg_core.guidance.updates import Move
from ...rg_core.readout.head import ReadoutHead
from ...rg_core.readout.linear_head import LinearHead
from ..engine import guided
from ..engine.reader import NOT_READ
from ..references.reference import Reference

VERSION = 1
KINDS = {kind.__name__: kind for kind in (Spatial, Attribute, Appearance, Identity, Drag, Color)}
APART = ("head", "reference")  # fields that several targets may have in common
PLAIN = (str, int, float, bool, type(None))
last: dict[str, tuple[Target, ...]] = {}  # the targets of the last description by its id, so that what is read of their references is kept


def describe(node: str, targets: Iterable[Target], move: Move, recompute: str) -> dict[str, Any]:
    """What `guided` is given, as a description. Raises ValueError for targets and heads of other packs."""
    targets = list(targets)
    heads, references = (list(dict.fromkeys(x for t in targets if (x := getattr(t, name)) is not None)) for name in APART)
    described = []
    for target in targets:
        if KINDS.get(type(target).__name__) is not type(target):
            raise ValueError(f"{node}: the {target.name} target is of another pack ({type(target).__module__}) and cannot be sent to other "
                             "processes. Take it out of the chain.")
        values = {field.name: plain(node, getattr(target, field.name)) for field in fields(target) if field.name not in APART}
        described.append({"kind": type(target).__name__, "fields": values,
                          "head": None if target.head is None else heads.index(target.head),
                          "reference": None if target.reference is None else references.index(target.reference)})
    return {"version": VERSION, "id": uuid4().hex, "node": node, "move": asdict(move), "recompute": recompute, "targets": described,
            "heads": [describe_head(node, head) for head in heads], "references": [describe_reference(node, r) for r in references]}


def plain(node: str, x: Any) -> Any:
    """`x` as it can be sent: tensors on the CPU, in lists, tuples and dicts. Raises ValueError."""
    if isinstance(x, Tensor):
        return torch.Tensor.detach(x).cpu().clone()
    if type(x) in (list, tuple):
        return type(x)(plain(node, y) for y in x)
    if type(x) is dict:
        return {name: plain(node, y) for name, y in x.items()}
    if isinstance(x, PLAIN):
        return x
    raise ValueError(f"{node}: a {type(x).__name__} of {type(x).__module__} in the guidance or in a reference's conditioning cannot be sent to other "
                     "processes. Make the reference with a plain CLIP Text Encode.")


def describe_head(node: str, head) -> bytes | dict[str, int]:
    """A head's file; of features as they are, their stride."""
    if isinstance(head, Features):
        return {"stride": head.stride}
    if not isinstance(head, (ReadoutHead, LinearHead)):
        raise ValueError(f"{node}: the {head.kind} head is of another pack ({type(head).__module__}) and cannot be sent to other processes. "
                         "Use a head of this pack.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "head.safetensors")
        save_head(head, path, torch.float32)
        return path.read_bytes()


def describe_reference(node: str, reference: Reference) -> dict[str, Any]:
    """Its way, and what it says; not what heads have read of it so far."""
    way = reference.trajectory
    said = [[plain(node, words), {name: plain(node, x) for name, x in more.items() if name not in NOT_READ}]
            for words, more in reference.conditioning]
    return {"sigmas": plain(node, way.sigmas), "latents": plain(node, way.latents), "conditioning": said, "family": reference.family,
            "downscale": reference.downscale, "cache_mb": reference.cache_mb}


@torch.inference_mode(False)
def build(description: dict[str, Any]) -> tuple[Target, ...]:
    """The targets of a description. Raises ValueError for one of a newer version of the pack."""
    if description["version"] != VERSION:
        raise ValueError(f"{description['node']}: this guidance was described by another version of Readout Guidance ({description['version']}) than "
                         f"the one here ({VERSION}). Install the same version on all machines.")
    heads = [build_head(given) for given in description["heads"]]
    references = [Reference(Trajectory(r["sigmas"], r["latents"]), *(r[name] for name in ("conditioning", "family", "downscale", "cache_mb")))
                  for r in description["references"]]
    return tuple(KINDS[t["kind"]](**t["fields"], head=None if t["head"] is None else heads[t["head"]],
                                  reference=None if t["reference"] is None else references[t["reference"]]) for t in description["targets"])


def build_head(given: bytes | dict[str, int]):
    if isinstance(given, dict):
        return AS_THEY_ARE if given["stride"] == AS_THEY_ARE.stride else Features(given["stride"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "head.safetensors")
        path.write_bytes(given)
        return load_head(path)


def guided_by(model, description: dict[str, Any]):
    """A clone of MODEL that is guided as described."""
    if description["id"] not in last:
        last.clear()
        last[description["id"]] = build(description)
    return guided(description["node"], model, last[description["id"]], Move(**description["move"]), recompute=description["recompute"])
