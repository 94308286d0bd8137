"""Control against damage over the move's form, size, range and reuse, for pose: `python run.py evaluate --moves [--seeds N]`."""
from dataclasses import replace
from functools import partial

from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import Bench, Setting, show

END = 0.5  # the authors' range, for all that does not vary it; ranges.py compares more of them


def moves(seeds: int) -> dict:
    bench, results = Bench(seeds), {}
    short = partial(Setting, end=END)
    euler = short(steps=30, sampler="euler", scheduler="normal")

    def row(label: str, setting: Setting) -> None:
        results[label] = bench.measure(("pose",), setting)
        show("pose", label, results[label])

    row("none, Euler 30", euler)
    for form, sizes in (("sign", (0.02, 0.05)), ("rms", (0.01, 0.02, 0.05))):
        for size in sizes:
            for fresh in (True, False):
                row(f"{form}, {size} a step, {'fresh' if fresh else 'kept'} forward, Euler 30",
                    replace(euler, move=Move(size, form, per_step=True, fresh=fresh)))
    for form, sizes in (("sign", (0.05, 0.1)), ("rms", (0.05, 0.1, 0.2))):
        for size in sizes:
            row(f"{form}, {size} on the prediction, Euler 30", replace(euler, move=Move(size, form)))
    row("none, DPM++ 2M 20", short())
    for size in (0.05, 0.1, 0.15, 0.2, 0.3):
        row(f"rms, {size} on the prediction, DPM++ 2M 20", short(Move(size)))
    for end in (0.3, 0.7, 1.0):
        row(f"rms, {Move.strength} on the prediction, until {end}, DPM++ 2M 20", short(Move(), end=end))
    for steps in (8, 12, 40):
        row(f"rms, {Move.strength} on the prediction, DPM++ 2M {steps}", short(Move(), steps=steps))
    return {"pose": results}
