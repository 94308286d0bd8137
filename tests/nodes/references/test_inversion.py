"""Inversion: the image comes back, or it is said that it does not, and guidance rests meanwhile."""
import comfy.model_management
import comfy.samplers
import nodes as host_nodes
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustom

from readout_guidance_pack.nodes.references.invert import ReadoutInvert
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance

pytestmark = pytest.mark.usefixtures("inference_mode")


def test_inversion_gives_the_image_back(w):
    latent = w.scene()
    noise, reference = ReadoutInvert.execute(w.model, w.positive, w.negative, latent, 20, 1.0, "karras", 64).args
    back, = host_nodes.common_ksampler(w.model, 0, 20, 1.0, "euler", "karras", w.positive, w.negative, noise, disable_noise=True)
    error = ((back["samples"] - latent["samples"]) / 2).square().mean()
    assert -10 * error.log10() > 27
    assert torch.allclose(reference.trajectory.latents[0], latent["samples"])
    assert torch.allclose(reference.trajectory.latents[-1], noise["samples"], atol=1e-4)


@pytest.mark.parametrize("scheduler, steps, cfg, most", [
    ("simple", 20, 1.0, 0.05), ("linear_quadratic", 20, 1.0, 0.2), ("linear_quadratic", 4, 1.0, 2.0), ("normal", 20, 7.0, 0.2)])
def test_an_inversion_comes_back_or_says_that_it_does_not(w, caplog, scheduler, steps, cfg, most):
    """Its steps may be long near the clean image, and cfg makes them bend."""
    latent, schedule = w.scene(), (cfg, "euler", scheduler, w.positive, w.negative)
    noise, _ = ReadoutInvert.execute(w.model, w.positive, w.negative, latent, steps, cfg, scheduler, 64).args
    back, = host_nodes.common_ksampler(w.model, 0, steps, *schedule, noise, disable_noise=True)
    error = (back["samples"] - latent["samples"]).square().mean().sqrt() / latent["samples"].square().mean().sqrt()
    assert error < most
    assert ("Readout Invert: the image will not come back as it was" in caplog.text) == (error > 0.1)


def test_guidance_rests_while_an_image_is_inverted(w):
    def inverted(model):
        return ReadoutInvert.execute(model, w.positive, w.negative, w.scene(), 3, 1.0, "karras", 64).args[0]["samples"]

    guided, = ApplyReadoutGuidance.execute(w.model, w.like("appearance", w.made()[1]), 0.1).args
    assert torch.equal(inverted(guided), inverted(w.model))


def test_guidance_rests_where_sigmas_rise(w, caplog):
    """As where the noise of an image is found with Flip Sigmas."""
    sigmas = comfy.samplers.calculate_sigmas(w.model.get_model_object("model_sampling"), "karras", 4).flip(0).clamp(min=1e-3)

    def noise(model):
        sampler = comfy.samplers.sampler_object("euler")
        return SamplerCustom.execute(model, False, 0, 1.0, w.positive, w.negative, sampler, sigmas, w.scene())[0]["samples"]

    _, reference = w.made()
    guided, = ApplyReadoutGuidance.execute(w.model, w.drag(reference, mask=torch.ones(1, 64, 64), end_percent=1.0), 0.1).args
    assert torch.equal(noise(guided), noise(w.model))
    assert [message for message in caplog.messages if "guided" in message] == [
        "Apply Readout Guidance: the noise levels of this run rise, as when the noise of a given image is found, so nothing is guided."]


def test_interrupted_inversion_leaves_the_model_as_it_was(w):
    plain, _ = w.sample(())
    stop = w.calls + 3

    def interrupt(_module, _args, _out):
        if w.calls > stop:
            comfy.model_management.interrupt_current_processing()

    hook = w.model.model.diffusion_model.register_forward_hook(interrupt)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            ReadoutInvert.execute(w.model, w.positive, w.negative, w.scene(), 10, 1.0, "karras", 64)
    finally:
        hook.remove()
    assert w.calls < stop + 10
    assert torch.equal(plain, w.sample(())[0])
