"""What chose the defaults on flow models, tried on the demo's transformer: `python run.py evaluate --choices [--seeds N]`.

Strength, range, the shift of the noise levels, which blocks are tapped, and how finely a drag without a head reads them; every other row is at
the defaults. Drags are half as many as scenes.
"""
from unittest.mock import patch

import torch

from readout_guidance_pack.nodes.demo import demo_model
from readout_guidance_pack.rg_core.features import raw_features, taps
from readout_guidance_pack.rg_core.guidance.targets import Drag
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import Setting, show
from tools.tables.relations import to_be_dragged
from tools.tables.transformer import FlowBench
from tools.train_demo import DEMO_RANGES

STRENGTHS = (0.05, 0.15, 0.2)
ENDS = (0.5, 0.65, 0.8, 0.9, 1.0)
SHIFTS = (1.0, 3.0)
TAPPED = {"0 to 40 %": ((0.0, 0.4), 5), "50 to 90 %": ((0.5, 0.9), 5), "25 to 65 %, two": ((0.25, 0.65), 2), "all nine": ((0.0, 1.0), 9)}
STRIDES = (1, 4)  # latent pixels to a place of the readout; the default is 2


def to_drag(seeds: int) -> tuple:
    return to_be_dragged(max(1, seeds // 2), FlowBench)


def dragged(drags: tuple, move: Move | None = Move(), end: float = Drag.end) -> dict:
    """The figures of `drags`; undragged where there is no move."""
    bench, plan, given, starts = drags
    return bench.drag_figures(plan, bench.dragged(plan, starts, move, end) if move else bench.unguided(starts, noise=False), given)


class Choices:
    """A bench of its own for each choice that changes what heads are fitted to, and what is read of references, which is kept with them."""

    def __init__(self, seeds: int):
        self.bench, self.drags = FlowBench(seeds), to_drag(seeds)
        self.bench.fit_heads()

    def unguided(self) -> dict:
        return {"any": self.bench.measure((), Setting()), "drag": dragged(self.drags, None)}

    def guided(self, move: Move = Move(), **end: float) -> dict:
        """By the defaults, or until `end`."""
        return {kind: self.bench.measure((kind,), Setting(move, **end)) for kind in DEMO_RANGES} | {"drag": dragged(self.drags, move, **end)}


@torch.inference_mode()
def choices(seeds: int) -> dict:
    results = {}

    def note(label: str, figures: dict) -> None:
        results[label] = figures
        for control, result in figures.items():
            show(control, label, result)

    usual = Choices(seeds)
    note("unguided", usual.unguided())
    note("default", usual.guided())
    for strength in STRENGTHS:
        note(f"strength {strength}", usual.guided(Move(strength)))
    for end in ENDS:
        note(f"until {end}", usual.guided(end=end))
    for stride in STRIDES:
        with patch.object(raw_features.AS_THEY_ARE, "stride", stride):
            note(f"stride {stride}", {"drag": dragged(to_drag(seeds))})
    for where, (share, count) in TAPPED.items():
        with patch.multiple(taps, SHARE=share, MOST_TAPS=count):
            note(f"tapped {where}", Choices(seeds).guided())
    for shift in SHIFTS:
        with patch.object(demo_model.DemoFlow, "sampling_settings", {"multiplier": 1.0, "shift": shift}):
            other = Choices(seeds)
            note(f"shift {shift}, unguided", other.unguided())
            note(f"shift {shift}", other.guided())
    return results
