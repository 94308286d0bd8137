"""A guided run as images: what targets want, what is read, where they pull, and how their energies fall."""
import math
from collections.abc import Callable, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from ...rg_core.readout.views import View

TILE, MARGIN, LINE = 192, 8, 20      # pixels: a side of what is read, what is between, a line of text
COLUMNS = "wanted", "read", "pull"
INK, GROUND, FAINT = "#e8e8e8", "#202020", "#707070"
LINES = "#4fa3ff", "#ff8a3d", "#5fd068", "#e05fd0", "#f2d13d", "#50d5d5", "#ff5f5f", "#b0b0b0"
STRONGEST = 4.0                      # times the mean of a pull that is shown as white


def image(x: torch.Tensor) -> Image.Image:
    """The first of images [B, 1 or 3, h, w] in 0 to 1."""
    return to_pil_image(x[0].float().clamp(0, 1).mul(255).round().byte().cpu().expand(3, -1, -1))


def tile(image: Image.Image, side: int = TILE) -> Image.Image:
    """`image`, its longer side as long as this, in hard pixels where it is small."""
    share = side / max(image.size)
    size = tuple(max(1, round(n * share)) for n in image.size)
    return image.resize(size, Image.Resampling.NEAREST if share >= 2 else Image.Resampling.LANCZOS)


def font(size: int = 15) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)


def length(text: str) -> int:
    """Pixels."""
    return math.ceil(font().getlength(text))


def row(view: View, rgb: Callable[[torch.Tensor], Image.Image | None]) -> list[Image.Image | None]:
    """What there is of the first image under each of COLUMNS; `rgb(latents)` is what these roughly look like."""
    as_image = rgb if view.latent else image
    return [*(None if x is None else as_image(x) for x in (view.wanted, view.read)), image(view.pull / STRONGEST)]


def sheet(views: Sequence[View], rgb: Callable[[torch.Tensor], Image.Image | None], so_far: Image.Image | None = None,
          caption: str = "") -> Image.Image:
    """What there is of each of `views`, a row of tiles under COLUMNS; the image so far, if there is one, at their left, and a line below."""
    rows = [(f"{view.name}: {view.energy[0].item():.3g}", row(view, rgb)) for view in views]
    height = max(MARGIN + LINE + len(rows) * (TILE + LINE + MARGIN), 2 * TILE if so_far else 0)
    left = tile(so_far, height - 2 * MARGIN) if so_far else None
    start = 0 if left is None else left.width + 2 * MARGIN
    columns = len(COLUMNS) * (TILE + MARGIN) + MARGIN if rows else 0
    width = max(start + columns, length(caption) + 2 * MARGIN)
    canvas = Image.new("RGB", (width, height + (LINE + MARGIN if caption else 0)), GROUND)
    draw = ImageDraw.Draw(canvas)
    if left:
        canvas.paste(left, (MARGIN, MARGIN + (height - 2 * MARGIN - left.height) // 2))
    for i, name in enumerate(COLUMNS if rows else ()):
        draw.text((start + MARGIN + i * (TILE + MARGIN), MARGIN), name, FAINT, font())
    for y, (name, tiles) in enumerate(rows):
        top = MARGIN + LINE + y * (TILE + LINE + MARGIN)
        draw.text((start + MARGIN, top), name, INK, font())
        for i, image in enumerate(tiles):
            at = start + MARGIN + i * (TILE + MARGIN), top + LINE
            if image is None:
                draw.text(at, "-", FAINT, font())
            else:
                canvas.paste(tile(image), at)
    draw.text((MARGIN, height), caption, INK, font())
    return canvas


def side_by_side(names: Sequence[str], rows: Sequence[Sequence[Image.Image]], side: int) -> Image.Image:
    """`rows` of images under `names`, the longer side of each as long as this."""
    rows = [[tile(image, side) for image in images] for images in rows]
    widths = [max(length(name), *(images[i].width for images in rows)) for i, name in enumerate(names)]
    heights = [max(image.height for image in images) for images in rows]
    canvas = Image.new("RGB", (sum(widths) + MARGIN * (len(names) + 1), LINE + MARGIN + sum(heights) + MARGIN * len(rows)), GROUND)
    draw, left = ImageDraw.Draw(canvas), MARGIN
    for i, (name, width) in enumerate(zip(names, widths)):
        draw.text((left, MARGIN // 2), name, INK, font())
        top = LINE + MARGIN
        for images, height in zip(rows, heights):
            canvas.paste(images[i], (left, top))
            top += height + MARGIN
        left += width + MARGIN
    return canvas


def words(text: str) -> Image.Image:
    canvas = Image.new("RGB", (2 * TILE, TILE), GROUND)
    ImageDraw.Draw(canvas).text((TILE, TILE // 2), text, INK, font(), anchor="mm")
    return canvas


def batch(images: Sequence[Image.Image]) -> torch.Tensor:
    """An IMAGE [B, H, W, 3], as large as the largest; targets begin and end, so not every step has all their rows."""
    size = max(image.width for image in images), max(image.height for image in images)
    sheets = []
    for image in images:
        canvas = Image.new("RGB", size, GROUND)
        canvas.paste(image, (0, 0))
        sheets.append(pil_to_tensor(canvas))
    return torch.stack(sheets).movedim(1, -1).float() / 255


def plot(rows: list[dict], size: tuple[int, int] = (768, 480)) -> Image.Image:
    """The energies of a trace over the moves of its guided steps, each target's over its largest, the mean over the batch; `size` is
    (width, height)."""
    def place(entry: dict) -> tuple[float, int]:
        return entry["sigma"], entry.get("move", 1)

    steps = {where: step for step, where in enumerate(dict.fromkeys(map(place, rows)))}
    given = {}
    for entry in rows:  # context windows and tiles have several at a step
        given.setdefault(entry["target"], {}).setdefault(steps[place(entry)], []).extend(entry["energy"])
    means = {name: {step: sum(energy) / len(energy) for step, energy in values.items()} for name, values in given.items()}
    shares = {name: {step: e / (max(map(abs, values.values())) or 1.0) for step, e in values.items()} for name, values in means.items()}
    count, every = len(steps), [share for values in shares.values() for share in values.values()]
    low, high = min(0.0, *every), max(1.0, *every)
    width, height = size
    left, top, right, bottom = 56, MARGIN + LINE, width - 2 * MARGIN, height - 2 * LINE - MARGIN
    canvas = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(canvas)

    def at(step: float, share: float) -> tuple[float, float]:
        return left + (right - left) * step / max(1, count - 1), bottom - (bottom - top) * (share - low) / (high - low)

    for share in ticks(low, high):
        draw.line([at(0, share), at(max(1, count - 1), share)], "#3a3a3a")
        draw.text((left - MARGIN, at(0, share)[1]), f"{share:g}", INK, font(), anchor="rm")
    for step in sorted({round(s) for s in ticks(0, count - 1)} if count > 1 else {0}):
        draw.text((at(step, low)[0], bottom + 4), str(step + 1), INK, font(), anchor="mt")
    draw.text((left, 4), "energy, relative to its maximum", FAINT, font())
    draw.text((right, height - 4), "move", FAINT, font(), anchor="rb")
    for i, (name, values) in enumerate(shares.items()):
        color, points = LINES[i % len(LINES)], [at(step, share) for step, share in values.items()]
        draw.line(points, color, 3, joint="curve")
        draw.text((right - 4, top + i * LINE), name, color, font(), anchor="ra")
        for x, y in (*points, (right - 12 - length(name), top + i * LINE + 9)):
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), GROUND if i // len(LINES) % 2 else color, color, 2)  # rings tell colors that come again
    return canvas


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, at most so many steps."""
    span = max(high - low, 1e-9)
    power = 10.0 ** torch.tensor(span / most).log10().floor().item()
    step = next(power * k for k in (1, 2, 5, 10) if span / (power * k) <= most)
    first = -(-low // step)
    return [round(step * n, 10) for n in range(int(first), int(high / step + 1e-9) + 1)]
