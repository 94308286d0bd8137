"""What a reference is, and what is kept of it between runs."""
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import psutil
from comfy_api.latest import io
from torch import Tensor

from ...rg_core.guidance import trajectories
from ..common.latents import family
from ..common.log import log

CACHE_MB = 1024
SHORT = 0.1  # of main memory: with less of it left the host lets go of what nodes gave, but cannot see what a reference keeps


@dataclass(eq=False)
class Reference:
    """An image at every noise level, and what heads have read of it so far."""
    trajectory: trajectories.Trajectory  # in the scale of the model's sampler, on the CPU
    conditioning: list                 # the host's CONDITIONING that it was made with
    family: str                        # of models that it belongs to
    downscale: int                     # pixels for each latent
    cache_mb: int = CACHE_MB
    # For each MODEL, as the graph hands it over, the readouts by head and noise level, in main memory.
    readouts: WeakKeyDictionary = field(default_factory=WeakKeyDictionary)
    warned: bool = False

    def keep(self, model, key: tuple, readout: Tensor, used: set[tuple]) -> None:
        """Keeps a readout for the next run. Where the budget is spent, those that this run has not `used` make room; where main memory is short, all
        are let go."""
        memory = psutil.virtual_memory()
        if memory.available - readout.nbytes < SHORT * memory.total:
            return self.readouts.clear()
        readout, mine = readout.cpu(), self.readouts.get(model)
        room = self.cache_mb * 2**20 - readout.nbytes - sum(r.nbytes for known in self.readouts.values() for r in known.values())
        for known in list(self.readouts.values()):
            for old in [k for k in known if known is not mine or k not in used]:
                if room < 0:
                    room += known.pop(old).nbytes
        if room >= 0:
            self.readouts.setdefault(model, {})[key] = readout
        elif not self.warned:
            self.warned = True
            log.warning("Readout reference: what heads read from it needs more memory than cache_mb, %d MB, so the rest is recomputed in every run. "
                        "To save that time, raise cache_mb on the node that made the reference.", self.cache_mb)


def wrap(model, trajectory: trajectories.Trajectory, conditioning: list, cache_mb: int) -> Reference:
    return Reference(trajectory, conditioning, family(model), model.get_model_object("latent_format").spacial_downscale_ratio, cache_mb)


CACHE = io.Int.Input("cache_mb", default=CACHE_MB, min=0, max=65536, advanced=True,
                     tooltip="RAM in MB for keeping what heads read from this reference, so that the next run does not read it again.")
