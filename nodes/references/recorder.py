"""A sampling, recorded as a reference."""
import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ...rg_core.guidance import trajectories
from ..common import checks
from .reference import Reference, wrap

KEY = "readout_reference"


def record_trajectory(model):
    """Has MODEL, in place, record its next sampling; returns what makes the image a reference then: a function of the node's
    name, the image's samples, its conditioning and cache_mb."""
    knots: dict[float, Tensor] = {}

    def record(executor, x, timestep, *args, **kwargs):
        # Samplers that try points before they step end up at the last one for a sigma.
        knots[float(timestep.max())] = x.to("cpu", torch.float32, copy=True)
        return executor(x, timestep, *args, **kwargs)

    def reference(node: str, samples: Tensor, conditioning: list, cache_mb: int) -> Reference:
        knots[0.0] = model.model.process_latent_in(samples.float().cpu())
        sigmas = sorted(knots)
        checks.noise_levels(node, torch.tensor(sigmas))
        if len(sigmas) < 2:
            raise ValueError(f"{node}: with denoise 0 nothing is sampled, so there is no trajectory to record. Raise denoise, or use Readout "
                             "Reference for a given image.")
        trajectory = trajectories.Trajectory(torch.tensor(sigmas), torch.stack([knots[s] for s in sigmas]))
        return wrap(model, trajectory, conditioning, cache_mb)

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, KEY, record)
    return reference
