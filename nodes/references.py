"""References: nodes that make one, and what is kept of it between runs."""
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import latent_preview
import nodes as host_nodes
import psutil
import torch
from comfy_api.latest import io
from torch import Tensor

from ..rg_core import references
from . import checks, ksampler
from .log import log
from .sampling.conditioning import one_frame
from .sampling.guidance import unguide
from .sampling.noise import is_flow
from .types import CATEGORY, ReferenceType

REFINE = 2  # docs/relations.md: predictions beyond the first one that each step of an inversion makes
COMES_BACK = 0.1  # of a picture, that a step of its inversion may miss
KEY = "readout_reference"
CACHE_MB = 1024
SHORT = 0.1  # of main memory: with less of it left the host lets go of what nodes gave, but cannot see what a reference keeps


@dataclass(eq=False)
class Reference:
    """A picture at every noise level, and what heads have read of it so far."""
    trajectory: references.Trajectory  # in the scale of the model's sampler, on the CPU
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
            log.warning("Readout reference: what heads read of it needs more than cache_mb, %d MB, so the rest is read again "
                        "in every run. Raise cache_mb on the node that made the reference, to save that time.", self.cache_mb)


def family(model) -> str:
    return type(model.model.model_config).__name__


def wrap(model, trajectory: references.Trajectory, conditioning: list, cache_mb: int) -> Reference:
    return Reference(trajectory, conditioning, family(model), model.get_model_object("latent_format").spacial_downscale_ratio, cache_mb)


def samples_for(node: str, model, latent: dict) -> Tensor:
    """The LATENT's samples, which must fit the model, as it takes them: [B, C, H, W], or [B, C, 1, H, W] if it makes videos too."""
    samples, made = checks.latent(node, latent, model), model.get_model_object("latent_format")
    if samples.shape[1] != made.latent_channels:
        raise ValueError(f"{node}: the latent has {samples.shape[1]} channels, and this model ({family(model)}) works with "
                         f"{made.latent_channels}. Encode the picture with the VAE that belongs to the model.")
    checks.no_hole(node, latent, one_frame(samples), made.spacial_downscale_ratio)
    return one_frame(samples).unsqueeze(2) if made.latent_dimensions == 3 else one_frame(samples)


CACHE = io.Int.Input("cache_mb", default=CACHE_MB, min=0, max=65536, advanced=True,
                     tooltip="Main memory for what heads read of this reference, so that the next run need not read it again.")


class ReadoutReference(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutReference", display_name="Readout Reference", category=CATEGORY,
            search_aliases=["ip adapter", "reference picture"],
            description="Makes a picture a reference, by adding one fixed noise to it at every level. Quick; for dragging things in "
                        "a given picture use Readout Invert.",
            inputs=[io.Model.Input("model"),
                    io.Conditioning.Input("positive", tooltip="What the reference shows."),
                    io.Latent.Input("latent", tooltip="The reference; VAE Encode makes it from a picture."),
                    io.Int.Input("seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True),
                    CACHE],
            outputs=[ReferenceType.Output(display_name="reference")])

    @classmethod
    def execute(cls, model, positive, latent, seed, cache_mb):
        x = model.model.process_latent_in(samples_for("Readout Reference", model, latent).float().cpu())
        noise = comfy.sample.prepare_noise(x, seed, latent.get("batch_index"))
        sampling = model.get_model_object("model_sampling")
        noisiest = sampling.noise_scaling(torch.tensor([sampling.sigma_max]), noise, x)
        trajectory = references.renoised(x, noisiest, float(sampling.sigma_max))
        return io.NodeOutput(wrap(model, trajectory, positive, cache_mb))


class Inverter(comfy.samplers.Sampler):
    """Samples backwards, from the clean latent to the noise."""

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar):
        def denoise(x: Tensor, sigma: float) -> Tensor:
            return model_wrap(x, x.new_full((len(x),), sigma), **extra_args)

        self.off = 0.0

        def report(step: int, x: Tensor, off: float) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            self.off = max(self.off, off)
            callback(step, latent_image, x, len(sigmas) - 1)

        self.trajectory = references.invert(latent_image, sigmas, denoise, REFINE, report)
        noise, sampling = self.trajectory.latents[-1], model_wrap.inner_model.model_sampling
        # What the host makes of a latent that is sampled on; at full noise flow models leave nothing of it: see sampling/start.py.
        return noise if is_flow(sampling) and sigmas[-1] >= 1 else sampling.inverse_noise_scaling(sigmas[-1], noise)


class ReadoutInvert(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutInvert", display_name="Readout Invert", category=CATEGORY,
            search_aliases=["ddim inversion", "unsample", "noise"],
            description="Finds the noise that a given picture would be sampled from (DDIM inversion), and the path there as a "
                        "reference. Sample from the noise with KSampler (Advanced), add_noise off, euler or ddim and the same "
                        "scheduler, to get the picture back. On flow models the sampler's MODEL has to come through Apply Readout Guidance, "
                        "if only with strength 0.",
            inputs=[io.Model.Input("model"),
                    io.Conditioning.Input("positive", tooltip="What the picture shows."),
                    io.Conditioning.Input("negative"),
                    io.Latent.Input("latent", tooltip="The picture; VAE Encode makes it from an image."),
                    io.Int.Input("steps", default=50, min=1, max=10000, tooltip="More steps, a more exact inversion."),
                    io.Float.Input("cfg", default=1.0, min=0.0, max=100.0, step=0.1, round=0.01,
                                   tooltip="1 inverts most exactly, and fastest."),
                    io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS),
                    CACHE],
            outputs=[io.Latent.Output(display_name="noise"), ReferenceType.Output(display_name="reference")])

    @classmethod
    def execute(cls, model, positive, negative, latent, steps, cfg, scheduler, cache_mb):
        node = "Readout Invert"
        samples = samples_for(node, model, latent)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps).flip(0)
        checks.noise_levels(node, sigmas)
        if float(sigmas[0]) != 0:
            raise ValueError(f"{node}: the scheduler {scheduler} leaves noise at its end. Choose another one, such as normal.")
        unguided = model.clone()
        unguide(unguided)
        sampler, guider = Inverter(), comfy.samplers.CFGGuider(unguided)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        noise = guider.sample(torch.zeros_like(samples), samples, sampler, sigmas, callback=latent_preview.prepare_callback(model, steps),
                              disable_pbar=True, seed=0)
        if sampler.off > COMES_BACK:
            log.warning("%s: the picture will not come back as it was, for a step of the inversion misses it by up to %.0f%%. Use more steps, "
                        "another scheduler than %s, such as karras, or a lower cfg.", node, 100 * sampler.off, scheduler)
        trajectory = references.Trajectory(sampler.trajectory.sigmas, sampler.trajectory.latents.cpu())
        return io.NodeOutput({"samples": noise.to(samples.device)}, wrap(model, trajectory, positive, cache_mb))


def recording(model):
    """Has MODEL, in place, record its next sampling; returns what makes the picture a reference then: a function of the node's
    name, the picture's samples, its conditioning and cache_mb."""
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
            raise ValueError(f"{node}: with denoise 0 nothing is sampled, so there is no way to follow. Raise denoise, or use Readout "
                             "Reference for a given picture.")
        trajectory = references.Trajectory(torch.tensor(sigmas), torch.stack([knots[s] for s in sigmas]))
        return wrap(model, trajectory, conditioning, cache_mb)

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, KEY, record)
    return reference


class KSamplerReadoutReference(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="KSamplerReadoutReference", display_name="KSampler (Readout Reference)", category=CATEGORY,
            search_aliases=["reference picture"],
            description="The KSampler; its picture, with its whole path there, becomes a reference. Sample again with the same seed, "
                        "now guided, to change that picture.",
            inputs=[*ksampler.inputs(), CACHE],
            outputs=[io.Latent.Output(), ReferenceType.Output(display_name="reference")])

    @classmethod
    def execute(cls, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise, cache_mb):
        recorded, node = model.clone(), "KSampler (Readout Reference)"
        ksampler.compare_denoise(node, steps, denoise, latent_image)
        reference = recording(recorded)
        latent, = host_nodes.common_ksampler(recorded, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image,
                                             denoise=denoise)
        return io.NodeOutput(latent, reference(node, latent["samples"], positive, cache_mb))
