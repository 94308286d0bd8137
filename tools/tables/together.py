"""A ControlNet and readouts together, by strengths, ends and which goes first: `python run.py evaluate --together [--seeds N] [--json FILE]`.

For pose: the ControlNet of `train-peer` on 1,000 pairs and a head fitted on 10. Scenes, prompts and noise are others than those that peers.py
judges by, because this chooses.
"""
from dataclasses import replace

import torch

from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.peers import heads, networks
from tools.peers.bench import Applied, PeerBench
from tools.tables.control import APART, Setting, show
from tools.tables.peers import RUNS
from tools.train_peer import FOLDER, name

KIND, PAIRS, EXAMPLES = "pose", 1000, 10
NET = {"ControlNet": {}, "ControlNet until 0.5": {"end": 0.5}, "ControlNet of strength 0.5": {"strength": 0.5}, "ControlNet from 0.3": {"start": 0.3}}
READOUTS = {"readouts": Setting(Move()), "readouts until 0.5": Setting(Move(), end=0.5), "readouts of weight 0.5": Setting(Move(), weight=0.5),
            "readouts from 0.3": Setting(Move(), start=0.3)}
# Each alone, each way of the one beside the other one's default, and shorter ones of both.
PAIRINGS = [("ControlNet", None), (None, "readouts"), *(("ControlNet", way) for way in READOUTS),
            *((way, "readouts") for way in list(NET)[1:]), ("ControlNet until 0.5", "readouts until 0.5"),
            ("ControlNet until 0.5", "readouts from 0.3"), ("ControlNet of strength 0.5", "readouts of weight 0.5")]


@torch.inference_mode()
def together(seeds: int) -> dict:
    file = FOLDER / f"{name('controlnet', KIND, PAIRS)}.safetensors"
    if not file.exists():
        raise SystemExit(f"evaluate: train the ControlNet first: python run.py train-peer --what controlnet --kind {KIND} --pairs {PAIRS}")
    bench, net, results = PeerBench(seeds, APART), networks.control(networks.network(file)), {}
    bench.heads[KIND] = heads.made(bench, "fitted", KIND, EXAMPLES, FOLDER)
    for run, setting in RUNS.items():
        for controlled, guided in [(None, None), *PAIRINGS]:
            bench.applied = (Applied(net, KIND, **NET[controlled]),) if controlled else ()
            way = READOUTS[guided] if guided else Setting()
            label = f"{' and '.join(part for part in (controlled, guided) if part) or 'unguided'}, {run}"
            results[label] = bench.measure((KIND,), replace(setting, move=way.move, end=way.end, start=way.start, weight=way.weight))
            show(KIND, label, results[label])
    return {KIND: results}
