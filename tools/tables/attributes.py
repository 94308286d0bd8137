"""What no shipped head reads, steered by heads fitted from drawn images: `python run.py evaluate --attributes [--seeds N]`.

Attributes: arms raised (both hands above the neck) and scenes at dusk, learnt from 100 images with it and 100 without, at three amounts, and
less of it. A map: where the shirt is, fitted from 100 images, towards the shirts of the other tables' scenes. Prompts are those of the other
tables; those for dusk leave the scene open, which they would else ask for.
"""
from copy import copy

import torch

from readout_guidance_pack.heads.demo import judge, world
from readout_guidance_pack.nodes.make_heads.examples import Example
from readout_guidance_pack.nodes.make_heads.fit_attribute import Sides
from readout_guidance_pack.nodes.make_heads.fitter import fit_head
from readout_guidance_pack.nodes.make_heads.training_set import TrainingSet
from readout_guidance_pack.nodes.targets.attribute import AttributeTarget
from readout_guidance_pack.nodes.targets.map import MapTarget
from readout_guidance_pack.rg_core.guidance.targets import Attribute, Spatial
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import Bench, Setting, show

SEED = 9000
EACH, IMAGES = 100, 100
AMOUNTS = (0.5, 1.0, 2.0, -1.0)


class AttributeBench(Bench):
    """Images to fit on, and what is measured."""

    def figures(self, image: torch.Tensor) -> dict[str, float]:
        measures = {"valid": judge.valid(image), "texture": judge.texture(image),
                    "color_error": judge.color_error(image, self.said.shirt, self.said.trousers, self.said.scene)}
        return {name: round(value.mean().item(), 4) for name, value in measures.items()}

    def examples(self, image: torch.Tensor, wanted: torch.Tensor) -> list[Example]:
        latents = self.vae.encode(image.movedim(1, -1))
        return [Example(latent[None], self.negative, one[None]) for latent, one in zip(latents, wanted)]


@torch.inference_mode()
def attributes(seeds: int) -> dict:
    bench, results = AttributeBench(seeds), {}
    drawn, unguided = world.draw(IMAGES * 8, seed=SEED).image, bench.sample((), Setting())
    results["arms raised"] = amounts(bench, drawn, "arms raised", unguided)
    no_scene = copy(bench)
    no_scene.said_context = bench.encoded([prompt.rsplit(",", 1)[0] for prompt in bench.said.prompts()])
    results["dusk"] = amounts(no_scene, drawn, "dusk", no_scene.sample((), Setting()))
    return results | {"shirt": shirts(bench, drawn[:IMAGES], unguided)}


def amounts(bench: AttributeBench, drawn: torch.Tensor, name: str, unguided: torch.Tensor) -> dict:
    has, results = judge.ATTRIBUTES[name], {}
    having = has(drawn) > 0
    sides = torch.cat([drawn[having][:EACH], drawn[~having][:EACH]])
    wanted = torch.tensor([1.0] * EACH + [-1.0] * EACH).view(-1, 1, 1, 1)
    head, _ = fit_head(Sides("evaluate", bench.model, bench.examples(sides, wanted), name), 0)
    for amount in (0.0, *AMOUNTS):
        image = unguided if not amount else bench.sampled(
            lambda part: AttributeTarget.execute(head, amount, 0.0, Attribute.end)[0], Setting(Move()))
        setting = f"amount {amount:g}" if amount else "unguided"
        results[setting] = {"share": round(has(image).mean().item(), 4)} | bench.figures(image)
        show(name, setting, results[setting])
    return results


def shirts(bench: AttributeBench, drawn: torch.Tensor, unguided: torch.Tensor) -> dict:
    def shown(image: torch.Tensor) -> torch.Tensor:
        return judge.shirt(image).float()[:, None].expand(-1, 3, -1, -1)

    wanted, results = judge.shirt(bench.scene.image), {}
    head, _ = fit_head(TrainingSet("evaluate", bench.model, bench.examples(drawn, shown(drawn)), "the shirt"), 0)
    image = shown(bench.scene.image).movedim(1, -1)
    for setting, weight in (("unguided", 0.0), ("weight 0.5", 0.5), ("weight 1", 1.0), ("weight 2", 2.0)):
        images = unguided if not weight else bench.sampled(
            lambda part: MapTarget.execute(head, image[part], weight, 0.0, Spatial.end)[0], Setting(Move()))
        found = judge.shirt(images)
        overlap = (found & wanted).flatten(1).sum(1) / (found | wanted).flatten(1).sum(1).clamp(min=1)
        results[setting] = {"overlap": round(overlap.mean().item(), 4)} | bench.figures(images)
        show("shirt", setting, results[setting])
    return results
