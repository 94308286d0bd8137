"""How the cost of a step grows: `python run.py bench --scaling [--json FILE] [--plot FILE]`.

Steps of the demo model, plain and guided by the defaults, over the image's pixels, the batch and the number of targets. Where
a law is to be expected, seconds = a * size^exponent, it is fitted by least squares to the logarithms.
"""
import math
import statistics
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from tools.benchmarks.costs import STEPS, in_turn, sample
from tools.benchmarks.models import ALL_THE_TIME, Subject, demo, guided_by, spatial

SIDES, BATCHES = (32, 64, 96, 128), (1, 2, 4, 8)
SIDE, BATCH = 64, 4  # where the number of targets grows; batches grow at this side, too
KINDS = ("pose", "depth", "edge", "pose")
AXES = {"pixels": "pixels of one picture", "batch": f"pictures in a batch, {SIDE}x{SIDE}",
        "targets": f"targets, {BATCH} pictures, {SIDE}x{SIDE}"}


def law(sizes: list[int], seconds: list[float]) -> tuple[float, float]:
    """(a, exponent) of seconds = a * size^exponent."""
    fitted = statistics.linear_regression([math.log(n) for n in sizes], [math.log(s) for s in seconds])
    return math.exp(fitted.intercept), fitted.slope


def cases(subject: Subject) -> dict[tuple, tuple]:
    """What is sampled: (MODEL, shape) by (axis, size, whether guided)."""
    heads = {kind: load_head(HEADS_FOLDER / f"demo_{kind}.safetensors") for kind in KINDS}
    targets = [spatial(heads[kind], **ALL_THE_TIME) for kind in KINDS]
    models, found = {False: subject.model, True: guided_by(subject, targets[0])}, {}
    for is_guided, model in models.items():
        found |= {("pixels", side**2, is_guided): (model, (1, 3, side, side)) for side in SIDES}
        found |= {("batch", batch, is_guided): (model, (batch, 3, SIDE, SIDE)) for batch in BATCHES}
    shape = (BATCH, 3, SIDE, SIDE)
    found["targets", 0, False] = subject.model, shape
    return found | {("targets", n, True): (guided_by(subject, *targets[:n]), shape) for n in range(1, len(targets) + 1)}


@torch.inference_mode()
def scaling(rounds: int, plot: Path | None) -> dict:
    """The figures, printed, and drawn into the file `plot`."""
    subject = demo()
    actions = {case: partial(sample, model, subject.conditioning, shape) for case, (model, shape) in cases(subject).items()}
    costs = in_turn(actions, rounds, warm=actions)
    report = summary({case: cost.seconds / (len(STEPS) - 1) for case, cost in costs.items()})
    for axis in ("pixels", "batch"):
        for kind in ("plain", "guided"):
            line = report[axis][kind]
            print(f"{axis}, {kind} step: " + ", ".join(f"{n}: {s:.3f} s" for n, s in zip(report[axis]["sizes"], line["seconds"]))
                  + f"; grows as {axis}^{line['exponent']}")
    more = report["targets"]
    print(f"targets: plain step {more['plain_s']:.3f} s; " + ", ".join(f"{n}: {s:.3f} s" for n, s in zip(more["sizes"], more["guided_s"]))
          + f"; each further target costs {more['further_target_ratio']} plain steps")
    if plot:
        draw(report, plot)
    return report


def summary(seconds: dict[tuple, float]) -> dict:
    """The report, of the seconds of a step by case."""
    report = {}
    for axis in ("pixels", "batch"):
        sizes = [n for where, n, is_guided in seconds if where == axis and is_guided]
        report[axis] = {"sizes": sizes}
        for kind, is_guided in (("plain", False), ("guided", True)):
            each = [seconds[axis, n, is_guided] for n in sizes]
            a, exponent = law(sizes, each)
            report[axis][kind] = {"seconds": [round(s, 5) for s in each], "a": a, "exponent": round(exponent, 3)}
    sizes = [n for where, n, is_guided in seconds if where == "targets" and is_guided]
    plain, each = seconds["targets", 0, False], [seconds["targets", n, True] for n in sizes]
    further = statistics.linear_regression(sizes, each).slope / plain
    report["targets"] = {"sizes": sizes, "plain_s": round(plain, 5), "guided_s": [round(s, 5) for s in each],
                         "further_target_ratio": round(further, 3)}
    return report


def draw(report: dict, path: Path) -> None:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = dict(zip(AXES, figure.subplots(1, 3)))
    colors = {"plain": "tab:blue", "guided": "tab:orange"}
    for axis in ("pixels", "batch"):
        panel, sizes = panels[axis], report[axis]["sizes"]
        for kind, color in colors.items():
            line = report[axis][kind]
            panel.plot(sizes, line["seconds"], "o", color=color, label=f"{kind} step, grows as {axis}$^{{{line['exponent']:.2f}}}$")
            panel.plot(sizes, [line["a"] * n**line["exponent"] for n in sizes], "--", color=color, linewidth=1)
        panel.set(xscale="log", yscale="log")
        panel.set_xticks(sizes, [f"{math.isqrt(n)}x{math.isqrt(n)}" for n in sizes] if axis == "pixels" else sizes, fontsize=8)
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()
    more, panel = report["targets"], panels["targets"]
    panel.axhline(more["plain_s"], color=colors["plain"], linestyle="--", label="plain step")
    panel.plot(more["sizes"], more["guided_s"], "o-", color=colors["guided"],
               label=f"guided step, {more['further_target_ratio']:.2f} plain steps\nfor each further target")
    panel.set_xticks(more["sizes"])
    panel.set_ylim(bottom=0)
    for axis, panel in panels.items():
        panel.set(xlabel=AXES[axis], ylabel="seconds for a step")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.savefig(path, format="png", dpi=100)
