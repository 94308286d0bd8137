"""Sums of products over bands of noise, which are too large to lie side by side on a GPU."""
import torch
from torch import Tensor


class Banded:
    """A sum of products for each band of noise, of one shape. The band that is added to lies where the numbers come from, the others in main
    memory: of a model with ten thousand channels each band's products take half a gigabyte."""

    def __init__(self, bands: int, shape: tuple[int, int], dtype: torch.dtype):
        self.parts, self.last = [torch.zeros(shape, dtype=dtype) for _ in range(bands)], 0

    def add(self, band: int, x: Tensor, y: Tensor) -> None:
        """Adds x'y [A, B] of rows [P, A] and [P, B], which lie on the same device."""
        if band != self.last:
            self.parts[self.last] = self.parts[self.last].cpu()
        self.parts[band], self.last = self.parts[band].to(x.device), band
        self.parts[band].addmm_(x.to(self.parts[band].dtype).mT, y.to(self.parts[band].dtype))

    def blend(self, band: int, shared: float, device: torch.device = torch.device("cpu")) -> Tensor:
        """All of them on `device` in float64, those n bands away times `shared`^n."""
        found = torch.zeros(self.parts[0].shape, dtype=torch.float64, device=device)
        for place, part in enumerate(self.parts):
            weight = shared ** abs(place - band)
            if weight:
                found.add_(part.to(device), alpha=weight)
        return found
