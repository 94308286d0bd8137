"""A drag moves what its reference shows: the image has to begin with the reference's noise."""
import nodes as host_nodes
import pytest
import torch

from demo_world import World
from readout_guidance_pack.heads.demo import TRANSFORMER_FILE
from readout_guidance_pack.nodes.demo import demo_model
from readout_guidance_pack.nodes.references.invert import ReadoutInvert
from readout_guidance_pack.nodes.references.recording_ksampler import KSamplerReadoutReference
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from readout_guidance_pack.nodes.samplers.guided_ksampler import KSamplerReadoutGuidance
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.likeness import AppearanceTarget

pytestmark = pytest.mark.usefixtures("inference_mode")

SAID = "does not begin with the noise of the drag target's reference"


@pytest.fixture(scope="module", params=["unet", "transformer"])
def w(request):
    with torch.inference_mode():
        world = World()
        if request.param == "transformer":
            world.model, world.clip, world.vae = demo_model.load_demo(TRANSFORMER_FILE)
            world.positive, world.negative = world.say("a figure, meadow"), world.say("")
        yield world


def reference(w, seed=4, batch=1):
    return KSamplerReadoutReference.execute(w.model, seed, 6, 3.0, "euler", "simple", w.positive, w.negative, latent(batch), 1.0, 64).args


def latent(batch=1):
    return {"samples": torch.zeros(batch, 3, 64, 64)}


def sample(w, guidance, seed, sampler="euler", **more):
    given = latent(more.pop("batch", 1))
    KSamplerReadoutGuidance.execute(w.model, seed, 6, 3.0, sampler, "simple", w.positive, w.negative, given, 1.0, guidance, 0.1)


def drag(of):
    return DragTarget.execute(of, "[[[0.3, 0.4], [0.6, 0.5]]]", 1.0, 0.0, 0.9)[0]


def warnings(caplog):
    return [record.message for record in caplog.records if SAID in record.message]


@pytest.mark.parametrize("seed, sampler, said", [(4, "euler", 0), (4, "euler_ancestral", 0), (4, "dpmpp_2m", 0), (5, "euler", 1)])
def test_another_seed_than_the_references_is_said_once(w, caplog, seed, sampler, said):
    sample(w, drag(reference(w)[1]), seed, sampler)
    assert len(warnings(caplog)) == said


def test_the_first_image_of_a_batch_is_enough(w, caplog):
    sample(w, drag(reference(w)[1]), 4, batch=2)
    assert not warnings(caplog)


def test_likenesses_take_any_noise(w, caplog):
    sample(w, AppearanceTarget.execute(reference(w)[1], 1.0, 0.0, 0.9)[0], 5)
    assert not warnings(caplog)


def test_an_inverted_image_is_sampled_without_noise(w, caplog):
    given = {"samples": reference(w)[0]["samples"]}
    noisy, inverted = ReadoutInvert.execute(w.model, w.positive, w.negative, given, 6, 1.0, "simple", 64).args[:2]
    model = ApplyReadoutGuidance.execute(w.model, drag(inverted), 0.1)[0]
    for add_noise, said in (("disable", 0), ("enable", 1)):
        host_nodes.KSamplerAdvanced().sample(model, add_noise, 3, 6, 1.0, "euler", "simple", w.positive, w.negative, noisy, 0, 10000, "disable")
        assert len(warnings(caplog)) == said


def test_a_second_sampler_that_goes_on_begins_nothing(w, caplog):
    """Its latents are what the first one made of the noise, and what an ancestral sampler added to it."""
    model = ApplyReadoutGuidance.execute(w.model, drag(reference(w)[1]), 0.1)[0]
    rest = (6, 3.0, "euler_ancestral", "simple", w.positive, w.negative)
    half, = host_nodes.KSamplerAdvanced().sample(model, "enable", 4, *rest, latent(), 0, 3, "enable")
    host_nodes.KSamplerAdvanced().sample(model, "disable", 4, *rest, half, 3, 10000, "disable")
    assert not warnings(caplog)
