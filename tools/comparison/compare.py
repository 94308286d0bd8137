"""Samples each picture in each way, judges the images, and shows table and sheet."""
import argparse
import math
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import nodes as host_nodes
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from readout_guidance_pack.nodes.common import model_checks
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools import write_json
from tools.benchmarks.device import device_name
from tools.comparison.controls import KINDS, NODE
from tools.comparison.options import options_of, prompts
from tools.host import checkpoints, folders

STRIDE = 64          # of an image's sides, as all models take them
CELL, LABEL = 192, 18
HINT = "given"


class Comparison:
    """Somebody's files, and what is made with them."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.prompts = options, prompts(options.prompts)
        self.files = followed(options.folder, KINDS[options.kind].suffixes)
        self.model, self.clip, self.vae = checkpoints.whole_checkpoint(options.checkpoint)
        self.encoded = cache(self.encode)  # each picture's prompt is for all ways
        self.net = checkpoints.controlnet(options.controlnet) if options.controlnet else None
        self.head = checkpoints.head(options.head) if options.head else None
        if self.head:
            model_checks.heads_fit(NODE, self.model, [self.head])
        self.control = KINDS[options.kind](options.detector)
        self.ways = ["unguided"] + ["ControlNet"] * bool(self.net) + ["readouts"] * bool(self.head) + ["both"] * bool(self.net and self.head)

    def encode(self, words: str) -> list:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(words))

    def image(self, way: str, number: int, given) -> Tensor:
        """The image [1, H, W, 3] that one way makes of what is given."""
        options, model = self.options, self.model
        positive, negative = self.encoded(self.prompts[number % len(self.prompts)]), self.encoded(options.negative)
        if way in ("ControlNet", "both"):
            positive, negative = host_nodes.ControlNetApplyAdvanced().apply_controlnet(
                positive, negative, self.net, self.control.hint(given), options.strength, 0.0, 1.0, vae=self.vae)
        if way in ("readouts", "both"):
            target = self.control.target(self.head, given, weight=options.weight, start_percent=0.0, end_percent=options.end)
            model = guided(NODE, model, target, Move())
        height, width = sides(self.control.size(given), options.side)
        latent, = host_nodes.EmptyLatentImage().generate(width, height, 1)
        latent, = host_nodes.common_ksampler(model, options.seed + number, options.steps, options.cfg, options.sampler, options.scheduler, positive,
                                             negative, latent)
        return self.vae.decode(latent["samples"]).cpu()

    def rows(self):
        """Of each file what was given, and by way its image, its figures and its seconds."""
        for number, file in enumerate(self.files):
            try:
                given = self.control.given(file)
            except ValueError as error:
                print(f"{NODE}: left out: {error}", flush=True)
                continue
            made = {}
            for way in self.ways:
                start = time.monotonic()
                image = self.image(way, number, given)
                took = time.monotonic() - start
                made[way] = image, self.control.figures(image, given) | {"seconds": took}
                print(f"{NODE}: {number + 1} of {len(self.files)}, {file.name}, {way}: " + shown(made[way][1]), flush=True)
            yield file.name, self.control.hint(given), made


def followed(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The pictures of a folder and its files of these endings. Raises ValueError."""
    more = sorted(path for path in folder.glob("*") if path.suffix.lower() in suffixes) if folder.is_dir() else []
    try:
        return more + list(folders.images(folder).values())
    except folders.FolderError:
        if more:
            return more
        raise


def sides(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width of an image of the shape of `size` and about the area of a square of `side`, in whole STRIDEs."""
    scale = side / math.sqrt(size[0] * size[1])
    height, width = (max(1, round(x * scale / STRIDE)) * STRIDE for x in size)
    return height, width


def shown(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in figures.items())


def means(rows: list[dict], ways: list[str]) -> dict[str, dict[str, float]]:
    return {way: {name: sum(row[way][name] for row in rows) / len(rows) for name in rows[0][way]} for way in ways}


def sheet(rows: list[tuple[str, Tensor, dict]], ways: list[str]) -> Image.Image:
    """A line for each file: what was given, and each way's image."""
    image = Image.new("RGB", ((len(ways) + 1) * CELL, LABEL + len(rows) * CELL), "white")
    draw = ImageDraw.Draw(image)
    for column, label in enumerate([HINT, *ways]):
        draw.text((column * CELL + 4, 3), label, fill="black")
    for line, (_, hint, made) in enumerate(rows):
        for column, picture in enumerate([hint, *(made[way] for way in ways)]):
            cell = to_pil_image(picture[0].movedim(-1, 0).clamp(0, 1))
            cell.thumbnail((CELL - 2, CELL - 2))
            image.paste(cell, (column * CELL, LABEL + line * CELL))
    return image


@torch.inference_mode()
def compare(options: argparse.Namespace) -> dict:
    comparison = Comparison(options)
    pictures, figures = [], []
    for name, hint, made in comparison.rows():
        pictures.append((name, hint, {way: image for way, (image, _) in made.items()}))
        figures.append({way: found for way, (_, found) in made.items()})
        if options.sheet:  # after each, for runs of hours
            sheet(pictures, comparison.ways).save(options.sheet, format="png")
    if not figures:
        raise ValueError(f"nothing in {options.folder} could be followed.")
    result = means(figures, comparison.ways)
    print(f"\n{len(figures)} pictures, {options.kind}, {options.steps} steps of {options.sampler} {options.scheduler}, cfg {options.cfg:g}")
    for way, found in result.items():
        print(f"  {way:12} {shown(found)}")
    about = {name: value.name for name in ("checkpoint", "controlnet", "head", "detector") if (value := getattr(options, name))}
    run = {name: getattr(options, name) for name in ("kind", "steps", "sampler", "scheduler", "cfg", "strength", "weight", "end", "side")}
    return {"device": device_name(), "files": about, "run": run, "pictures": len(figures), "means": result,
            "each": {name: found for (name, _, _), found in zip(pictures, figures)}}


def main(arguments: Sequence[str] | None = None) -> int:
    options = options_of(arguments)
    try:
        result = compare(options)
    except (OSError, ValueError) as error:
        print(f"{NODE}: {str(error).removeprefix(f'{NODE}: ')}", file=sys.stderr)
        return 1
    if options.json:
        write_json(options.json, result)
    return 0
