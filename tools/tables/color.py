"""Coarse colors of other scenes, with and without their pose: `python run.py evaluate --color [--seeds N]`."""
import torch

from readout_guidance_pack.heads.demo import judge
from readout_guidance_pack.nodes.targets.color import ColorTarget
from readout_guidance_pack.rg_core.guidance.targets import Color, Spatial
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import Bench, Setting, show

# Whether Color Target acts, and a pose target beside it, by setting.
SETTINGS = {"unguided": (False, False), "guided": (True, False), "pose": (False, True), "guided, pose": (True, True)}


def chain(bench: Bench, part: slice, color: bool, pose: bool) -> tuple:
    targets = bench.guidance(("pose",), Spatial.end, part) if pose else ()
    if not color:
        return targets
    image = bench.scene.image[part].movedim(1, -1)
    return ColorTarget.execute(image, bench.vae, Color.cells, 1.0, Color.start, Color.end, guidance=targets)[0]


@torch.inference_mode()
def colors(seeds: int) -> dict:
    bench, results = Bench(seeds), {}
    for setting, given in SETTINGS.items():
        image, scene = bench.sampled(lambda part: chain(bench, part, *given), Setting(Move())), bench.scene
        values = {f"color{cells}": judge.coarse_error(image, scene.image, cells) for cells in (4, 8)}
        values |= {"valid": judge.valid(image), "texture": judge.texture(image), "pck": judge.pck(image, scene.joints, scene.height)}
        results[setting] = {name: round(value.mean().item(), 4) for name, value in values.items()}
        show("color", setting, results[setting])
    return {"color": results}
