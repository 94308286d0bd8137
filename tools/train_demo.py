"""Trains the demo model and its heads from nothing: `python run.py train-demo [--heads]`.

On a GPU where there is one. `--heads` keeps the model and trains only its heads.
"""
import argparse
import json

import torch
from safetensors.torch import load_file, save_file

from heads import save_head
from heads.demo import HEADS_FOLDER, MODEL_FILE, text, train, world
from rg_core import taps, targets, training
from rg_core.head import ReadoutHead
from tools import demo_unet

CONTROL_RANGES = {"pose": (-0.5, 0.5), "depth": (-1.0, 1.0), "edge": (-0.5, 0.5)}
TRAINING_SCENES, HELD_OUT_SCENES = 1536, 256
PROJECTION, HIDDEN = 128, (32, 16)
STRIDE = 2  # the demo's latent is pixels, so reading at half its size is fine enough, for a twelfth of the time on a CPU
TIMESTEPS = (50, 200, 400, 600, 800, 950)


def scenes(count: int, seed: int) -> tuple[world.Sample, dict[str, torch.Tensor]]:
    """Scenes, and what each head should read of them."""
    sample = world.draw(count, seed=seed)
    size = 64 // STRIDE, 64 // STRIDE
    pose = torch.cat([targets.fit(targets.draw_pose(k[:, None], (256, 256), (64, 64)), size)
                      for k in sample.keypoints.split(32)])
    grey = {"depth": sample.nearness, "edge": world.edges(sample.image)}
    pictures = {"pose": pose} | {name: targets.fit(x[:, None].expand(-1, 3, -1, -1), size) for name, x in grey.items()}
    return sample, {name: targets.to_range(pictures[name], span) for name, span in CONTROL_RANGES.items()}


def save_model(unet, words, step: int) -> None:
    weights = {f"{part}.{name}": value.detach().half().cpu().contiguous()
               for part, network in (("unet", unet), ("text", words)) for name, value in network.state_dict().items()}
    save_file(weights, MODEL_FILE, {"unet_config": json.dumps(demo_unet.UNET_CONFIG), "steps": str(step)})


def load_model(device: torch.device):
    unet, words = demo_unet.new_unet(), text.TextEncoder()
    weights = load_file(MODEL_FILE)
    for part, network in (("unet", unet), ("text", words)):
        network.load_state_dict({name.removeprefix(f"{part}."): value.float() for name, value in weights.items()
                                 if name.startswith(f"{part}.")})
    return unet.eval().requires_grad_(False).to(device), words.requires_grad_(False)


def train_heads(device: torch.device, steps: int) -> None:
    unet, words = load_model(device)

    def source(count: int, seed: int):
        torch.manual_seed(seed)
        sample, wanted = scenes(count, seed)
        said = text.drop(text.tokens(sample.shirt, sample.trousers, sample.scene))
        return demo_unet.reader(unet, words(said), sample.image * 2 - 1), wanted

    torch.manual_seed(0)
    heads = {name: ReadoutHead(name, taps.channels(unet), projection_dim=PROJECTION, emb_channels=256, hidden=HIDDEN,
                               control_range=span, base_model="demo", stride=STRIDE).to(device) for name, span in CONTROL_RANGES.items()}
    read, wanted = source(TRAINING_SCENES, seed=1)
    training.train_spatial(heads, read, wanted, len(demo_unet.Schedule().sigmas), steps)
    read, wanted = source(HELD_OUT_SCENES, seed=2)
    HEADS_FOLDER.mkdir(exist_ok=True)
    for name, head in heads.items():
        quality = {str(t): round(training.explained(head, read, wanted[name], t), 3) for t in TIMESTEPS}
        print(f"{name}: share of the variance read, by timestep: {quality}", flush=True)
        save_head(head, HEADS_FOLDER / f"demo_{name}.safetensors", explained=quality, training_scenes=TRAINING_SCENES,
                  steps=steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=9000, help="of the diffusion model")
    parser.add_argument("--head-steps", type=int, default=1000)
    parser.add_argument("--heads", action="store_true", help="keep the diffusion model")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not options.heads:
        unet, words = train.train(demo_unet.new_unet(), text.TextEncoder(), demo_unet.Schedule().sigmas, options.steps,
                                  device=device, save=save_model)
        save_model(unet, words, options.steps)
    train_heads(device, options.head_steps)


if __name__ == "__main__":
    main()
