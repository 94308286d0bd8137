"""What people would use instead, beside readouts, on the same scenes: `python run.py evaluate --peers [--seeds N] [--json FILE] [--plot FILE]`.

ControlNets and T2I-Adapters are those of `train-peer`, where they are trained: the rows of others are left out and named at the
end. Heads are made here of the same pairs. What was made and measured lies in .cache/peers; what is there is not measured again, so that
a run of hours can be stopped and taken up again. Remove rows.json there to measure anew.
"""
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools import write_json
from tools.peers import heads, networks
from tools.peers.bench import Applied, PeerBench
from tools.peers.held_out import MEASURES
from tools.peers.pairs import KINDS
from tools.tables.control import Setting, show
from tools.train_peer import FOLDER, name

PAIRS = (10, 100, 1000, 10000)
LCM = {"sampler": "lcm", "scheduler": "sgm_uniform", "cfg": 1.0}
RUNS = {"20 dpmpp_2m": Setting(), "8 lcm": Setting(steps=8, **LCM), "4 lcm": Setting(steps=4, **LCM)}
PEERS = {"controlnet": "ControlNet", "t2i": "T2I-Adapter"}
MADE = {"fitted": (10, 100, 1000), "trained": (100, 1000), "published": (1000,)}  # heads, and of how many pairs; more pairs change little
BOTH = "ControlNet and fitted head"


@dataclass(frozen=True)
class Way:
    """One way of control, of one kind."""
    label: str
    kind: str
    pairs: int | None = None
    peer: Path | None = None  # a file of train-peer
    head: Path | None = None


def ways(kind: str, folder: Path) -> Iterator[Way]:
    yield Way("unguided", kind)
    yield Way("shipped head", kind, 1536, head=HEADS_FOLDER / f"demo_{kind}.safetensors")
    for way, counts in MADE.items():
        for count in counts:
            yield Way(f"{way} head", kind, count, head=folder / f"{name(way, kind, count)}.safetensors")
    for what, label in PEERS.items():
        for count in PAIRS:
            yield Way(label, kind, count, peer=folder / f"{name(what, kind, count)}.safetensors")
    for count in PAIRS:
        fitted = folder / f"{name('fitted', kind, min(count, max(MADE['fitted'])))}.safetensors"
        yield Way(BOTH, kind, count, folder / f"{name('controlnet', kind, count)}.safetensors", fitted)


class Rows:
    """What was measured, by row; written after each."""

    def __init__(self, seeds: int, folder: Path):
        self.file, self.seeds = folder / "rows.json", str(seeds)

    def read(self) -> dict:
        return json.loads(self.file.read_text()) if self.file.exists() else {}

    def get(self, label: str, files: list[Path], measure: Callable[[], dict]) -> dict:
        made = [file.stat().st_mtime_ns for file in files]
        if self.read().get(self.seeds, {}).get(label, {}).get("made") != made:
            figures, found = measure(), self.read()  # after it: another run may have added to it meanwhile
            found.setdefault(self.seeds, {})[label] = {"made": made, "figures": figures}
            write_json(self.file, found)
        return self.read()[self.seeds][label]["figures"]


def cost(way: Way) -> dict:
    """What a way adds to the model, and how long it learned."""
    added = [load_head(way.head)] if way.head else []
    added += [networks.network(way.peer)] if way.peer else []
    files = [file for file in (way.head, way.peer) if file]
    return {"parameters": sum(weight.numel() for one in added for weight in one.parameters()), "bytes": sum(file.stat().st_size for file in files),
            "made_in": round((added[0].config.get("seconds", 0) if way.head else 0) + (networks.about(way.peer)["seconds"] if way.peer else 0))}


def measured(bench: PeerBench, way: Way, setting: Setting) -> dict:
    if way.head:
        bench.heads[way.kind] = load_head(way.head)
    bench.applied = (Applied(networks.control(networks.network(way.peer)), way.kind),) if way.peer else ()
    return bench.measure((way.kind,), replace(setting, move=Move()) if way.head else setting)


@torch.inference_mode()
def peers(seeds: int, folder: Path = FOLDER) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    bench, rows, results, missing = PeerBench(seeds), Rows(seeds, folder), {}, []
    for kind in KINDS:
        for way in ways(kind, folder):
            if way.peer and not way.peer.exists():
                missing.append(way.peer.stem)
                continue
            if way.head and not way.head.exists():
                heads.made(bench, *way.head.stem.split("_")[:2], int(way.head.stem.split("_")[2]), folder)
            files, added = [file for file in (way.head, way.peer) if file], cost(way)
            for run, setting in RUNS.items():
                label = f"{way.label}, {way.pairs} pairs, {run}" if way.pairs else f"{way.label}, {run}"
                found = rows.get(f"{kind}, {label}", files, partial(measured, bench, way, setting))
                results.setdefault(kind, {})[label] = found | added
                show(kind, label, {measure: value for measure, value in found.items() if value is not None})
    for peer in dict.fromkeys(missing):
        what, kind, count = peer.split("_")
        print(f"not trained: python run.py train-peer --what {what} --kind {kind} --pairs {count}", flush=True)
    return results


def draw(results: dict, path: Path) -> None:
    """Control over the number of pairs: a panel for each kind and run, a line for each way."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    for row, kind in zip(figure.subplots(len(KINDS), len(RUNS), squeeze=False), KINDS):
        measure, _ = MEASURES[kind]
        for panel, run in zip(row, RUNS):
            lines: dict[str, list] = {}
            for label, found in results.get(kind, {}).items():
                way, *pairs = label.removesuffix(f", {run}").split(", ")
                if label.endswith(run):
                    lines.setdefault(way, []).append((int(pairs[0].split()[0]) if pairs else None, found[measure]))
            for way, points in lines.items():
                if points[0][0] is None:
                    panel.axhline(points[0][1], color="grey", linestyle="--", label=way)
                else:
                    panel.plot(*zip(*points), "o-" if len(points) > 1 else "o", label=way)
            panel.set(xscale="log", title=f"{kind}, {run}", ylabel=measure)
            panel.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    for panel in figure.axes:
        panel.set_xlabel("pairs")
    figure.savefig(path, format="png", dpi=100)
