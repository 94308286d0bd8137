"""What a run is given beside its MODEL: noise levels, latents, conditionings, guidance. What cannot be used is refused by name, or said once."""
import comfy.sample
import comfy.samplers
import nodes as host_nodes
import pytest
import torch
from comfy_extras import nodes_custom_sampler

from batches import STEPS, w_latent
from readout_guidance_pack.nodes.references import recording_ksampler
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.mark.parametrize("levels", [[14.6, 3.0, float("nan"), 0.0], [14.6, 3.0, -1.0], [float("inf"), 1.0, 0.0]])
def test_what_is_no_noise_level_is_refused(w, levels):
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]
    with pytest.raises(ValueError, match=r"^Apply Readout Guidance: the sigmas are \[.*\], but noise levels must be finite numbers of 0 or more"):
        nodes_custom_sampler.SamplerCustom.execute(model, True, 1, 3.0, w.positive, w.negative, comfy.samplers.sampler_object("euler"),
                                                   torch.tensor(levels), {"samples": torch.zeros(1, 3, 64, 64)})


@pytest.mark.parametrize("levels", [[0.0, 0.0, 0.0], [14.6, 3.0, 0.0, 0.0]])
def test_levels_of_which_the_host_itself_makes_nothing_are_no_error(w, levels):
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1, end_percent=1.0), 0.1)[0]
    image, plain = (comfy.sample.sample_custom(source, torch.ones(1, 3, 64, 64), 1.0, comfy.samplers.sampler_object("euler"), torch.tensor(levels),
                                                 w.positive, w.negative, torch.zeros(1, 3, 64, 64), disable_pbar=True) for source in (model, w.model))
    assert torch.allclose(image, plain, equal_nan=True)


def test_a_scheduler_without_levels_makes_no_reference(w):
    """kl_optimal with one step."""
    latent = {"samples": torch.zeros(1, 3, 64, 64)}
    with pytest.raises(ValueError, match=r"^KSampler \(Readout Reference\): the sigmas are .*more steps"):
        recording_ksampler.KSamplerReadoutReference.execute(w.model, 1, 1, 3.0, "euler", "kl_optimal", w.positive, w.negative, latent, 1.0, 64)


def test_a_latent_of_sound_is_refused(w):
    """As the host packs a video with its sound: everything in one row."""
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]
    with pytest.raises(ValueError, match=r"^Apply Readout Guidance: the latent's shape is \(1, 1, 50\), as for audio"):
        comfy.sample.sample(model, torch.zeros(1, 1, 50), 2, 1.0, "euler", "normal", w.positive, w.negative, torch.zeros(1, 1, 50))


@pytest.mark.parametrize("guidance", [None, (), "pose", [1]])
def test_guidance_that_is_none_is_explained(w, guidance):
    for node in (lambda: w.sample(guidance or 0), lambda: ApplyReadoutGuidance.execute(w.model, guidance, 0.1)):
        if guidance == ():
            continue  # a Drag Target with no drags yet
        with pytest.raises(ValueError, match="guidance"):
            node()


def test_nan_in_a_conditioning_is_blamed_on_it(w):
    positive = [[c * float("nan"), more] for c, more in w.positive]
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]
    with pytest.raises(ValueError, match="the positive conditioning contains NaN"):
        host_nodes.common_ksampler(model, 1, STEPS, 3.0, "euler", "karras", positive, w.negative, w_latent())


def test_an_image_of_another_shape_than_the_target_is_said_once(w, caplog):
    w.sample(w.pose(1, size=(64, 64)), batch=1, size=(64, 96))
    assert ["33% of the pose target's input is cut off" in r.message for r in caplog.records] == [True]
