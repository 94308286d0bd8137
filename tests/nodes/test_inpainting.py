"""Models that are shown a mask and a picture beside the noisy latents, of the host's own classes with random weights."""
import nodes as host_nodes
import pytest
import torch
from torch import Tensor

from host_features import SIZE, left_mask
from random_models import conditioning as said_to_unets
from random_models import random_model
from readout_guidance_pack.nodes import references
from readout_guidance_pack.nodes.sampling import Trace, guided
from readout_guidance_pack.rg_core.features import AS_THEY_ARE
from readout_guidance_pack.rg_core.targets import Appearance
from readout_guidance_pack.rg_core.updates import PUBLISHED, Move
from tiny_transformers import HERE, tiny_model
from tiny_transformers import conditioning as said_to_transformers

pytestmark = pytest.mark.usefixtures("inference_mode")

SEED = 5
NOTHING = 1e-3  # a difference that is none: features of thousands, in half precision
HOLE = left_mask()[None]


class World:
    """A model; pictures of its own latents by number; what a picture made of one differs from a reference by."""

    def __init__(self, name: str):
        self.name, unet = name, name.startswith("sd")
        if unet:
            self.model, self.shape = random_model("small", in_channels=9 if name == "sd inpainting" else 4), (1, 4, *SIZE)
        elif name == "cosmos-predict2":
            self.model, self.shape = tiny_model(name), (1, 16, 1, *SIZE)
        else:
            self.model, self.shape = tiny_model("flux", in_channels=96), (1, 16, *SIZE)
        if name == "sd inpainting":
            self.model.model.set_inpaint()
        self.words = said_to_unets(768, 1) if unet else said_to_transformers("flux" if name == "flux fill" else name, 1)

    def picture(self, k: int) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(k))

    def inpainting(self, k: int, mask: Tensor = HOLE) -> list:
        """The words as Inpaint Model Conditioning completes them: the encoded hole is 0.3, and around it latents differ a little."""
        mixed = torch.where(mask.reshape(-1, *[1] * (len(self.shape) - 3), *SIZE) > 0, 0.3, self.picture(k) + 0.1 * self.picture(90))
        return [[c, more | {"concat_latent_image": mixed, "concat_mask": mask}] for c, more in self.words]

    def reference(self, k: int, words: list | None = None):
        return references.ReadoutReference.execute(self.model, words or self.words, {"samples": self.picture(k)}, SEED, 64)[0]

    def target(self, reference) -> Appearance:
        return Appearance(name="appearance", head=AS_THEY_ARE, reference=reference, end=0.99)

    def sample(self, reference, samples: Tensor, mask: Tensor | None = None, words: list | None = None, move: Move = Move(moves=1)):
        """The picture that is made of `samples`, and by what [B] it differs from the reference at first. From a level at which flow models are
        guided too."""
        latent = {"samples": samples} | ({} if mask is None else {"noise_mask": mask})
        trace, words = Trace(), words or self.words
        model = guided("test", self.model, (self.target(reference),), move, trace)
        out, = host_nodes.common_ksampler(model, SEED, 4, 2.0, "euler", "normal", words, words, latent, denoise=0.7)
        return out["samples"], torch.tensor(trace.rows[0]["energy"])

    def differs(self, *given, **more) -> float:
        return self.sample(*given, **more)[1].item()


NAMES = [name for name in ("sd", "sd inpainting", "flux fill", "cosmos-predict2") if name != "cosmos-predict2" or name in HERE]


@pytest.fixture(scope="module", params=NAMES)
def w(request):
    with torch.inference_mode():
        return World(request.param)


@pytest.fixture(scope="module")
def unet():
    with torch.inference_mode():
        return World("sd inpainting")


def test_a_picture_with_a_noise_mask_is_like_itself(w):
    assert abs(w.differs(w.reference(9), w.picture(9), HOLE)) < NOTHING < 0.02 < w.differs(w.reference(10), w.picture(9), HOLE)
    assert abs(w.differs(w.reference(9), w.picture(9))) < NOTHING


@pytest.mark.parametrize("noise_mask", [None, HOLE], ids=["without a noise mask", "with a noise mask"])
def test_a_picture_that_the_conditioning_holds_is_like_itself(w, noise_mask):
    words = w.inpainting(9)
    for of_reference in (w.words, words, w.inpainting(11)):
        reference = w.reference(9, of_reference)
        assert abs(w.differs(reference, w.picture(9), noise_mask, words)) < NOTHING


def test_a_reference_is_seen_with_the_runs_hole_and_its_own_picture_around_it(unet, monkeypatch):
    seen = []
    monkeypatch.setattr(unet.model.model, "apply_model", lambda x, t, c_concat=None, ask=unet.model.model.apply_model, **more: (
        seen.append(c_concat), ask(x, t, c_concat=c_concat, **more))[1])
    own, hole = unet.model.model.process_latent_in(unet.picture(10)), HOLE > 0
    for of_reference in (None, unet.inpainting(9), unet.inpainting(11)):
        seen.clear()
        unet.sample(unet.reference(10, of_reference), unet.picture(9), words=unet.inpainting(9))
        mask, picture = seen[0][:1].split([1, 4], 1)  # references are read first
        assert torch.equal(mask, HOLE) and torch.allclose(picture, torch.where(hole, unet.model.model.process_latent_in(torch.tensor(0.3)), own))
        seen.clear()
        unet.sample(unet.reference(10, of_reference), unet.picture(9), HOLE)
        mask, picture = seen[0][:1].split([1, 4], 1)
        assert torch.equal(mask, HOLE) and torch.allclose(picture, torch.where(hole, unet.model.model.process_latent_in(unet.picture(9)), own))


def test_a_picture_that_was_made_with_a_mask_is_like_itself(unet):
    """Its own picture is no longer the one that was sampled on."""
    latent = {"samples": unet.picture(9), "noise_mask": HOLE}
    made, reference = references.KSamplerReadoutReference.execute(unet.model, SEED, 4, 2.0, "euler", "normal", unet.words, unet.words, latent, 0.7,
                                                                  64).args
    assert not torch.allclose(made["samples"], unet.picture(9), atol=0.1)
    assert abs(unet.differs(reference, unet.picture(9), HOLE)) < NOTHING


def test_the_negative_branch_of_the_published_procedure_is_shown_the_same(w):
    assert abs(w.differs(w.reference(9), w.picture(9), HOLE, move=PUBLISHED)) < NOTHING
    assert abs(w.differs(w.reference(9), w.picture(9), words=w.inpainting(9), move=PUBLISHED)) < NOTHING


def test_each_picture_of_a_batch_has_its_own_mask_and_picture(unet):
    masks, pictures = torch.cat([HOLE, 1 - HOLE, HOLE]), torch.cat([unet.picture(9), unet.picture(10), unet.picture(11)])
    _, energy = unet.sample(unet.reference(9), pictures, masks)
    assert abs(energy[0]) < NOTHING and energy[1:].min() > 0.1
    same = pictures[:1].repeat(3, 1, 1, 1)
    reference = references.ReadoutReference.execute(unet.model, unet.words, {"samples": same}, SEED, 64)[0]  # with the batch's noises
    assert unet.sample(reference, same, masks)[1].abs().max() < NOTHING


def readings(world, *given) -> int:
    before = world.calls
    world.sample(*given)
    return world.calls - before


@pytest.mark.parametrize("name", ["sd", "sd inpainting"])
def test_what_is_kept_of_a_reference_is_kept_for_what_was_shown(name):
    world = World(name)
    world.calls = 0
    world.model.model.diffusion_model.register_forward_pre_hook(lambda *_: setattr(world, "calls", world.calls + 1))
    reference, picture = world.reference(10), world.picture(9)
    first, again, other, without = (readings(world, reference, picture, mask) for mask in (HOLE, HOLE, 1 - HOLE, None))
    assert again < first
    assert other == without == (first if name == "sd inpainting" else again)
    assert readings(world, reference, picture, HOLE) == again
    pair = torch.cat([picture, world.picture(12)])
    assert readings(world, world.reference(10), pair) == first  # once for both
