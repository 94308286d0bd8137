"""Coarse colours of other scenes, with and without their pose: `python run.py evaluate --colour [--seeds N]`."""
import torch

from readout_guidance_pack.heads.demo import judge
from readout_guidance_pack.nodes.targets.colour import ColourTarget
from readout_guidance_pack.rg_core.guidance.targets import Colour, Spatial
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import Bench, Setting, show

# Whether Colour Target acts, and a pose target beside it, by setting.
SETTINGS = {"unguided": (False, False), "guided": (True, False), "pose": (False, True), "guided, pose": (True, True)}


def chain(bench: Bench, part: slice, colour: bool, pose: bool) -> tuple:
    targets = bench.guidance(("pose",), Spatial.end, part) if pose else ()
    if not colour:
        return targets
    image = bench.scene.image[part].movedim(1, -1)
    return ColourTarget.execute(image, bench.vae, Colour.cells, 1.0, Colour.start, Colour.end, guidance=targets)[0]


@torch.inference_mode()
def colours(seeds: int) -> dict:
    bench, results = Bench(seeds), {}
    for setting, given in SETTINGS.items():
        image, scene = bench.sampled(lambda part: chain(bench, part, *given), Setting(Move())), bench.scene
        values = {f"colour{cells}": judge.coarse_error(image, scene.image, cells) for cells in (4, 8)}
        values |= {"valid": judge.valid(image), "texture": judge.texture(image), "pck": judge.pck(image, scene.joints, scene.height)}
        results[setting] = {name: round(value.mean().item(), 4) for name, value in values.items()}
        show("colour", setting, results[setting])
    return {"colour": results}
