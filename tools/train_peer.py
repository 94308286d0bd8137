"""Trains what people would use instead, on the demo world: `python run.py train-peer --what controlnet|t2i --kind pose|depth|edge --pairs N`.

A ControlNet or T2I-Adapter of the host's own class learns on N drawn pairs, while the demo's UNet stays as it is, until held-out
control no longer rises (tools/peers/held_out.py says how that is decided). Stopped, it goes on where it was looked at last. Its file is for
`evaluate --peers`. Hours: see docs/peers.md. Several of them can run at once, in one thread each (OMP_NUM_THREADS=1).
"""
import argparse
import copy
from pathlib import Path

import comfy.model_management
import torch

from tools import ROOT, end, here
from tools.peers import held_out, networks
from tools.peers.pairs import KINDS, drawn
from tools.peers.training import Training
from tools.train_demo import load_model

FOLDER = ROOT / ".cache" / "peers"


def name(what: str, kind: str, pairs: int) -> str:
    return f"{what}_{kind}_{pairs}"


def train(what: str, kind: str, count: int, folder: Path, at_most: int = held_out.AT_MOST) -> Path:
    label = name(what, kind, count)
    file, state = folder / f"{label}.safetensors", folder / f"{label}.state"
    unet, words = load_model(torch.device("cpu"))
    judge = held_out.HeldOut(kind)
    training = Training(what, unet, words, drawn(kind, count))
    if state.exists():
        training.load(state)
        print(f"{label}: goes on at step {training.progress.step}", flush=True)
    progress = training.progress
    comfy.model_management.in_training = True  # the host's switch to operations that have a backward pass
    try:
        while progress.step < at_most and not held_out.ended(kind, progress.history):
            losses = [training.step() for _ in range(held_out.EVERY)]
            progress.history.append(judge.look(training) | {"training_loss": round(sum(losses) / len(losses), 5), "seconds": round(progress.seconds)})
            if held_out.best(kind, progress.history) is progress.history[-1]:
                training.best = copy.deepcopy(training.average.state_dict())
            training.save(state)
            print(f"{label}: " + "  ".join(f"{key} {value}" for key, value in progress.history[-1].items()), flush=True)
    finally:
        comfy.model_management.in_training = False
    training.average.load_state_dict(training.best)
    chosen = held_out.best(kind, progress.history)
    networks.save(training.average, file, {"what": what, "kind": kind, "pairs": count, "step": chosen["step"], "seconds": chosen["seconds"],
                                           "history": progress.history})
    print(f"{label}: ended at step {progress.step}; the network of step {chosen['step']} is in {file}", flush=True)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=networks.UNTRAINED, required=True)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--out", type=here, default=FOLDER, help="the folder of its files; without it .cache/peers")
    options = parser.parse_args()
    if options.pairs < 1:
        parser.error(f"--pairs was {options.pairs}; it must be 1 or more")
    options.out.mkdir(parents=True, exist_ok=True)
    train(options.what, options.kind, options.pairs, options.out)


if __name__ == "__main__":
    end("train-peer", main)
