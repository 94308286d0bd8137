"""What fitting a head costs on a real architecture: part of bench.py, `--fit [--images N]`.

Random images and targets of the subject's size; where the seconds go, the most memory beside what is there before, and what is multiplied,
from which the time on a GPU can be told: billions of operations in the model (its own type), in the sums (float32) and in the solutions
(float64).
"""
import math
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from readout_guidance_pack.nodes.make_heads import fitter
from readout_guidance_pack.nodes.make_heads.examples import Example
from readout_guidance_pack.nodes.make_heads.training_set import BANDS, TrainingSet
from tools.benchmarks.costs import STEPS, peak_bytes, sample
from tools.benchmarks.models import Subject


def done() -> float:
    """The time at which all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


class Timed(fitter.Fitter):
    seconds: dict[str, float] = {}

    def timed(self, name: str, action):
        start = done()
        found = action()
        Timed.seconds[name] = Timed.seconds.get(name, 0.0) + done() - start
        return found

    def add(self, *arguments) -> None:
        self.timed("sums", lambda: super(Timed, self).add(*arguments))

    def solve(self, *arguments):
        return self.timed("solutions", lambda: super(Timed, self).solve(*arguments))


@torch.inference_mode()
def fit_costs(subject: Subject, images: int) -> dict:
    rng = torch.Generator().manual_seed(5)
    shape = (1, *subject.shape[1:])
    given = [Example(torch.randn(shape, generator=rng), subject.conditioning, torch.rand(1, 3, *shape[2:], generator=rng)) for _ in range(images)]
    data = TrainingSet("bench", subject.model, given, "depth")
    with FlopCounterMode(display=False) as counter:
        sample(subject.model, subject.conditioning, subject.shape, STEPS[:2])
    forward = counter.get_total_flops() / (2 * subject.shape[0])  # both branches
    before = peak_bytes(reset=True)
    features, places = sum(data.channels), min(fitter.PIXELS, math.prod(data.size(given[0])))
    Timed.seconds, start, own, fitter.Fitter = {}, time.monotonic(), fitter.Fitter, Timed
    try:
        fitter.fit_head(data, 0)
    finally:
        fitter.Fitter = own
    took = time.monotonic() - start
    billions = {"model": forward * images * BANDS, "sums": 2.0 * places * images * BANDS * features**2,
                "solutions": (len(fitter.RIDGES) + 1) * BANDS * features**3 / 3}
    return {"pictures": images, "features": features, "seconds": round(took, 1),
            "seconds_in": {name: round(value, 1) for name, value in Timed.seconds.items()} | {"model": round(took - sum(Timed.seconds.values()), 1)},
            "peak_bytes": peak_bytes() - before, "billions": {name: round(value / 1e9) for name, value in billions.items()}}
