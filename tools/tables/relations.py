"""Control by relations to a reference: drag, appearance and identity; part of `python run.py evaluate`.

Dragged images are sampled one by one, for each has a drag of its own; all else as in control.py.
"""
from copy import copy
from dataclasses import dataclass

import nodes as host_nodes
import torch

from readout_guidance_pack.heads.demo import judge, world
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.nodes.references.invert import ReadoutInvert
from readout_guidance_pack.nodes.references.reference import Reference
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.likeness import AppearanceTarget, IdentityTarget, StructureTarget
from readout_guidance_pack.rg_core.guidance.targets import Appearance, Drag, Identity, Spatial
from readout_guidance_pack.rg_core.guidance.trajectories import Trajectory
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools.tables.control import BATCH, NOISE_SEED, Bench, show

DRAG_SEED = 4000
REFERENCE_SEED = 6000
STEPS, CFG = 20, 3.0
INVERSION_STEPS = 50
APPEARANCE, IDENTITY = 0.5, 0.5  # docs/measurements/relations.md: the weights of what supports another target
FEATURES = 0.05                  # docs/measurements/features.md: that of Appearance Target without a head beside a drag
REACH = 5.0         # pixels beside a limb's way that belong to the moved region
LEAST_WAY = 6.0     # pixels that a drag goes at least


@dataclass
class DragPlan:
    """One drag for each of B images, in pixels."""
    joint: torch.Tensor  # [B], index of the dragged joint
    start: torch.Tensor  # [B, 2]
    place: torch.Tensor  # [B, 2], where it should go
    moved: torch.Tensor  # [B, H, W], boolean: where the limb was, will be, and passes

    def json(self, i: int) -> str:
        size = torch.tensor(self.moved.shape[:0:-1])
        return str([[(p[i] / size).tolist() for p in (self.start, self.place)]])


def drag_plan(seeds: int, size: tuple[int, int]) -> tuple:
    """Scenes, the same scenes with one arm or leg moved, and the drags that lead from one to the other, inside the image."""
    rng = torch.Generator().manual_seed(DRAG_SEED)
    plan = world.plan(4 * seeds, rng=rng)
    scene, moved = world.render(plan, *size), world.render(world.move_limb(plan, rng=rng), *size)
    way = (moved.joints - scene.joints).norm(dim=-1)
    limit = torch.tensor(size[::-1])
    inside = ((scene.joints >= 0) & (scene.joints < limit) & (moved.joints >= 0) & (moved.joints < limit)).all(-1)
    way = way * inside  # a drag cannot lead out of the image
    picked = (way.max(1).values >= LEAST_WAY).nonzero()[:seeds, 0]
    joint = way.argmax(1)[picked]
    each = torch.arange(len(picked))
    start, place = scene.joints[picked][each, joint], moved.joints[picked][each, joint]
    region = torch.zeros(len(picked), *size, dtype=torch.bool)
    limbs = torch.tensor([[world.OPENPOSE[name] for name in limb] for limb in world.LIMBS])
    points = limbs[(moved.keypoints - scene.keypoints)[picked][:, limbs[:, 2], :2].norm(dim=-1).argmax(1)]
    canvas, reach = world.Canvas(len(picked), *size), torch.full((len(picked),), REACH)
    for share in torch.linspace(0, 1, 12):  # the limb on its way
        root, middle, end = torch.lerp(scene.keypoints[picked], moved.keypoints[picked], share)[each[:, None], points, :2].unbind(1)
        region |= (canvas.capsule(root, middle, reach) < 0) | (canvas.capsule(middle, end, reach) < 0)
    return picked, scene, moved, DragPlan(joint, start, place, region)


class RelationBench(Bench):
    """A demo model with its relative heads."""

    def __init__(self, seeds: int):
        super().__init__(seeds)
        self.heads |= self.shipped(("correspondence", "appearance", "identity"))

    def image(self, latent: dict) -> torch.Tensor:
        return self.vae.decode(latent["samples"]).movedim(-1, 1).cpu()

    def ksampler(self, model, said, latent: dict, seed: int = NOISE_SEED, sampler: str | None = None, cfg: float = CFG,
                 noise: bool = True, steps: int = STEPS, scheduler: str | None = None) -> dict:
        return host_nodes.common_ksampler(model, seed, steps, cfg, sampler or self.sampler, scheduler or self.scheduler, said, self.negative, latent,
                                          disable_noise=not noise)[0]

    def guide_by(self, targets: tuple, move: Move = Move()):
        return guided("evaluate", self.model, targets, move)

    def drag_targets(self, plan: DragPlan, i: int, reference, end: float, mask: bool) -> tuple:
        chain = DragTarget.execute(reference, plan.json(i), 1.0, Drag.start, end, self.heads.get("correspondence"),
                                   mask=plan.moved[i:i + 1].float() if mask else None)[0]
        head = self.heads.get("appearance")
        return AppearanceTarget.execute(reference, APPEARANCE if head else FEATURES, Appearance.start, end, head, guidance=chain)[0]

    def dragged(self, plan: DragPlan, starts: list, move: Move = Move(), end: float = Drag.end, mask: bool = False,
                **options) -> torch.Tensor:
        """One image for each start (conditioning, noise, reference), made by its own drag."""
        images = []
        for i, (said, noise, reference) in enumerate(starts):
            model = self.guide_by(self.drag_targets(plan, i, reference, end, mask), move)
            images.append(self.image(self.ksampler(model, said, noise, noise=False, **{"sampler": "euler"} | options)))
        return torch.cat(images)

    def drag_figures(self, plan: DragPlan, image: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
        return mean(distance=judge.distance(image, plan.joint, plan.place, plan.start),
                    clothes_change=judge.clothes_change(image, reference), psnr=judge.psnr(image, reference, ~plan.moved),
                    valid=judge.valid(image), texture=judge.texture(image))

    @torch.inference_mode()
    def inverted(self, image: torch.Tensor, prompts: list[str], steps: int = INVERSION_STEPS) -> list:
        """Of each given image [B, 3, H, W]: (conditioning, noise, reference); inverted in batches."""
        found = []
        for part in torch.arange(len(image)).split(BATCH):
            said = self.context([prompts[i] for i in part])
            latent = {"samples": self.vae.encode(image[part].movedim(1, -1))}
            noise, whole = ReadoutInvert.execute(
                self.model, [[torch.cat([c[0][0] for c in said]), {}]], self.negative, latent, steps, 1.0, self.scheduler, 1024).args
            for i, words in enumerate(said):
                way = Trajectory(whole.trajectory.sigmas, whole.trajectory.latents[:, i:i + 1].clone())
                found.append((words, {"samples": noise["samples"][i:i + 1]}, Reference(way, words, whole.family, whole.downscale)))
        return found

    @torch.inference_mode()
    def unguided(self, starts: list, noise: bool = True, batch: int = BATCH, **options) -> torch.Tensor:
        """What is sampled for each start (conditioning, latent, reference) without guidance, in batches; from new noise, or none."""
        images = []
        for first in range(0, len(starts), batch):
            part = starts[first:first + batch]
            latent = {"samples": torch.cat([latent["samples"] for _, latent, _ in part])}
            if noise:
                latent = {"samples": torch.zeros_like(latent["samples"]), "batch_index": list(range(first, first + len(part)))}
            said = [[torch.cat([c[0][0] for c, _, _ in part]), {}]]
            images.append(self.image(self.ksampler(self.model, said, latent, noise=noise, **options)))
        return torch.cat(images)


def mean(**values: torch.Tensor) -> dict[str, float]:
    return {name: round(value.mean().item(), 4) for name, value in values.items()}


@torch.inference_mode()
def inversions(seeds: int) -> dict:
    """Given images, inverted and sampled again with as many Euler steps."""
    bench, results = RelationBench(1), {}
    scene = world.draw(seeds, seed=REFERENCE_SEED)
    everywhere = torch.ones(1, *bench.size)
    for steps in (20, 50):
        starts = bench.inverted(scene.image, scene.prompts(), steps)
        back = bench.unguided(starts, noise=False, sampler="euler", cfg=1.0, steps=steps)
        results[f"{steps} steps"] = mean(psnr=judge.psnr(back, scene.image, everywhere.expand(seeds, -1, -1)))
        show("inversion", f"{steps} steps", results[f"{steps} steps"])
    return results


def to_be_dragged(seeds: int, kind: type[RelationBench] = RelationBench) -> tuple:
    """A bench of this kind, the drags, the given images, and these inverted."""
    bench = kind(1)
    picked, scene, _, plan = drag_plan(seeds, bench.size)
    given, prompts = scene.image[picked], [scene.prompts()[i] for i in picked]
    return bench, plan, given, bench.inverted(given, prompts)


@torch.inference_mode()
def drags(seeds: int) -> dict:
    """A hand or foot of given images, dragged to where the same scene with that limb moved has it."""
    bench, plan, given, starts = to_be_dragged(seeds)
    results, headless = {}, copy(bench)
    headless.heads = {}
    for setting, make in (("unguided", lambda: bench.unguided(starts, noise=False, sampler="euler")),
                          ("rendered again", lambda: bench.unguided(starts)), ("guided", lambda: bench.dragged(plan, starts)),
                          ("guided, no head", lambda: headless.dragged(plan, starts)),
                          ("guided, masked", lambda: bench.dragged(plan, starts, mask=True))):
        image = make()
        results[setting] = bench.drag_figures(plan, image, given)
        show("drag", setting, results[setting])
    return results


class LikenessBench(RelationBench):
    """References to look like, with the poses and prompts of other scenes; the prompts leave the clothes open."""

    def __init__(self, seeds: int):
        super().__init__(seeds)
        self.shown = world.draw(seeds, seed=REFERENCE_SEED)
        self.open = self.context([f"a figure, {list(world.SCENES)[scene]}" for scene in self.said.scene])

    def identity(self, head=None):
        """Targets by a reference and the part of the scenes that is sampled: a pose, and who is there where there is a head."""
        def targets(reference, part):
            pose = self.guidance(("pose",), Spatial.end, part)
            return pose if head is None else IdentityTarget.execute(head, reference, IDENTITY, Identity.start, Identity.end, guidance=pose)[0]
        return targets

    def appearance(self, head=None):
        """Likewise, by the features as they are where there is no head."""
        return lambda reference, part: AppearanceTarget.execute(reference, 1.0, Appearance.start, Appearance.end, head)[0]

    @torch.inference_mode()
    def likeness(self, targets) -> dict[str, float]:
        images = []
        for first in range(0, self.seeds, BATCH):
            part = slice(first, min(first + BATCH, self.seeds))
            latent = {"samples": self.vae.encode(self.shown.image[part].movedim(1, -1)), "batch_index": list(range(first, part.stop))}
            reference = ReadoutReference.execute(self.model, self.negative, latent, NOISE_SEED, 1024)[0]
            chain = targets(reference, part)
            empty = {"samples": torch.zeros(part.stop - first, 3, *self.size), "batch_index": latent["batch_index"]}
            words = [[torch.cat([c[0][0] for c in self.open[part]]), {}]]
            images.append(self.image(self.ksampler(self.guide_by(chain) if chain else self.model, words, empty)))
        image = torch.cat(images)
        return mean(clothes_change=judge.clothes_change(image, self.shown.image), valid=judge.valid(image), texture=judge.texture(image),
                    pck=judge.pck(image, self.scene.joints, self.scene.height),
                    psnr=judge.psnr(image, self.shown.image, torch.ones(self.seeds, *self.size)))


def likenesses(seeds: int) -> dict:
    """Identity with the poses of other scenes, and appearance."""
    bench, results = LikenessBench(seeds), {"identity": {}, "appearance": {}}
    for control, setting, targets in (("identity", "unguided", bench.identity()), ("identity", "guided", bench.identity(bench.heads["identity"])),
                                      ("appearance", "unguided", lambda reference, part: ()),
                                      ("appearance", "guided", bench.appearance(bench.heads["appearance"])),
                                      ("appearance", "guided, no head", bench.appearance())):
        results[control][setting] = bench.likeness(targets)
        show(control, setting, results[control][setting])
    return results


@torch.inference_mode()
def structures(seeds: int) -> dict:
    """The structure of drawn scenes, with the prompts of others: where things are should come from the scene, colors from the words."""
    bench, results = RelationBench(seeds), {}
    for setting in ("unguided", "guided"):
        images = []
        for part in torch.arange(seeds).split(BATCH):
            latent = {"samples": bench.vae.encode(bench.scene.image[part].movedim(1, -1)), "batch_index": part.tolist()}
            reference = ReadoutReference.execute(bench.model, bench.negative, latent, REFERENCE_SEED, 1024)[0]
            chain = StructureTarget.execute(reference, 1.0, Appearance.start, Appearance.end)[0]
            empty = {"samples": torch.zeros(len(part), 3, *bench.size), "batch_index": part.tolist()}
            model = bench.guide_by(chain) if setting == "guided" else bench.model
            images.append(bench.image(bench.ksampler(model, [[bench.said_context[part], {}]], empty)))
        results[setting] = judge.figures(torch.cat(images), bench.scene, bench.said)
        show("structure", setting, results[setting])
    return results


def relations(seeds: int) -> dict:
    return {"inversion": inversions(seeds), "drag": drags(seeds), **likenesses(seeds), "structure": structures(seeds)}
