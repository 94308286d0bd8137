"""Maps at another size."""
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`x` [B, C, h, w] bilinearly resized to `size` (H, W), pixel corners not aligned.

    As two products of matrices: the backward pass of torch's own resize takes most of a head's time on a CPU.
    """
    rows, columns = (interpolation(n, m, x.device, x.dtype) for n, m in zip(x.shape[-2:], size))
    x = x if columns is None else x @ columns.mT
    return x if rows is None else rows @ x


def size_of(x: Tensor) -> tuple[int, int]:
    """(H, W) of `x` [..., H, W]."""
    height, width = x.shape[-2:]
    return height, width


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def interpolation(n: int, m: int, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """The matrix [m, n] that resizes n numbers to m; None if that is the identity."""
    if n == m:
        return None
    one = torch.eye(n, dtype=dtype)[None]
    return F.interpolate(one, size=m, mode="linear")[0].T.contiguous().to(device)
