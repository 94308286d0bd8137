"""Trains the demo models and the UNet's heads from nothing: `python run.py train-demo [--model transformer] [--heads [KIND ...]]`.

On a GPU where there is one. `--heads` keeps the model and trains only its heads, or only those of these kinds; those of the transformer are
fitted where they are needed. `--first N` takes the training of a model up again from its file, at step N.
"""
import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import comfy.model_management
import torch
from safetensors.torch import load_file, save_file

from readout_guidance_pack.heads import save_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER, MODEL_FILE, TRANSFORMER_FILE, text, world
from readout_guidance_pack.rg_core.features import taps
from readout_guidance_pack.rg_core.guidance import energies
from readout_guidance_pack.rg_core.images import control_images
from readout_guidance_pack.rg_core.readout.head import ReadoutHead
from readout_guidance_pack.rg_core.training import training
from readout_guidance_pack.rg_core.training.recipes import SMALL
from tools.demo_world import demo_training, demo_transformer, demo_unet

DEMO_RANGES = {"pose": (-0.5, 0.5), "depth": (-1.0, 1.0), "edge": (-0.5, 0.5)}
TRAINING_SCENES, HELD_OUT_SCENES = 1536, 256
STRIDE = 2  # the demo's latent is pixels, so reading at half its size is fine enough, for a twelfth of the time on a CPU
SIZE = 64 // STRIDE, 64 // STRIDE  # of a readout
TIMESTEPS = (50, 200, 400, 600, 800, 950)
RELATIVE_STEPS = {"correspondence": 600, "appearance": 300, "identity": 300}
RELATIVE_ENERGIES = {"appearance": energies.appearance, "identity": energies.identity}
RELATIVE_SCENES, HELD_OUT_RELATIVE = 1024, 64
BACKGROUND_TRACKS = 8
FOUND_WITHIN = 0.06  # of the image
KINDS = [*DEMO_RANGES, *RELATIVE_STEPS]
LEVELS = len(demo_unet.Schedule().sigmas)
# Points halfway between these are tracked too, as pairs of OpenPose indices: along the limbs and the back.
BONES = ((2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13), (8, 1))


def scenes(count: int, seed: int) -> tuple[world.Sample, dict[str, torch.Tensor]]:
    """Scenes, and what each spatial head should read of them."""
    sample = world.draw(count, seed=seed)
    pose = torch.cat([control_images.fit(control_images.draw_pose(k[:, None], (256, 256), (64, 64)), SIZE)
                      for k in sample.keypoints.split(32)])
    grey = {"depth": sample.nearness, "edge": world.edges(sample.image)}
    shown = {"pose": pose} | {name: control_images.fit(x[:, None].expand(-1, 3, -1, -1), SIZE) for name, x in grey.items()}
    return sample, {name: control_images.to_range(shown[name], span) for name, span in DEMO_RANGES.items()}


def other(index: torch.Tensor, count: int, change: torch.Tensor) -> torch.Tensor:
    """`index` [B] into `count` things, another one where `change` [B] says so."""
    return torch.where(change, (index + torch.randint(1, count, index.shape)) % count, index)


def relations(count: int, seed: int) -> dict[str, list[world.Sample]]:
    """The images of each relative head's pairs (two of the same) and triplets (anchor, positive, negative)."""
    torch.manual_seed(seed)
    plan, elsewhere = world.plan(count, seed=seed), world.plan(count, seed=seed + 1)
    moved, turned = world.move_limb(plan, seed=seed + 2), world.repose(plan, seed=seed + 3)
    which = torch.randint(1, 8, (count,))  # three bits: which of the colors differ, at least one
    repainted = replace(plan, shirt=other(plan.shirt, len(world.CLOTHES), which & 1 > 0),
                        trousers=other(plan.trousers, len(world.CLOTHES), which & 2 > 0),
                        scene=other(plan.scene, len(world.SCENES), which & 4 > 0))
    which = torch.randint(1, 4, (count,))
    somebody = replace(plan, shirt=other(plan.shirt, len(world.CLOTHES), which & 1 > 0),
                       trousers=other(plan.trousers, len(world.CLOTHES), which & 2 > 0))
    same = replace(elsewhere, shirt=plan.shirt, trousers=plan.trousers)
    plan, moved, turned, repainted, somebody, same = map(world.render, (plan, moved, turned, repainted, somebody, same))
    return {"correspondence": [plan, moved, plan, turned], "appearance": [plan, moved, repainted],
            "identity": [plan, same, somebody]}


def tracks(one: world.Sample, two: world.Sample, height: int = 64, width: int = 64) -> torch.Tensor:
    """Points [B, 2, K, 2] that show the same thing in both images, in shares of the image."""
    shown = list(world.OPENPOSE.values())
    points = []
    for sample in (one, two):
        at = sample.keypoints[..., :2]
        points.append(torch.cat([at[:, shown]] + [(at[:, a] + at[:, b])[:, None] / 2 for a, b in BONES], 1))
    ground = (~(one.figure | two.figure)).flatten(1).float().multinomial(BACKGROUND_TRACKS)
    ground = torch.stack([ground % width + 0.5, ground // width + 0.5], -1)
    return torch.stack([torch.cat([p, ground], 1) for p in points], 1) / torch.tensor([width, height])


@dataclass(frozen=True)
class Recipe:
    """How a demo model is trained; `name` is of its config in its file."""
    file: Path
    name: str
    config: dict
    new: Callable
    learns: demo_training.Noise | demo_training.Flow
    steps: int
    learning_rate: float

    def save(self, unet, words, step: int) -> None:
        weights = {f"{part}.{name}": value.detach().half().cpu().contiguous()
                   for part, network in (("unet", unet), ("text", words)) for name, value in network.state_dict().items()}
        save_file(weights, self.file, {self.name: json.dumps(self.config), "steps": str(step)})

    def train(self, first: int, steps: int, device: torch.device) -> None:
        torch.manual_seed(0)
        unet, words = load_model(device, self) if first else (self.new(), text.TextEncoder())
        comfy.model_management.in_training = True  # the host's switch to operations that have a backward pass
        unet, words = demo_training.train(unet.requires_grad_(), words.requires_grad_(), self.learns, steps, first=first, lr=self.learning_rate,
                                          device=device, save=self.save)
        comfy.model_management.in_training = False
        self.save(unet, words, steps)


UNET = Recipe(MODEL_FILE, "unet_config", demo_unet.UNET_CONFIG, demo_unet.new_unet, demo_training.Noise(demo_unet.Schedule().sigmas), 9000, 7e-4)
TRANSFORMER = Recipe(TRANSFORMER_FILE, "transformer_config", demo_transformer.CONFIG, demo_transformer.new_transformer, demo_training.Flow(),
                     13000, 1e-3)
RECIPES = {"unet": UNET, "transformer": TRANSFORMER}


def load_model(device: torch.device, recipe: Recipe = UNET):
    unet, words = recipe.new(), text.TextEncoder()
    weights = load_file(recipe.file)
    for part, network in (("unet", unet), ("text", words)):
        network.load_state_dict({name.removeprefix(f"{part}."): value.float() for name, value in weights.items()
                                 if name.startswith(f"{part}.")})
    return unet.eval().requires_grad_(False).to(device), words.requires_grad_(False)


def new_head(kind: str, unet, device: torch.device) -> ReadoutHead:
    torch.manual_seed(0)
    spatial = kind in DEMO_RANGES
    return ReadoutHead(kind, taps.channels(unet), projection_dim=SMALL.projection_dim, emb_channels=256 if spatial else None,
                       out_channels=3 if spatial else None, hidden=SMALL.hidden, control_range=DEMO_RANGES.get(kind, (-0.5, 0.5)),
                       base_model="demo", stride=STRIDE).to(device)


def save(head: ReadoutHead, **about: object) -> None:
    HEADS_FOLDER.mkdir(exist_ok=True)
    save_head(head, HEADS_FOLDER / f"demo_{head.kind}.safetensors", **about)


def train_spatial(unet, words, device: torch.device, steps: int, kinds: list[str]) -> None:
    def source(count: int, seed: int):
        torch.manual_seed(seed)
        sample, wanted = scenes(count, seed)
        said = text.drop(text.tokens(sample.shirt, sample.trousers, sample.scene))
        return demo_unet.reader(unet, words(said), sample.image * 2 - 1), {kind: wanted[kind] for kind in kinds}

    heads = {kind: new_head(kind, unet, device) for kind in kinds}
    read, wanted = source(TRAINING_SCENES, seed=1)
    training.train(heads, training.spatial_losses(heads, read, wanted, LEVELS), steps)
    read, wanted = source(HELD_OUT_SCENES, seed=2)
    for kind, head in heads.items():
        quality = {str(t): round(training.explained(head, read, wanted[kind], t), 3) for t in TIMESTEPS}
        print(f"{kind}: share of the variance read, by timestep: {quality}", flush=True)
        save(head, explained=quality, training_scenes=TRAINING_SCENES, steps=steps)


def related(unet, words, kind: str, count: int, seed: int) -> tuple:
    """`read` for rg_core.training, and pairs with tracks or triplets with their energy: what a relative head is trained on and judged by.
    Prompts mostly leave the colors of the clothes open, so that it reads them off the image and not off the words."""
    samples = relations(count, seed)[kind]
    said = torch.cat([text.drop(text.tokens(s.shirt, s.trousers, s.scene)) for s in samples])
    said[torch.rand(len(said)) < 0.7, :2] = text.EMPTY
    group = 2 if kind == "correspondence" else 3
    # Image p of scene i is latent p * count + i; a scene has one triplet or two pairs.
    rows = torch.arange(len(samples) * count).view(-1, group, count).mT.flatten(0, 1)
    reader = demo_unet.reader(unet, words(said), torch.cat([s.image for s in samples]) * 2 - 1)
    if kind != "correspondence":
        return reader, rows, RELATIVE_ENERGIES[kind]
    return reader, rows, torch.cat([tracks(one, two) for one, two in zip(samples[::2], samples[1::2])])


def measured(unet, words, head: ReadoutHead, count: int, timesteps: tuple[int, ...] = TIMESTEPS) -> tuple[str, dict[str, float]]:
    """What a relative head is judged by, and its share by timestep, on held-out scenes."""
    read, rows, what = related(unet, words, head.kind, count, seed=21)
    measure, more = (training.point_accuracy, (FOUND_WITHIN,)) if head.kind == "correspondence" else (training.ordered, ())
    return measure.__name__, {str(t): round(measure(head, read, rows, what, t, SIZE, *more), 3) for t in timesteps}


def train_relative(unet, words, device: torch.device, kind: str) -> None:
    """A head that compares two images."""
    head = new_head(kind, unet, device)
    read, rows, what = related(unet, words, kind, RELATIVE_SCENES, seed=11)
    make = training.correspondence_losses if kind == "correspondence" else training.triplet_losses
    training.train({kind: head}, make(head, read, rows, what, LEVELS, SIZE), RELATIVE_STEPS[kind])
    measure, quality = measured(unet, words, head, HELD_OUT_RELATIVE)
    print(f"{kind}: share {measure}, by timestep: {quality}", flush=True)
    save(head, **{measure: quality}, training_scenes=RELATIVE_SCENES, steps=RELATIVE_STEPS[kind])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=RECIPES, default="unet")
    parser.add_argument("--steps", type=int, help="of the diffusion model")
    parser.add_argument("--first", type=int, default=0, help="the step to go on at")
    parser.add_argument("--head-steps", type=int, default=1000, help="of the spatial heads")
    parser.add_argument("--heads", nargs="*", choices=KINDS, help="keep the diffusion model; train these, or all")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.heads is None:
        recipe = RECIPES[options.model]
        recipe.train(options.first, options.steps or recipe.steps, device)
    if options.model != "unet":
        return
    unet, words = load_model(device)
    kinds = options.heads or KINDS
    spatial = [kind for kind in kinds if kind in DEMO_RANGES]
    if spatial:
        train_spatial(unet, words, device, options.head_steps, spatial)
    for kind in kinds:
        if kind in RELATIVE_STEPS:
            train_relative(unet, words, device, kind)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("train-demo: stopped; the files are as they were saved last")
