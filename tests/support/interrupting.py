"""An error at any one of torch's operations."""
import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import comfy.utils
from torch.utils._python_dispatch import TorchDispatchMode

Interrupted = comfy.model_management.InterruptProcessingException


class At(TorchDispatchMode):
    """Counts the operations of torch, and raises at one of them."""

    def __init__(self, place: int | None, error: BaseException = Interrupted()):
        super().__init__()
        self.place, self.error, self.count = place, error, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if self.count == self.place:
            raise self.error
        return func(*args, **(kwargs or {}))
