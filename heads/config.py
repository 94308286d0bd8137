"""What a head's file says of itself, field by field. No field must be there, and those that are must have the right type.

| field | without it |
|---|---|
| `kind` (only in files written here), `dataset_args.control_type`, `wandb_kwargs.name` | the file's name says the kind |
| `model_id` | the model of the published head that the file is named after, else "" |
| `dims`, `projection_dim`, `aggregation_kwargs`: `use_output_head`, `output_head_channels`, `bottleneck_sequential` | never read |
| `aggregation_kwargs`: `output_head_act` (tanh) | true |
| `dataset_args`: `control_range` | (-1, 1) for depth, (-0.5, 0.5) for the rest |
| `output_stride` (only in files written here) | 1 |
| `start` (only in files written here) | 0 |
| `pooled` (only in files written here) | false |
| `taps` (only in files written here) | the default taps of the model |
| `fold` (only in files written here) | 1 |
| `model` (only in files written here): what tells it from models with other features | any model with taps of the same channels |

All other fields stay on the head and go into the files that it is saved to.
"""
import json
import math
import re
from dataclasses import dataclass
from typing import Any

# How the published files name what a head reads, and the control range it was trained with unless its config says.
KINDS = {"pose_keypoint": "keypoints", "drag_correspondence": "correspondence", "drag_appearance": "appearance",
         "identity": "identity", "correspondence": "correspondence", "appearance": "appearance", "pose": "pose",
         "depth": "depth", "edge": "edge", "keypoint": "keypoints"}
CONTROL_RANGES = {"depth": (-1.0, 1.0)}
DEFAULT_RANGE = (-0.5, 0.5)
MOST_STRIDE = 64
NAME = re.compile(r"\w[\w .-]{0,39}")  # of a kind of one's own


class FieldError(ValueError):
    """A field that is not what it should be; the message names it."""


def kind_of(name: str) -> str | None:
    """What a head reads, by the words of a name like the published ones; None for other names."""
    words = re.sub(r"[^a-z]+", "_", name.lower())
    return next((kind for pattern, kind in KINDS.items() if re.search(rf"(?<![a-z]){pattern}s?(?![a-z])", words)), None)


@dataclass(frozen=True)
class HeadConfig:
    """The fields that are read; `rest` is all of them, as plain JSON."""
    kind: str | None
    ours: bool         # written by this pack, with any kind
    model_id: str
    tanh: bool
    control_range: tuple[float, float] | None
    stride: int
    start: float       # share of the noise schedule
    pooled: bool
    taps: tuple[str, ...] | None
    fold: int
    rest: dict

    @classmethod
    def of(cls, config: Any) -> "HeadConfig":
        """Raises FieldError."""
        whole = {} if config is None else typed({"config": config}, "config", dict)
        try:
            rest = json.loads(json.dumps(whole, default=str))
        except (TypeError, ValueError, RecursionError) as error:
            raise FieldError(f"its config is not plain data ({error})") from error
        aggregation, dataset = (typed(rest, name, dict, {}) for name in ("aggregation_kwargs", "dataset_args"))
        run = typed(rest, "wandb_kwargs", dict, {})
        words = typed(rest, "kind", str, ""), typed(dataset, "control_type", str, ""), typed(run, "name", str, "")
        if words[0] and not NAME.fullmatch(words[0]):
            raise FieldError(f"its field kind is {shown(words[0])}, but must be a short name of letters and digits")
        return cls(kind=words[0] or next(filter(None, map(kind_of, words)), None), ours="kind" in rest, model_id=typed(rest, "model_id", str, ""),
                   tanh=typed(aggregation, "output_head_act", (bool, str, int), True) not in (False, 0, ""),
                   control_range=control_range(dataset), stride=counted(rest, "output_stride"), start=start(rest),
                   pooled=typed(rest, "pooled", bool, False), taps=taps(rest), fold=counted(rest, "fold"), rest=rest)

    def range_for(self, kind: str) -> tuple[float, float]:
        return self.control_range or CONTROL_RANGES.get(kind, DEFAULT_RANGE)


def typed(fields: dict, name: str, kind: type | tuple, default: Any = None) -> Any:
    """A field of that type; `default` where it is missing or null."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise FieldError(f"its field {name} is {shown(value)}")
    return value


def control_range(dataset: dict) -> tuple[float, float] | None:
    ends = typed(dataset, "control_range", list)
    if ends is None:
        return None
    numbers = [end for end in ends if isinstance(end, (int, float)) and math.isfinite(end)]
    if len(ends) != 2 or len(numbers) != 2 or numbers[0] >= numbers[1]:
        raise FieldError(f"its field control_range is {shown(ends)}, but must be two numbers, the lower one first")
    return float(numbers[0]), float(numbers[1])


def counted(fields: dict, name: str) -> int:
    """How many places are taken together."""
    value = typed(fields, name, int, 1)
    if not 1 <= value <= MOST_STRIDE:
        raise FieldError(f"its field {name} is {value}, but must be from 1 to {MOST_STRIDE}")
    return value


def start(fields: dict) -> float:
    value = typed(fields, "start", (int, float), 0.0)
    if not 0 <= value < 1:
        raise FieldError(f"its field start is {value}, but must be from 0 to less than 1")
    return float(value)


def taps(fields: dict) -> tuple[str, ...] | None:
    found = typed(fields, "taps", list)
    typed(fields, "model", str)
    if found is None:
        return None
    if not found or not all(isinstance(name, str) and name for name in found) or len(set(found)) < len(found):
        raise FieldError(f"its field taps is {shown(found)}, but must be names of modules in the model, each once")
    return tuple(found)


def shown(value: Any) -> str:
    text = json.dumps(value, default=str, skipkeys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
