"""`python run.py demo [--json FILE]`: the shipped workflows in a real ComfyUI, a contact sheet and the measured control."""
import argparse
import json
import time
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from readout_guidance_pack.heads.demo import judge, world
from tools import ROOT, end, to_write, write_json
from tools.assets import templates
from tools.benchmarks.device import device_name
from tools.host.server import Server, WorkflowFailed

OUTPUT = ROOT / "output"
ROWS = ("target", "unguided", "guided")
SHOWN = {"pose": ("pck",), "depth": ("mae",), "edge": ("fscore",), "pose+depth": ("pck", "mae"), "drag": ("distance",),
         "drag given": ("distance",), "appearance": ("clothes_change",), "identity": ("clothes_change", "pck"), "fit": ("mae",),
         "attribute": ("share",), "transformer pose": ("pck",), "transformer drag": ("distance",)}
CELL, MARGIN, LABEL = 128, 4, 76


def load(paths: list[Path]) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in paths]


def tensor(images: list[Image.Image]) -> torch.Tensor:
    """Pictures of one size as [B, 3, H, W] in 0 to 1."""
    pixels = [torch.frombuffer(bytearray(i.tobytes()), dtype=torch.uint8).view(i.height, i.width, 3) for i in images]
    return torch.stack(pixels).permute(0, 3, 1, 2) / 255


def widgets(workflow: dict, kind: str, title: str | None = None) -> list:
    return next(node["widgets_values"] for node in workflow["nodes"]
                if node["type"] == kind and (title is None or node.get("title") == title))


def target_of(workflow: dict) -> world.Sample:
    """The scenes that targets are taken from, where there are others too those titled so."""
    count = sum(node["type"] == "ReadoutDemoScene" for node in workflow["nodes"])
    seed, _, width, height, batch = widgets(workflow, "ReadoutDemoScene", "Scenes to take poses from" if count > 1 else None)
    return world.draw(batch, height, width, seed=seed)


def prompt_of(workflow: dict, batch: int) -> world.Sample:
    """What the workflow's prompt asks for, as a Sample of `batch` pictures of which only the colors count."""
    said = widgets(workflow, "CLIPTextEncode", "Prompt")[0]
    every = world.draw(batch, seed=0)
    find = [next(i for i, word in enumerate(words) if f"{word}{suffix}" in said)
            for words, suffix in ((world.CLOTHES, " shirt"), (world.CLOTHES, " trousers"), (world.SCENES, ""))]
    every.shirt, every.trousers, every.scene = (torch.full((batch,), index) for index in find)
    return every


def sheet(pictures: dict[str, dict[str, list[Image.Image]]]) -> Image.Image:
    """A block for each workflow: target or reference, unguided and guided pictures below each other."""
    columns = max(len(images) for rows in pictures.values() for images in rows.values())
    step = CELL + MARGIN
    image = Image.new("RGB", (LABEL + columns * step, len(pictures) * (3 * step + 24)), "white")
    draw = ImageDraw.Draw(image)
    for block, (name, rows) in enumerate(pictures.items()):
        top = block * (3 * step + 24)
        draw.text((6, top + 6), name, fill="black")
        for r, row in enumerate(ROWS):
            draw.text((6, top + 24 + r * step + CELL // 2), row, fill="black")
            for c, picture in enumerate(rows[row]):
                shrinks = picture.width > CELL
                cell = picture.resize((CELL, CELL), Image.Resampling.LANCZOS if shrinks else Image.Resampling.NEAREST)
                image.paste(cell, (LABEL + c * step, top + 24 + r * step))
    return image


def run(server: Server, control: str) -> tuple[dict[str, list[Image.Image]], dict]:
    """Runs one workflow; its pictures by row, and its figures by setting."""
    workflow = json.loads(templates.path(control).read_text())
    start, seen = time.monotonic(), [0.0]

    def progress(node: str, step: int, total: int) -> None:
        if time.monotonic() - seen[0] > 5 or step == total:
            seen[0] = time.monotonic()
            print(f"  {control}: {node} step {step} of {total}, {time.monotonic() - start:.0f} s", flush=True)

    files = server.files(server.run(workflow, progress))
    saved = {row: load(paths) for row in ROWS for paths in files.values() if paths[0].name.startswith(f"{control}_{row}")}
    # A picture that is dragged as soon as it was made is its own unguided one.
    rows = {row: saved.get(row, saved["target"]) for row in ROWS}
    return rows, {row: measure(workflow, {name: tensor(images) for name, images in rows.items()}, row) for row in ROWS[1:]}


def measure(workflow: dict, pictures: dict[str, torch.Tensor], row: str) -> dict[str, float]:
    """What the workflow is judged by, of the pictures of `row`."""
    kinds, image = {node["type"] for node in workflow["nodes"]}, pictures[row]
    if "ReadoutDragTarget" in kinds:
        drags = json.loads(widgets(workflow, "ReadoutDragTarget")[0])
        start, place = (torch.tensor([[drag[end] for drag in drags]]) * image.shape[-1] for end in (0, -1))
        joint = (judge.joints(pictures["target"])[0] - start[:, :1]).norm(dim=-1).argmin(1)
        values = {"distance": judge.distance(image, joint, place[:, 0], start[:, 0]),
                  "clothes_change": judge.clothes_change(image, pictures["target"])}
    elif "ReadoutReference" in kinds:
        values = {"clothes_change": judge.clothes_change(image, pictures["target"].expand_as(image))}
        if "ReadoutPoseTarget" in kinds:
            scene = target_of(workflow)
            values["pck"] = judge.pck(image, scene.joints, scene.height)
    elif "ReadoutAttributeTarget" in kinds:
        values = {"share": judge.ATTRIBUTES[widgets(workflow, "FitReadoutAttribute")[0]](image)}
    else:
        scene = target_of(workflow)
        return judge.figures(image, scene, prompt_of(workflow, len(scene.image)))
    values |= {"valid": judge.valid(image), "texture": judge.texture(image)}
    return {name: round(value.mean().item(), 4) for name, value in values.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=to_write)
    options = parser.parse_args()
    pictures, figures, failed = {}, {}, []
    print("starting ComfyUI", flush=True)
    with Server(OUTPUT) as server:
        print(f"ComfyUI runs at {server.address}", flush=True)
        for control in sorted(templates.DEMO):
            name = control.replace("_and_", "+").replace("_", " ")
            try:
                pictures[name], figures[name] = run(server, control)
            except WorkflowFailed as error:
                failed.append(name)
                print(f"  {control} failed: {error}", flush=True)
    if pictures:
        sheet(pictures).save(OUTPUT / "contact_sheet.png")
        print(f"\nContact sheet: {(OUTPUT / 'contact_sheet.png').relative_to(ROOT)}; all pictures: output/readout\n")
        for control, settings in figures.items():
            for setting, values in settings.items():
                print(f"{control:12} {setting:9} " + "  ".join(
                    f"{name}{'*' if name in SHOWN.get(control, ()) else ''} {value:.3f}" for name, value in values.items()))
        print("* what the control is judged by. pck, fscore, share, valid: more is better; mae, distance, clothes_change, texture, "
              "color_error: less.")
    if options.json:
        report = {"device": device_name(), "seeds": max((len(rows["guided"]) for rows in pictures.values()), default=0), "controls": figures}
        write_json(options.json, report)
    return 1 if failed else 0


if __name__ == "__main__":
    end("demo", main)
