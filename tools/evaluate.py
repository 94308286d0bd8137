"""Control over many seeds, guided against unguided: `python run.py evaluate [--seeds N] [--json FILE] [--moves] [--estimates]`.

How a figure comes about is said in control.py. With `--checkpoint FILE` instead, readouts beside a ControlNet on somebody's own files: `--checkpoint
FILE --help` says how.
"""
import argparse
import sys

from readout_guidance_pack.rg_core.guidance.updates import Move
from tools import end, to_write, write_json
from tools.benchmarks.device import device_name
from tools.comparison import compare
from tools.tables import peers
from tools.tables.attributes import attributes
from tools.tables.choices import choices
from tools.tables.color import colors
from tools.tables.compare import compared
from tools.tables.control import CONTROLS, Bench, Setting, show
from tools.tables.depths import depths
from tools.tables.displacement import displacements
from tools.tables.endings import endings
from tools.tables.estimates import estimates
from tools.tables.fit import fits
from tools.tables.inputs import inputs
from tools.tables.moves import moves
from tools.tables.parts import parts
from tools.tables.precisions import precisions
from tools.tables.presets import presets
from tools.tables.ranges import ranges
from tools.tables.relations import relations
from tools.tables.samplers import samplers
from tools.tables.steps import steps
from tools.tables.together import together
from tools.tables.train import trains
from tools.tables.transformer import transformer

TABLES = {"relations": (relations, "drag, appearance, identity, structure and inversion"), "moves": (moves, "the move's form and size, for pose"),
          "ranges": (ranges, "how long and how hard targets act, judged at half the distance too"),
          "steps": (steps, "4 to 20 steps, by samplers of few-step models and others"),
          "endings": (endings, "when targets should stop, by how a run ends, on both demo models"),
          "samplers": (samplers, "every sampler and scheduler, for pose"), "precisions": (precisions, "fp32, bf16 and fp16"),
          "presets": (presets, "the published preset beside the default"),
          "color": (colors, "coarse colors of other scenes, with and without their pose"),
          "depths": (depths, "depth as the host's nodes and sensors give it"),
          "inputs": (inputs, "bars, video frames, masks and scores as the host's nodes give them"),
          "parts": (parts, "context windows, tiles and crops"),
          "fit": (fits, "heads fitted from 10 to 300 drawn pictures, beside the shipped ones"),
          "train": (trains, "heads trained on 100 drawn pictures, beside fitted and shipped ones"),
          "attributes": (attributes, "arms raised, dusk and where the shirt is, by fitted heads at three strengths"),
          "compare": (compared, "heads that compare, fitted from pictures alone, beside the shipped ones and none"),
          "transformer": (transformer, "the demo's flow transformer, by fitted heads and without any"),
          "choices": (choices, "what chose the defaults on flow models"),
          "displacement": (displacements, "how far the defaults move a picture on each family of models"),
          "peers": (peers.peers, "ControlNets and T2I-Adapters trained on the demo, beside heads"),
          "together": (together, "a ControlNet and readouts together, by strengths and ranges"),
          "estimates": (estimates, "what Readout Estimate reads, by noise level")}


def controls(seeds: int) -> dict:
    """The figures of every control, and of pose at two other sizes, unguided and guided with the nodes' defaults."""
    results = {}
    for (height, width), names in {(64, 64): CONTROLS, (48, 80): ["pose"], (80, 48): ["pose"]}.items():
        bench = Bench(seeds, height, width)
        unguided = bench.measure((), Setting())
        for name in names:
            label = name if (height, width) == (64, 64) else f"{name} {width}x{height}"
            results[label] = {"unguided": unguided, "guided": bench.measure(CONTROLS[name], Setting(Move()))}
            for setting, result in results[label].items():
                show(label, setting, result)
    return results


def main() -> int | None:
    if any(argument.partition("=")[0] == "--checkpoint" for argument in sys.argv[1:]):
        return compare.main()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--json", type=to_write)
    parser.add_argument("--plot", type=to_write, help="with --peers: a PNG of it")
    chosen = parser.add_mutually_exclusive_group()
    for name, (_, what) in TABLES.items():
        chosen.add_argument(f"--{name}", dest="table", action="store_const", const=name, help=f"only {what}")
    options = parser.parse_args()
    if options.table:
        results = TABLES[options.table][0](options.seeds)
    else:
        results = controls(options.seeds) | relations(options.seeds)
    if options.plot:
        peers.draw(results, options.plot)
    if options.json:
        write_json(options.json, {"device": device_name(), "seeds": options.seeds, "controls": results})


if __name__ == "__main__":
    end("evaluate", main)
