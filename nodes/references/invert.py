"""Readout Invert: the noise that a given image would be sampled from."""
import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import latent_preview
import torch
from comfy_api.latest import io
from torch import Tensor

from ...rg_core.guidance import trajectories
from ..common import checks
from ..common.latents import samples_for
from ..common.log import log
from ..common.types import CATEGORY, ReferenceType
from ..engine.guidance import unguide
from ..engine.schedule.noise_levels import is_flow
from .reference import CACHE, wrap

REFINE = 2  # docs/measurements/relations.md: predictions beyond the first one that each step of an inversion makes
COMES_BACK = 0.1  # of an image, that a step of its inversion may miss


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

        self.trajectory = trajectories.invert(latent_image, sigmas, denoise, REFINE, report)
        noise, sampling = self.trajectory.latents[-1], model_wrap.inner_model.model_sampling
        # What the host makes of a latent that is sampled on; at full noise flow models leave nothing of it: see engine/schedule/start.py.
        return noise if is_flow(sampling) and sigmas[-1] >= 1 else sampling.inverse_noise_scaling(sigmas[-1], noise)


class ReadoutInvert(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReadoutInvert", display_name="Readout Invert", category=CATEGORY,
            search_aliases=["ddim inversion", "unsample", "noise"],
            description="Finds the noise that a given image would be sampled from (DDIM inversion), and records the trajectory as a reference. "
                        "To get the image back, sample from the noise with KSampler (Advanced): add_noise off, euler or ddim, and the same "
                        "scheduler. On flow models, first pass the sampler's MODEL through Apply Readout Guidance, even if only with "
                        "strength 0.",
            inputs=[io.Model.Input("model", tooltip="The model that you sample with. Guidance on it is ignored."),
                    io.Conditioning.Input("positive", tooltip="What the image shows."),
                    io.Conditioning.Input("negative", tooltip="The negative prompt. It is ignored if cfg is 1."),
                    io.Latent.Input("latent", tooltip="The image to invert as a latent, as from VAE Encode."),
                    io.Int.Input("steps", default=50, min=1, max=10000, tooltip="The number of inversion steps. More steps are more exact."),
                    io.Float.Input("cfg", default=1.0, min=0.0, max=100.0, step=0.1, round=0.01,
                                   tooltip="The guidance scale of the inversion. 1 is the most exact and the fastest."),
                    io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS,
                                   tooltip="The noise schedule of the inversion. Use the same one to sample."),
                    CACHE],
            outputs=[io.Latent.Output(display_name="noise", tooltip="The noise to sample from, with KSampler (Advanced) and add_noise off."),
                     ReferenceType.Output(display_name="reference", tooltip="The image with its whole trajectory, for Drag Target and other targets "
                                          "that compare with a reference.")])

    @classmethod
    def execute(cls, model, positive, negative, latent, steps, cfg, scheduler, cache_mb):
        node = "Readout Invert"
        samples = samples_for(node, model, latent)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps).flip(0)
        checks.noise_levels(node, sigmas)
        if float(sigmas[0]) != 0:
            raise ValueError(f"{node}: the scheduler {scheduler} does not end at zero noise. Choose another one, such as normal.")
        unguided = model.clone()
        unguide(unguided)
        sampler, guider = Inverter(), comfy.samplers.CFGGuider(unguided)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        noise = guider.sample(torch.zeros_like(samples), samples, sampler, sigmas, callback=latent_preview.prepare_callback(model, steps),
                              disable_pbar=True, seed=0)
        if sampler.off > COMES_BACK:
            log.warning("%s: the image will not come back as it was, because a step of the inversion is off by up to %.0f%%. Use more steps, another "
                        "scheduler than %s, such as karras, or a lower cfg.", node, 100 * sampler.off, scheduler)
        trajectory = trajectories.Trajectory(sampler.trajectory.sigmas, sampler.trajectory.latents.cpu())
        return io.NodeOutput({"samples": noise.to(samples.device)}, wrap(model, trajectory, positive, cache_mb))
