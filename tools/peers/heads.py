"""Readout heads made of the same pairs as the peers, in the same folder; each is made once."""
import time
from pathlib import Path

import torch

from readout_guidance_pack.heads import load_head, save_head
from readout_guidance_pack.nodes.make_heads.examples import Example
from readout_guidance_pack.nodes.make_heads.fitter import fit_head
from readout_guidance_pack.nodes.make_heads.train import NODE
from readout_guidance_pack.nodes.make_heads.training import Training
from readout_guidance_pack.nodes.make_heads.training_set import TrainingSet
from readout_guidance_pack.rg_core.training.recipes import PUBLISHED, SMALL
from tools.peers.pairs import drawn
from tools.tables.control import Bench

RECIPES = {"trained": SMALL, "published": PUBLISHED}


def training_set(bench: Bench, kind: str, count: int) -> TrainingSet:
    pairs = drawn(kind, count)
    every = torch.arange(count)
    latents, shown = bench.vae.encode(pairs.images(every).movedim(1, -1)), pairs.hints(every)
    return TrainingSet(NODE, bench.model, [Example(latents[i:i + 1], bench.negative, shown[i:i + 1]) for i in range(count)], kind)


def fitted(bench: Bench, kind: str, count: int):
    return fit_head(training_set(bench, kind, count), 0)[0]


def trained(bench: Bench, kind: str, count: int, recipe: str):
    training = Training(training_set(bench, kind, count), RECIPES[recipe], 0)
    for _ in range(RECIPES[recipe].steps):
        training.step()
    training.judged()
    return training.head


def made(bench: Bench, way: str, kind: str, count: int, folder: Path):
    """A head "fitted", or "trained" or "published" by that recipe; its config has the "seconds" that making it took."""
    file = folder / f"{way}_{kind}_{count}.safetensors"
    if not file.exists():
        start = time.monotonic()
        head = fitted(bench, kind, count) if way == "fitted" else trained(bench, kind, count, way)
        save_head(head, file, seconds=round(time.monotonic() - start, 1))
    return load_head(file)
