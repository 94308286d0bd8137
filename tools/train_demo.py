"""Regenerates the demo model and its heads from nothing: `python run.py train-demo [--steps N] [--head-steps N] [--heads]`."""
import argparse
import importlib
import json

import torch
from safetensors.torch import load_file, save_file

from tools.host import load_pack

KINDS = {"pose": (-0.5, 0.5), "depth": (-1.0, 1.0), "edge": (-0.5, 0.5)}
TRAINING_SCENES, HELD_OUT_SCENES = 1536, 256
PROJECTION = 128
TIMESTEPS = (50, 200, 400, 600, 800, 950)


def scenes(world, targets, count: int, seed: int):
    """Latents, prompts' samples and what each head should read."""
    sample = world.draw(count, seed=seed)
    pose = torch.cat([targets.fit(targets.draw_pose(k[:, None], (256, 256), (64, 64)), (64, 64)) for k in sample.keypoints.split(64)])
    grey = {"depth": sample.nearness, "edge": world.edges(sample.image)}
    pictures = {"pose": pose} | {name: x[:, None].expand(-1, 3, -1, -1) for name, x in grey.items()}
    return sample, {name: targets.to_range(pictures[name], KINDS[name]) for name in KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--head-steps", type=int, default=1200)
    parser.add_argument("--heads", action="store_true", help="keep the model and train only its heads")
    options = parser.parse_args()
    pack = load_pack().__name__

    def module(name: str):
        return importlib.import_module(f"{pack}.{name}")

    demo, text, train, world = (module(f"heads.demo{name}") for name in ("", ".text", ".train", ".world"))
    host, heads = module("nodes.demo_training"), module("heads")
    targets, training, head = module("rg_core.targets"), module("rg_core.training"), module("rg_core.head")

    def save(unet, words, step):
        weights = {f"{part}.{name}": value.detach().half().cpu().contiguous()
                   for part, network in (("unet", unet), ("text", words)) for name, value in network.state_dict().items()}
        save_file(weights, demo.MODEL_FILE, {"unet_config": json.dumps(host.UNET_CONFIG), "steps": str(step)})

    if not options.heads:
        unet, words = train.train(host.new_unet(), text.TextEncoder(), host.Schedule().sigmas, options.steps,
                                  device=host.device(), save=save)
        save(unet, words, options.steps)
    unet, words = host.new_unet(), text.TextEncoder()
    for part, network in (("unet", unet), ("text", words)):
        network.load_state_dict({name.removeprefix(part + "."): value.float() for name, value in
                                 load_file(demo.MODEL_FILE).items() if name.startswith(part + ".")})
    unet.eval().requires_grad_(False).to(host.device())

    def source(count: int, seed: int):
        sample, wanted = scenes(world, targets, count, seed)
        said = text.drop(text.tokens(sample.shirt, sample.trousers, sample.scene))
        return host.reader(unet, words(said).detach(), sample.image * 2 - 1), wanted

    torch.manual_seed(1)
    read, wanted = source(TRAINING_SCENES, seed=1)
    channels = importlib.import_module(f"{pack}.rg_core.taps").channels(unet)
    made = {name: head.ReadoutHead(name, channels, projection_dim=PROJECTION, emb_channels=256, hidden=(32, 16),
                                   control_range=KINDS[name], base_model="demo").to(host.device()) for name in KINDS}
    training.train_spatial(made, read, wanted, 1000, options.head_steps)
    read, wanted = source(HELD_OUT_SCENES, seed=2)
    demo.HEADS_FOLDER.mkdir(exist_ok=True)
    for name, trained in made.items():
        quality = {str(t): round(training.explained(trained, read, wanted[name], t), 3) for t in TIMESTEPS}
        print(f"{name}: share of the variance read at timestep: {quality}", flush=True)
        heads.save_head(trained, demo.HEADS_FOLDER / f"demo_{name}.safetensors", explained=quality,
                        training_scenes=TRAINING_SCENES, steps=options.head_steps)


if __name__ == "__main__":
    main()
