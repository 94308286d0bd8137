"""Bars of one color at the edges of an image, where padding was put beside it."""
from torch import Tensor

ALIKE, STEP = 0.05, 0.1  # of brightness: how far a bar's pixels differ at most, and those beside it from them at least
MOST = 0.5               # of the pixels beside a bar must do so
BLENDED = 1              # line beside a bar, which resizing may have mixed with it


def bars(image: Tensor, paired: bool) -> tuple[int, int, int, int]:
    """How thick the bars of `image` [C, H, W] are: top, bottom, left and right. An image may itself end in one color, as a depth map in its sky:
    where that can be, only those count that are `paired`, alike on two opposite sides and on no others. In lines on black all count that are
    not black."""
    sides = [lines for way in (image.permute(1, 2, 0), image.permute(2, 1, 0)) for lines in (way, way.flip(0))]  # [N, M, C]
    found = [bar(lines) for lines in sides]
    if paired:
        grounds = [all(run for run, _ in found[2 - i:4 - i]) for i in (0, 2)]  # what goes on along both other sides is a ground
        pairs = [[0, 0] if ground else pair(sides[i:i + 2], found[i:i + 2]) for i, ground in zip((0, 2), grounds)]
        widths = [*pairs[0], *pairs[1]]
    else:
        widths = [run if ends and lines[0, 0].max() > STEP else 0 for (run, ends), lines in zip(found, sides)]
    top, bottom, left, right = [n + BLENDED if n else 0 for n in widths]
    height, width = image.shape[-2:]
    return (top, bottom, left, right) if top + bottom < height and left + right < width else (0, 0, 0, 0)


def bar(lines: Tensor) -> tuple[int, bool]:
    """How many of `lines` [N, M, C] from the first on have its color alone, and whether most of the next one has not."""
    off = (lines - lines[0, 0]).abs().amax(-1)
    run = int((off <= ALIKE).all(1).long().cumprod(0).sum())
    return run, run < len(lines) and bool((off[run] > STEP).float().mean() >= MOST)


def pair(sides: list[Tensor], found: list[tuple[int, bool]]) -> list[int]:
    """How thick the bars on two opposite sides are; the image may go on in a bar's color on one of them."""
    ended = [run for run, ends in found if ends]
    width, most = min(ended, default=0), max(ended, default=0)
    if not 0 < width >= most - 1 or min(run for run, _ in found) < max(1, width - 1) or (sides[0][0, 0] - sides[1][0, 0]).abs().max() > ALIKE:
        return [0, 0]
    return [run if run <= most else width for run, _ in found]
