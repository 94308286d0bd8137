"""Trains a head on a folder of images and a folder of what should be read of each, files of the same name:

    python run.py train-head PICTURES TARGETS --checkpoint FILE --kind depth --out my_depth.safetensors

as the node Train Readout Head does, on one GPU, or on the CPU. A text file beside an image (cat.txt beside cat.png) says what it shows. Ctrl-C
keeps what is reached, and --resume goes on from there.

With GPUs: `torchrun --nproc-per-node 2 run.py train-head ...` or `accelerate launch --multi_gpu --num_processes 2 run.py train-head ...`. Each
process has a GPU and batches of its own, all train one head, and the first one writes it.
"""
import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import comfy.model_management
import comfy.utils
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from readout_guidance_pack.nodes.common import model_checks
from readout_guidance_pack.nodes.demo import demo_model
from readout_guidance_pack.nodes.make_heads import reports
from readout_guidance_pack.nodes.make_heads.examples import examples, kind_given
from readout_guidance_pack.nodes.make_heads.training import Training, trained
from readout_guidance_pack.nodes.make_heads.training_set import TrainingSet
from readout_guidance_pack.rg_core.training.processes import Processes, joined
from readout_guidance_pack.rg_core.training.recipes import RECIPES, SMALL
from tools import here
from tools.host.checkpoints import whole_checkpoint
from tools.host.folders import caption, load, pairs

NODE = "train-head"
SHOW_EVERY = 50  # steps


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py train-head", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=here)
    parser.add_argument("targets", type=here, help="what should be read of each picture: depth maps, skeletons, edges, ...")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", type=here, help="the model, with its text encoder and VAE, as for Load Checkpoint")
    model.add_argument("--demo", action="store_true", help="the bundled demo model instead")
    parser.add_argument("--kind", required=True, help="pose, depth, edge, or a name of your own for Map Target")
    parser.add_argument("--out", required=True, type=here, help="the head's file, .safetensors; a picture of what it reads goes beside it, .png")
    parser.add_argument("--preset", choices=RECIPES, default=SMALL.name, help="small for some hundred pictures, published for thousands")
    parser.add_argument("--steps", type=int, help="instead of the preset's, those before --resume included")
    parser.add_argument("--batch-size", type=int, help="likewise, of each process")
    parser.add_argument("--learning-rate", type=float, help="likewise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from what --out holds")
    options = parser.parse_args(arguments)
    if options.out.suffix != ".safetensors":
        parser.error(f"--out is {options.out.name}, and a head's file ends in .safetensors")
    if options.out.exists() and not options.resume:
        parser.error(f"{options.out} is there already; --resume goes on from it, and another --out begins anew")
    if any(value is not None and not value > 0 for value in (options.steps, options.batch_size, options.learning_rate)):
        parser.error("--steps, --batch-size and --learning-rate must be above 0")
    return options


def loaded(options: argparse.Namespace) -> tuple:
    """(MODEL, CLIP, VAE)."""
    if options.demo:
        return demo_model.load_demo()
    return whole_checkpoint(options.checkpoint)


def smaller(image: Tensor, size: torch.Size) -> Tensor:
    """An IMAGE [1, h, w, 3] in its own shape, no larger than is needed for a readout of `size` (H, W)."""
    height, width = image.shape[1:3]
    factor = max(size[0] / height, size[1] / width)
    if factor >= 1:
        return image
    return F.interpolate(image.movedim(-1, 1), (round(height * factor), round(width * factor)), mode="bilinear", antialias=True).movedim(1, -1)


def data(options: argparse.Namespace) -> TrainingSet:
    """The folders, encoded. Raises ValueError."""
    kind, found = kind_given(NODE, options.kind), pairs(options.pictures, options.targets)
    model, clip, vae = loaded(options)
    model_checks.heads_fit(NODE, model, [])
    captions = [caption(image) for image, _ in found]
    said = {words: clip.encode_from_tokens_scheduled(clip.tokenize(words)) for words in dict.fromkeys(captions)}
    latents, wanted = [], []
    for image, target in found:
        latents.append({"samples": vae.encode(load(image)).cpu()})
        wanted.append(smaller(load(target), latents[-1]["samples"].shape[-2:]))
    print(f"{NODE}: {len(found)} pictures, {len(said)} different captions", flush=True)
    return TrainingSet(NODE, model, examples(NODE, model, latents, [said[words] for words in captions], wanted, kind), kind)


def shows(begin: float):
    """The host's hook for progress bars."""
    shown = 0

    def hook(value: int, total: int, _preview=None, **_more) -> None:  # not for every step
        nonlocal shown
        if value >= shown + SHOW_EVERY or value == total:
            shown = value
            print(f"{NODE}: step {value} of {total}, {time.monotonic() - begin:.0f} s", flush=True)

    return hook


def stop(*_signal) -> None:
    """Ctrl-C, between two steps; a second one at once."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    comfy.model_management.interrupt_current_processing()


def goes_on(options: argparse.Namespace, processes: Processes) -> bool:
    """Whether training goes on from --out, in all processes alike. Raises ValueError."""
    resume = options.resume and options.out.exists()
    if processes.any(resume) != (not processes.any(not resume)):
        raise ValueError(f"{options.out} is there for some processes alone. Copy it to each machine, or give a place that all share, to continue.")
    return resume


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> int:
    options = options_of(arguments)
    asked = {"steps": options.steps, "batch_size": options.batch_size, "learning_rate": options.learning_rate}
    recipe = replace(RECIPES[options.preset], **{name: value for name, value in asked.items() if value})
    before = signal.getsignal(signal.SIGINT)
    try:
        with joined() as processes:
            training = Training(data(options), recipe, options.seed, processes)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            comfy.utils.set_progress_bar_global_hook(None if processes.rank else shows(time.monotonic()))
            signal.signal(signal.SIGINT, stop)
            head, found, made = trained(training, options.out, goes_on(options, processes))
    except comfy.model_management.InterruptProcessingException:
        return 130
    except (OSError, ValueError) as error:
        print(f"{NODE}: {str(error).removeprefix(f'{NODE}: ')}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, before)
    if processes.rank:
        return 0
    to_pil_image(reports.sheet(training.data.model, head, found)[0].movedim(-1, 0)).save(options.out.with_suffix(".png"))
    print(reports.report(NODE, head, found, made, training.data.given), flush=True)
    return 0 if training.written else 1


if __name__ == "__main__":
    sys.exit(main())
