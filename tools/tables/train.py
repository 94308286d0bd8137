"""Heads trained on a hundred drawn images beside fitted and shipped ones: `python run.py evaluate --train [--seeds N]`."""
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from readout_guidance_pack.nodes.make_heads.examples import Example
from readout_guidance_pack.nodes.make_heads.fitter import fit_head
from readout_guidance_pack.nodes.make_heads.train import NODE
from readout_guidance_pack.nodes.make_heads.training import Training
from readout_guidance_pack.nodes.make_heads.training_set import TrainingSet
from readout_guidance_pack.rg_core.guidance.updates import Move
from readout_guidance_pack.rg_core.training.recipes import SMALL
from tools.tables.control import Bench, Setting, show
from tools.tables.fit import drawn
from tools.train_demo import DEMO_RANGES

COUNT, STEPS = 100, (500, 1000)


class Shared(TrainingSet):
    """For heads that are trained in step on the same images by the same dice: the model is asked once for all of them."""
    asked: tuple = ()

    def read(self, places: list[int], rng: torch.Generator, use, band: int = 0, bands: int = 1) -> Iterator[tuple]:
        question = places, band, rng.get_state().tolist()
        if not Shared.asked or Shared.asked[0] != question:
            found = [([self.given.index(e) for e in some], reading) for some, reading in super().read(places, rng, use, band, bands)]
            Shared.asked = question, found, rng.get_state()
        rng.set_state(Shared.asked[2])
        for part, reading in Shared.asked[1]:
            yield [self.given[i] for i in part], reading


@torch.inference_mode()
def trains(seeds: int) -> dict:
    bench, results = Bench(seeds), {kind: {} for kind in DEMO_RANGES}
    shipped, unguided = bench.heads, bench.measure((), Setting())
    images, wanted = drawn(bench, COUNT)
    latents = bench.vae.encode(images.movedim(1, -1))
    given = {kind: [Example(latents[i:i + 1], bench.negative, wanted[kind][i:i + 1]) for i in range(COUNT)] for kind in DEMO_RANGES}

    def add(kind: str, setting: str, head, **more) -> None:
        bench.heads, start = shipped | {kind: head}, head.start
        for name in [setting, f"{setting}, from 0"] if start else [setting]:
            results[kind][name] = bench.measure((kind,), Setting(Move())) | more
            show(kind, name, results[kind][name])
            head.start = 0.0  # however little it reads of the noisiest band

    for kind in DEMO_RANGES:
        results[kind]["unguided"] = unguided
        show(kind, "unguided", unguided)
        add(kind, "shipped", shipped[kind])
        start = time.monotonic()
        head, found = fit_head(TrainingSet(NODE, bench.model, given[kind], kind), 0)
        add(kind, f"fit {COUNT}", head, made_in=round(time.monotonic() - start, 1), start=found.start, reads=round(max(found.shares), 3))
    for steps in STEPS:
        trainings = [Training(Shared(NODE, bench.model, given[kind], kind), replace(SMALL, steps=steps), 0) for kind in DEMO_RANGES]
        start, busy = time.monotonic(), time.process_time()
        for _ in range(steps):
            for training in trainings:
                training.step()
        took = {"made_in": round(time.monotonic() - start, 1), "core_seconds": round(time.process_time() - busy, 1)}  # of all kinds together
        for training in trainings:
            found = training.judged()
            add(training.data.kind, f"train {COUNT}, {steps} steps", training.head, **took, start=found.start,
                reads=round(max(found.shares), 3))
    return results
