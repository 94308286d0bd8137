"""The README's pictures and the templates': `python -m tools.assets.pictures` with run.py's environment writes docs/pictures/ and workflows/*.jpg.

steered.png: what was asked for, without guidance, and guided, of six scenes. drag.gif: ten seconds of a drag of a given picture along its way. The
pictures of the demo's templates are of a run of each in a server; those for published models have the demo's.
"""
import json
import shutil

import torch
from PIL import Image, ImageDraw
from torchvision.transforms.functional import to_pil_image

from readout_guidance_pack.nodes.common.drawing import GROUND, INK, font, tile
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.nodes.targets.drag_path import DragPath
from readout_guidance_pack.rg_core.guidance.targets import Drag
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools import ROOT, demo
from tools.assets import templates
from tools.host.server import Server
from tools.tables.control import Bench, Setting
from tools.tables.relations import to_be_dragged

FOLDER = ROOT / "docs" / "pictures"
EACH, SIDE, GAP, LEFT, LINE = 2, 168, 6, 96, 26  # scenes of a control, and pixels
FRAMES, SECONDS, DRAGS, DRAGGED = 11, 10, 6, 1  # of the drag, and which of so many


def steered() -> Image.Image:
    bench = Bench(EACH)
    kinds = {"pose": "a pose", "depth": "a depth map", "edge": "edges"}
    plain = bench.sample((), Setting())
    columns = {kind: (bench.images[kind].movedim(-1, 1), plain, bench.sample((kind,), Setting(Move()))) for kind in kinds}
    width, height = LEFT + len(kinds) * EACH * (SIDE + GAP), LINE + 3 * (SIDE + GAP)
    canvas = Image.new("RGB", (width, height), GROUND)
    draw = ImageDraw.Draw(canvas)
    for row, name in enumerate(("asked for", "without", "guided")):
        draw.text((GAP, LINE + row * (SIDE + GAP) + SIDE // 2), name, INK, font())
    for column, kind in enumerate(kinds):
        left = LEFT + column * EACH * (SIDE + GAP)
        draw.text((left, GAP), kinds[kind], INK, font())
        for row, images in enumerate(columns[kind]):
            for i, image in enumerate(images):
                canvas.paste(tile(to_pil_image(image.clamp(0, 1)), SIDE), (left + i * (SIDE + GAP), LINE + row * (SIDE + GAP)))
    return canvas


def dragged() -> list[Image.Image]:
    """The pictures along the way, each with the arrow."""
    bench, plan, given, starts = to_be_dragged(DRAGS)
    bench.heads = {}
    said, noise, reference = starts[DRAGGED]
    targets, latents = DragPath.execute(bench.drag_targets(plan, DRAGGED, reference, Drag.end, False), noise, FRAMES).args
    images = bench.picture(bench.ksampler(guided("pictures", bench.model, targets, Move()), said, latents, sampler="euler", noise=False))
    (start, place), frames = json.loads(plan.json(DRAGGED))[0], []
    for image in images:
        frame = tile(to_pil_image(image.clamp(0, 1)), 2 * SIDE)
        draw = ImageDraw.Draw(frame)
        ends = [tuple(share * side for share, side in zip(end, frame.size)) for end in (start, place)]
        draw.line(ends, "white", 2)
        draw.ellipse([ends[1][0] - 5, ends[1][1] - 5, ends[1][0] + 5, ends[1][1] + 5], outline="white", width=2)
        frames.append(frame)
    return frames


def of_a_template(server: Server, control: str) -> Image.Image:
    """What was asked for, without guidance and guided: a row each, or side by side where there is one of each."""
    pictures, _figures = demo.run(server, control)
    rows = [images for row, images in pictures.items() if row != "unguided" or images is not pictures["target"]]
    if len(rows[-1]) == 1:
        rows = [[images[0] for images in rows]]
    columns = max(map(len, rows))
    side = max(128, 380 // columns)
    canvas = Image.new("RGB", (columns * (side + GAP) - GAP, len(rows) * (side + GAP) - GAP), "white")
    for r, images in enumerate(rows):
        for c in range(columns):
            canvas.paste(tile(images[c % len(images)], side), (c * (side + GAP), r * (side + GAP)))
    return canvas


@torch.inference_mode()
def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    steered().save(FOLDER / "steered.png", optimize=True)
    frames = dragged()
    there_and_back = [*frames, *frames[-2:0:-1]]
    palette = Image.new("RGB", (2 * SIDE, len(frames) * 2 * SIDE))  # one for all, or colors would flicker
    for i, frame in enumerate(frames):
        palette.paste(frame, (0, i * 2 * SIDE))
    palette = palette.quantize(255)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in there_and_back]
    first.save(FOLDER / "drag.gif", save_all=True, append_images=rest, duration=SECONDS * 1000 // len(there_and_back), loop=0)
    with Server(demo.OUTPUT) as server:
        for control in templates.DEMO:
            of_a_template(server, control).save(templates.path(control).with_suffix(".jpg"), quality=88)
    for name, picture in templates.pictures().items():
        shutil.copy(picture, templates.FOLDER / name)


if __name__ == "__main__":
    main()
