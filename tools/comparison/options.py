"""The command line of the comparison."""
import argparse
from collections.abc import Sequence
from pathlib import Path

import comfy.samplers

from readout_guidance_pack.rg_core.guidance.targets import Spatial
from tools import here, to_write
from tools.comparison.controls import KINDS

ABOUT = """Readouts beside a ControlNet on your own files:

    python run.py evaluate --checkpoint FILE [--controlnet FILE] [--head FILE] --poses FOLDER --prompts FILE [--detector FILE]

Each picture in the folder (--poses, --depths or --edges), or OpenPose JSON file among --poses, is followed once in each way: not at all, by
the ControlNet or T2I-Adapter, by the readout head, by both. Prompts are the lines of a text file, in turn. ComfyUI's own detectors find what
is to be followed, and judge the images: SDPose, MoGe or Depth Anything 3, Canny. Few-step models: --steps 4 --sampler lcm --scheduler
sgm_uniform --cfg 1.

Please send your table: it goes into docs/peers.md."""


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py evaluate", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=here, required=True, help="the model, with its text encoder and VAE")
    parser.add_argument("--controlnet", type=here, help="a ControlNet or T2I-Adapter for it")
    parser.add_argument("--head", type=here, help="a readout head for it")
    folder = parser.add_mutually_exclusive_group(required=True)
    for kind in KINDS:
        folder.add_argument(f"--{kind}s", type=here, metavar="FOLDER", help=f"pictures whose {kind} is followed")
    parser.add_argument("--prompts", type=here, required=True, help="a text file, a prompt in each line")
    parser.add_argument("--detector", type=here, help="SDPose's checkpoint, or the file of MoGe or Depth Anything 3; edges need none")
    parser.add_argument("--negative", default="", help="the negative prompt")
    parser.add_argument("--side", type=int, default=512, help="of an image as large as a square of this side, in pixels; 1024 for SDXL")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sampler", choices=comfy.samplers.KSampler.SAMPLERS, default="dpmpp_2m", metavar="NAME")
    parser.add_argument("--scheduler", choices=comfy.samplers.KSampler.SCHEDULERS, default="karras", metavar="NAME")
    parser.add_argument("--cfg", type=float, default=7.0)
    parser.add_argument("--strength", type=float, default=1.0, help="of the ControlNet")
    parser.add_argument("--weight", type=float, default=1.0, help="of the target")
    parser.add_argument("--end", type=float, default=Spatial.end, help="end_percent of the target")
    parser.add_argument("--seed", type=int, default=0, help="of the first image; the next ones count on")
    parser.add_argument("--json", type=to_write)
    parser.add_argument("--sheet", type=to_write, help="a PNG of all images")
    options = parser.parse_args(arguments)
    if not (options.controlnet or options.head):
        parser.error("nothing is to be compared: give --controlnet, --head or both")
    if min(options.side // 64, options.steps) < 1:
        parser.error("--side must be 64 or more, and --steps 1 or more")
    options.kind = next(kind for kind in KINDS if getattr(options, f"{kind}s"))
    options.folder = getattr(options, f"{options.kind}s")
    what = KINDS[options.kind].detector_is
    if what and not options.detector:
        parser.error(f"--detector is missing: give {what}, which finds the {options.kind} in pictures and judges the images")
    return options


def prompts(file: Path) -> list[str]:
    """The lines that are not empty. Raises ValueError."""
    try:
        found = [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as text ({error}).") from error
    if not found:
        raise ValueError(f"{file} holds no prompts. Write one in each line.")
    return found
