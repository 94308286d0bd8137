"""The demo's flow transformer, by heads fitted from drawn images and drags without one: `python run.py evaluate --transformer [--seeds N]`.

As the UNet's tables are made (control.py, relations.py), but sampled with Euler steps and the scheduler "simple", and also in eight of them.
"""
import torch

from readout_guidance_pack.heads.demo import TRANSFORMER_FILE
from readout_guidance_pack.nodes.engine.schedule import start
from readout_guidance_pack.nodes.make_heads.examples import Example
from readout_guidance_pack.nodes.make_heads.fitter import fit_head
from readout_guidance_pack.nodes.make_heads.training_set import TrainingSet
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import STEPS, Setting, show
from tools.tables.fit import drawn
from tools.tables.relations import RelationBench, to_be_dragged
from tools.train_demo import DEMO_RANGES

IMAGES = 100
FEW = 8  # steps


class FlowBench(RelationBench):
    """The transformer, with no heads but those that are fitted."""

    file, sampler, scheduler = TRANSFORMER_FILE, "euler", "simple"

    def __init__(self, seeds: int):
        super().__init__(seeds)
        start.attach(self.model)  # what is not dragged begins with the same noise as what is

    def shipped(self, kinds):
        return {}

    def fit_heads(self) -> None:
        images, wanted = drawn(self, IMAGES)
        latents = self.vae.encode(images.movedim(1, -1))
        for kind in DEMO_RANGES:
            given = [Example(latents[i:i + 1], self.negative, wanted[kind][i:i + 1]) for i in range(IMAGES)]
            self.heads[kind], _ = fit_head(TrainingSet("evaluate", self.model, given, kind), 0)


@torch.inference_mode()
def transformer(seeds: int) -> dict:
    bench, results = FlowBench(seeds), {}
    bench.fit_heads()
    for steps in (STEPS, FEW):
        few = "" if steps == STEPS else f", {steps} steps"
        unguided = bench.measure((), Setting(steps=steps))
        for kind in DEMO_RANGES:
            found = {f"unguided{few}": unguided, f"guided{few}": bench.measure((kind,), Setting(Move(), steps=steps))}
            results[kind] = results.get(kind, {}) | found
            for setting, result in found.items():
                show(kind, setting, result)
    return results | {"drag": drags(seeds)}


def drags(seeds: int) -> dict:
    bench, plan, given, starts = to_be_dragged(seeds, FlowBench)
    results = {}
    for setting, make in (("unguided", lambda: bench.unguided(starts, noise=False)), ("guided", lambda: bench.dragged(plan, starts))):
        results[setting] = bench.drag_figures(plan, make(), given)
        show("drag", setting, results[setting])
    return results
