"""Control by relations to a reference: drag, appearance and identity; part of `python run.py evaluate`.

Every picture is sampled alone, from the noise of one large batch. References are given scenes, inverted, or pictures
that the model made itself; the judge uses no network.
"""
import time
from dataclasses import dataclass

import torch

from tools.evaluate import NOISE_SEED, Bench

DRAG_SEED, OTHER_NOISE_SEED = 4000, 5000
STEPS, CFG, SCHEDULER = 20, 3.0, "karras"
INVERSION_STEPS = 50
# What is dragged, and about which joint it turns.
ENDS = {"left hand": "neck", "right hand": "neck", "left foot": "pelvis", "right foot": "pelvis"}
TURN = 30.0, 70.0   # degrees
REACH = 6.0         # pixels beside a limb's way that may change


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


def drag_plan(joints_of, names: tuple[str, ...], image: torch.Tensor) -> DragPlan:
    """A hand or foot of each picture, turned by some angle about neck or pelvis, away from edges and other joints."""
    rng = torch.Generator().manual_seed(DRAG_SEED)
    position, found = joints_of(image)
    height, width = image.shape[-2:]
    x, y = torch.arange(width).add(0.5).view(1, -1), torch.arange(height).add(0.5).view(-1, 1)
    rows = []
    for at, seen in zip(position, found):
        best = None
        for end in torch.randperm(len(ENDS), generator=rng).tolist():
            name, root = list(ENDS.items())[end]
            joint, about = names.index(name), at[names.index(root)]
            angles = torch.deg2rad(TURN[0] + (TURN[1] - TURN[0]) * torch.rand(8, generator=rng))
            for angle in (angles * (torch.randint(2, (8,), generator=rng) * 2 - 1)).tolist():
                c, s = torch.tensor(angle).cos(), torch.tensor(angle).sin()
                place = about + torch.stack([torch.stack([c, -s]), torch.stack([s, c])]) @ (at[joint] - about)
                inside = bool((place > 4).all() and (place < torch.tensor([width, height]) - 4).all())
                others = torch.cat([at[:joint], at[joint + 1:]])
                clear = (others - place).norm(dim=-1).min().item() if inside and seen[joint] else -1.0
                if best is None or (best[0] < 7 and clear > best[0]):
                    best = (clear, joint, about, place)
        _, joint, about, place = best
        moved = torch.zeros(height, width, dtype=torch.bool)
        for f in torch.linspace(0, 1, 12):
            tip = torch.lerp(at[joint], place, f)
            along = (((x - about[0]) * (tip - about)[0] + (y - about[1]) * (tip - about)[1]) / (tip - about).square().sum()).clamp(0, 1)
            moved |= torch.hypot(x - about[0] - along * (tip - about)[0], y - about[1] - along * (tip - about)[1]) < REACH
        rows.append((torch.tensor(joint), at[joint], place, moved))
    return DragPlan(*(torch.stack(column) for column in zip(*rows)))


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
    def generated(self) -> list:
        """Of each scene's prompt: (conditioning, picture, reference), as the model draws it unguided."""
        made = []
        for i, said in enumerate(self.context(self.said.prompts())):
            latent, reference = self.references.KSamplerReadoutReference.execute(
                self.model, NOISE_SEED, STEPS, CFG, "dpmpp_2m", SCHEDULER, said, self.negative, self.empty(i), 1.0, 1024).args
            made.append((said, self.picture(latent), reference))
        return made

    @torch.inference_mode()
    def inverted(self, image: torch.Tensor, prompts: list[str], steps: int = INVERSION_STEPS) -> list:
        """Of each given picture [1, 3, H, W]: (conditioning, noise, reference)."""
        found = []
        for x, said in zip(image.split(1), self.context(prompts)):
            latent = {"samples": self.vae.encode(x.movedim(1, -1))}
            noise, reference = self.references.ReadoutInvert.execute(self.model, said, self.negative, latent, steps, 1.0, SCHEDULER,
                                                                     1024).args
            found.append((said, noise, reference))
        return found


def drag_generated(bench: RelationBench, drag: float = 1.0, appearance: float = 1.0, end: float = 0.5,
                   strength: float | None = None, mask: bool = False, made: list | None = None) -> dict:
    """Hands and feet of pictures that the model made, dragged."""
    with torch.inference_mode():
        made = made or bench.generated()
        pictures = torch.cat([picture for _, picture, _ in made])
        plan = drag_plan(bench.judge.joints, bench.world.JOINTS, pictures)
        rendered = torch.cat([bench.picture(bench.ksampler(bench.model, said, bench.empty(i), OTHER_NOISE_SEED))
                              for i, (said, _, _) in enumerate(made)])
        dragged = torch.cat([bench.picture(bench.ksampler(bench.guide_by(bench.drag_targets(
            plan, i, reference, drag, appearance, end, plan.moved[i:i + 1].float() if mask else None), strength), said,
            bench.empty(i))) for i, (said, _, reference) in enumerate(made)])
    return {"unguided": bench.drag_figures(plan, pictures, pictures), "rendered again": bench.drag_figures(plan, rendered, pictures),
            "guided": bench.drag_figures(plan, dragged, pictures)}, (pictures, dragged, plan)
