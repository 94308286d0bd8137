"""Heads that compare, in closed form: a projection of the taps in which what should not matter is white.

Between two readings of the same thing, features differ by x - x'; between two things that should be told apart by other differences.
The projection keeps the directions in which the second differ most beside the first (Fisher, "The use of multiple measurements in
taxonomic problems", 1936; the scaling to unit differences of the same is the within-class covariance normalisation of Hatch et al.,
Interspeech 2006), and scales each by how much its product tells in the likelihood ratio of same and different (Ioffe, "Probabilistic
linear discriminant analysis", ECCV 2006), so that the cosine that guidance compares by is close to that ratio.
"""
import torch
from torch import Tensor

ROUNDS, SPARE = 10, 32  # of the iteration that finds the directions, and how many more it follows than are wanted


class Differences:
    """The products of features' differences seen so far, for each band of noise: `same` [bands, F, F], of what should read alike,
    and `other`, likewise, of what should be told apart; and the features' mean [bands, F]."""

    def __init__(self, bands: int, features: int, dtype: torch.dtype = torch.float32):
        self.same, self.other = (torch.zeros(bands, features, features, dtype=dtype) for _ in range(2))
        self.total = torch.zeros(bands, features, dtype=dtype)
        self.counts = torch.zeros(3, bands, dtype=torch.float64)

    def add(self, band: int, x: Tensor, same: Tensor, other: Tensor) -> None:
        """Features [P, F] of some places, those of the same places in another picture, and those of others, likewise."""
        for k, (sums, rows) in enumerate(((self.same, x - same), (self.other, x - other))):
            sums[band] += (rows.mT @ rows).to(sums)
            self.counts[k, band] += len(rows)
        self.total[band] += x.sum(0).to(self.total)
        self.counts[2, band] += len(x)

    def mean(self, which: int, band: int, shared: float) -> Tensor:
        """Of the products of the same (0), those of others (1) or the features (2), float64, in which what was seen n bands away
        counts `shared`^n."""
        sums = (self.same, self.other, self.total)[which]
        places = torch.arange(len(sums), dtype=torch.float64)
        weights = torch.tensor(float(shared), dtype=torch.float64) ** (places - band).abs()
        return sum(x.double() * w for w, x in zip(weights, sums) if w) / (weights @ self.counts[which])

    def maps(self, outputs: int, ridge: float, shared: float = 0.0) -> list[tuple[Tensor, Tensor]]:
        """For each band the map [F, O] and bias [O], float64, O at most `outputs`, with `ridge` times its own added to the square that
        each feature of the same differs by. Each is turned to read as nearly as it can what the one before reads, so that maps of two
        bands may be blended; a turn leaves cosines as they are (orthogonal Procrustes: Schoenemann, Psychometrika 1966)."""
        found: list[tuple[Tensor, Tensor]] = []
        for band in range(len(self.same)):
            same, other = (self.mean(which, band, shared) for which in (0, 1))
            own = same.diagonal().clone()
            same.diagonal().add_(own * ridge + own.mean() * 1e-9)
            ratios, axes = leading(same, other, outputs)
            signal = (ratios - 1).clamp(min=0)  # what others differ by more than the same
            axes = axes * (signal / (2 * signal + 1)).sqrt()
            if found:
                left, _, right = torch.linalg.svd(axes.mT @ other @ found[-1][0])
                axes = axes @ (left @ right)
            found.append((axes, -self.mean(2, band, shared) @ axes))
        return found


def leading(same: Tensor, other: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest ratios a'Ba / a'Aa of B = `other` over A = `same` [F, F], which is positive definite, and their directions
    [F, count] with a'Aa = 1. By subspace iteration (Golub and Van Loan, Matrix Computations, section 8.2.4): all of them would take minutes
    for the ten thousand features of a large model."""
    root = torch.linalg.cholesky(same)

    def whitened(x: Tensor) -> Tensor:  # the product of B between two inverse roots of A
        x = other @ torch.linalg.solve_triangular(root.mT, x, upper=True)
        return torch.linalg.solve_triangular(root, x, upper=False)

    start = torch.randn(len(same), min(len(same), count + SPARE), generator=torch.Generator().manual_seed(0), dtype=same.dtype)
    axes = torch.linalg.qr(start).Q
    for _ in range(ROUNDS):
        axes = torch.linalg.qr(whitened(axes)).Q
    ratios, turn = torch.linalg.eigh(axes.mT @ whitened(axes))
    axes = axes @ turn.flip(1)[:, :count]
    return ratios.flip(0)[:count], torch.linalg.solve_triangular(root.mT, axes, upper=True)
