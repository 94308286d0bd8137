"""Heads that compare, in closed form: a projection of the taps in which what should not matter is white.

Between two readings of the same thing, features differ by x - x'; between two things that should be told apart by other differences.
The projection keeps the directions in which the second differ most beside the first (Fisher, "The use of multiple measurements in
taxonomic problems", 1936; the scaling to unit differences of the same is the within-class covariance normalisation of Hatch et al.,
Interspeech 2006), and scales each by how much its product tells in the likelihood ratio of same and different (Ioffe, "Probabilistic
linear discriminant analysis", ECCV 2006), so that the cosine that guidance compares by is close to that ratio.
"""
import torch
from torch import Tensor

from .banded import Banded

ROUNDS, SPARE = 10, 32  # of the iteration that finds the directions, and how many more it follows than are wanted


class Differences:
    """The products of features' differences seen so far, for each band of noise: `same` [bands, F, F], of what should read alike,
    and `other`, likewise, of what should be told apart; and the features' mean [bands, F]."""

    def __init__(self, bands: int, features: int, dtype: torch.dtype = torch.float32):
        self.same, self.other = (Banded(bands, (features, features), dtype) for _ in range(2))
        self.total, self.count = Banded(bands, (1, features), dtype), Banded(bands, (1, 1), torch.float64)

    def add(self, band: int, x: Tensor, same: Tensor, other: Tensor) -> None:
        """Features [P, F] of some places, those of the same places in another image, and those of others, likewise."""
        one = x.new_ones(len(x), 1)
        self.same.add(band, x - same, x - same)
        self.other.add(band, x - other, x - other)
        self.total.add(band, one, x)
        self.count.add(band, one, one)

    def mean(self, sums: Banded, band: int, shared: float, device: torch.device) -> Tensor:
        """Of one of the sums, in which what was seen n bands away counts `shared`^n, float64."""
        return sums.blend(band, shared, device).div_(self.count.blend(band, shared, device))

    def maps(self, outputs: int, ridge: float, shared: float = 0.0,
             device: torch.device = torch.device("cpu")) -> list[tuple[Tensor, Tensor]]:
        """For each band the map [F, O] and bias [O], float64, computed on `device`, O at most `outputs`, with `ridge` times its own added to
        the square that each feature of the same differs by. Each is turned to read as nearly as it can what the one before reads, so that maps of two
        bands may be blended; a turn leaves cosines as they are (orthogonal Procrustes: Schoenemann, Psychometrika 1966)."""
        found: list[tuple[Tensor, Tensor]] = []
        for band in range(len(self.same.parts)):
            same, other = (self.mean(sums, band, shared, device) for sums in (self.same, self.other))
            own = same.diagonal().clone()
            same.diagonal().add_(own * ridge + own.mean() * 1e-9)
            ratios, axes = leading(same, other, outputs)
            signal = (ratios - 1).clamp(min=0)  # what others differ by more than the same
            axes = axes * (signal / (2 * signal + 1)).sqrt()
            if found:
                left, _, right = torch.linalg.svd(axes.mT @ other @ found[-1][0])
                axes = axes @ (left @ right)
            found.append((axes, -self.mean(self.total, band, shared, device)[0] @ axes))
        return [(axes.cpu(), bias.cpu()) for axes, bias in found]


def leading(same: Tensor, other: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest ratios a'Ba / a'Aa of B = `other` over A = `same` [F, F], which is positive definite, and their directions
    [F, count] with a'Aa = 1. By subspace iteration (Golub and Van Loan, Matrix Computations, section 8.2.4): all of them would take minutes
    for the ten thousand features of a large model. torch.lobpcg took 15 times as long for 64 of 704, and the worst ratio was 45 % off after 50
    rounds where these ten leave 1e-8."""
    root = torch.linalg.cholesky(same)

    def whitened(x: Tensor) -> Tensor:  # the product of B between two inverse roots of A
        x = other @ torch.linalg.solve_triangular(root.mT, x, upper=True)
        return torch.linalg.solve_triangular(root, x, upper=False)

    start = torch.randn(len(same), min(len(same), count + SPARE), generator=torch.Generator().manual_seed(0), dtype=same.dtype).to(same.device)
    axes = torch.linalg.qr(start).Q
    for _ in range(ROUNDS):
        axes = torch.linalg.qr(whitened(axes)).Q
    ratios, turn = torch.linalg.eigh(axes.mT @ whitened(axes))
    axes = axes @ turn.flip(1)[:, :count]
    return ratios.flip(0)[:count], torch.linalg.solve_triangular(root.mT, axes, upper=True)
