"""Update rules: from a gradient to a move. Each keeps pictures of a batch apart."""
from torch import Tensor

EPSILON = 1e-8


def rms(gradient: Tensor) -> Tensor:
    """The gradient [B, ...] of each picture over its root mean square: direction kept, size 1."""
    size = gradient.float().flatten(1).square().mean(1).sqrt().clamp(min=1e-30)
    return gradient.float() / size.view(-1, *[1] * (gradient.ndim - 1))


def sign(gradient: Tensor) -> Tensor:
    """g / (|g| + eps), element by element: the first step of Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1)
    from a fresh state, which is what the published code of Readout Guidance does."""
    gradient = gradient.float()
    return gradient / (gradient.abs() + EPSILON)


FORMS = {"rms": rms, "sign": sign}
