"""Control by relations to a reference: drag, appearance and identity; part of `python run.py evaluate`.

Every picture is sampled alone, from the noise of one large batch. References are given scenes, inverted, or pictures
that the model made itself; the judge uses no network.
"""
import time
from dataclasses import dataclass

import torch

from tools.evaluate import BATCH, NOISE_SEED, Bench

DRAG_SEED, OTHER_NOISE_SEED = 4000, 5000
STEPS, CFG, SCHEDULER = 20, 3.0, "karras"
INVERSION_STEPS = 50
REACH = 5.0         # pixels beside a limb's way that belong to the moved region
LEAST_WAY = 6.0     # pixels that a drag goes at least
# OpenPose indices of each limb: where it is rooted, its middle and its end, in the order of world.LIMBS.
LIMBS = ((5, 6, 7), (11, 12, 13), (2, 3, 4), (8, 9, 10))


@dataclass
class DragPlan:
    """One drag for each of B pictures, in pixels."""
    joint: torch.Tensor  # [B], index of the dragged joint
    start: torch.Tensor  # [B, 2]
    place: torch.Tensor  # [B, 2], where it should go
    moved: torch.Tensor  # [B, H, W], boolean: where the limb was, will be, and passes

    def json(self, i: int) -> str:
        size = torch.tensor(self.moved.shape[:0:-1])
        return str([[(p[i] / size).tolist() for p in (self.start, self.place)]])


def drag_plan(world, seeds: int, size: tuple[int, int]) -> tuple:
    """Scenes, the same scenes with one arm or leg moved, and the drags that lead from one to the other."""
    rng = torch.Generator().manual_seed(DRAG_SEED)
    plan = world.plan(4 * seeds, rng=rng)
    scene, moved = world.render(plan, *size), world.render(world.move_limb(plan, rng=rng), *size)
    way = (moved.joints - scene.joints).norm(dim=-1)
    picked = (way.max(1).values >= LEAST_WAY).nonzero()[:seeds, 0]
    joint = way.argmax(1)[picked]
    each = torch.arange(len(picked))
    start, place = scene.joints[picked][each, joint], moved.joints[picked][each, joint]
    x, y = torch.arange(size[1]).add(0.5).view(1, 1, -1), torch.arange(size[0]).add(0.5).view(1, -1, 1)
    region = torch.zeros(len(picked), *size, dtype=torch.bool)
    limb = (moved.keypoints - scene.keypoints)[picked][:, [end for _, _, end in LIMBS], :2].norm(dim=-1).argmax(1)
    points = torch.tensor(LIMBS)[limb]
    for share in torch.linspace(0, 1, 12):  # the limb on its way
        at = torch.lerp(scene.keypoints[picked], moved.keypoints[picked], share)[each[:, None], points, :2]
        for a, b in ((at[:, 0], at[:, 1]), (at[:, 1], at[:, 2])):
            d = b - a
            along = (((x - a[:, 0, None, None]) * d[:, 0, None, None] + (y - a[:, 1, None, None]) * d[:, 1, None, None])
                     / d.square().sum(1)[:, None, None]).clamp(0, 1)
            region |= torch.hypot(x - a[:, 0, None, None] - along * d[:, 0, None, None],
                                  y - a[:, 1, None, None] - along * d[:, 1, None, None]) < REACH
    return picked, scene, moved, DragPlan(joint, start, place, region)


class RelationBench(Bench):
    """The demo model with its relative heads, sampling one picture at a time."""

    def __init__(self, seeds: int):
        super().__init__(seeds)
        self.nodes, self.references, self.drags = (self.module(f"nodes.{m}") for m in ("relations", "references", "drag_paths"))
        self.world = self.module("heads.demo.world")
        folder, load = self.module("heads.demo").HEADS_FOLDER, self.module("heads").load_head
        for kind in ("correspondence", "appearance", "identity"):
            self.heads[kind] = load(folder / f"demo_{kind}.safetensors")

    def context(self, prompts: list[str]) -> list:
        return [self.clip.encode_from_tokens_scheduled(self.clip.tokenize(p)) for p in prompts]

    def empty(self, i: int) -> dict:
        return {"samples": torch.zeros(1, 3, *self.size), "batch_index": [i]}

    def picture(self, latent: dict) -> torch.Tensor:
        return self.vae.decode(latent["samples"]).movedim(-1, 1).cpu()

    def ksampler(self, model, said, latent: dict, seed: int = NOISE_SEED, sampler: str = "dpmpp_2m", cfg: float = CFG,
                 noise: bool = True) -> dict:
        return self.host.common_ksampler(model, seed, STEPS, cfg, sampler, SCHEDULER, said, self.negative, latent,
                                         disable_noise=not noise)[0]

    def guide_by(self, targets: tuple, strength: float | None = None):
        move = self.engine.Move() if strength is None else self.engine.Move(strength)
        return self.guide.guided("evaluate", self.model, targets, move, self.engine.Trace())

    def drag_targets(self, plan: DragPlan, i: int, reference, drag: float, appearance: float, end: float, mask=None) -> tuple:
        chain = self.nodes.DragTarget.execute(self.heads["correspondence"], reference, plan.json(i), drag, 0.0, end, mask=mask)[0]
        if appearance:
            chain = self.nodes.AppearanceTarget.execute(self.heads["appearance"], reference, appearance, 0.0, end, guidance=chain)[0]
        return chain

    def drag_figures(self, plan: DragPlan, image: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
        judge = self.judge
        values = {"distance": judge.distance(image, plan.joint, plan.place, plan.start),
                  "clothes_change": judge.clothes_change(image, reference), "psnr": judge.psnr(image, reference, ~plan.moved),
                  "valid": judge.valid(image), "texture": judge.texture(image)}
        return {name: round(value.mean().item(), 4) for name, value in values.items()}

    @torch.inference_mode()
    def inverted(self, image: torch.Tensor, prompts: list[str], steps: int = INVERSION_STEPS) -> list:
        """Of each given picture [B, 3, H, W]: (conditioning, noise, reference); inverted in batches."""
        found = []
        Reference, Trajectory = self.references.Reference, self.module("rg_core.references").Trajectory
        for part in torch.arange(len(image)).split(BATCH):
            said = self.context([prompts[i] for i in part])
            latent = {"samples": self.vae.encode(image[part].movedim(1, -1))}
            noise, whole = self.references.ReadoutInvert.execute(
                self.model, [[torch.cat([c[0][0] for c in said]), {}]], self.negative, latent, steps, 1.0, SCHEDULER, 1024).args
            for i, words in enumerate(said):
                way = Trajectory(whole.trajectory.sigmas, whole.trajectory.latents[:, i:i + 1].clone())
                found.append((words, {"samples": noise["samples"][i:i + 1]}, Reference(way, words, whole.family, whole.downscale)))
        return found
