"""Models that are shown a mask and an image beside the noisy latents, of the host's own classes with random weights."""
import nodes as host_nodes
import pytest
import torch
from torch import Tensor

from host_features import SIZE, left_mask
from random_models import conditioning as said_to_unets
from random_models import random_model
from readout_guidance_pack.nodes.engine import Trace, guided
from readout_guidance_pack.nodes.engine.calls.inpainting import a_hole, with_holes
from readout_guidance_pack.nodes.engine.read_features import read_features, sigma_at
from readout_guidance_pack.nodes.engine.reader import read
from readout_guidance_pack.nodes.make_heads import comparer, fit
from readout_guidance_pack.nodes.references import recording_ksampler
from readout_guidance_pack.nodes.references.invert import ReadoutInvert
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.rg_core.features.raw_features import AS_THEY_ARE
from readout_guidance_pack.rg_core.guidance.targets import Appearance
from readout_guidance_pack.rg_core.guidance.updates import PUBLISHED, Move
from tiny_transformers import HERE, tiny_model
from tiny_transformers import conditioning as said_to_transformers

pytestmark = pytest.mark.usefixtures("inference_mode")

SEED = 5
NOTHING = 1e-3  # a difference that is none: features of thousands, in half precision
HOLE = left_mask()[None]


class World:
    """A model; images of its own latents by number; what an image made of one differs from a reference by."""

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

    def image(self, k: int) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(k))

    def inpainting(self, k: int, mask: Tensor = HOLE) -> list:
        """The words as Inpaint Model Conditioning completes them: the encoded hole is 0.3, and around it latents differ a little."""
        mixed = torch.where(mask.reshape(-1, *[1] * (len(self.shape) - 3), *SIZE) > 0, 0.3, self.image(k) + 0.1 * self.image(90))
        return [[c, more | {"concat_latent_image": mixed, "concat_mask": mask}] for c, more in self.words]

    def reference(self, k: int, words: list | None = None):
        return ReadoutReference.execute(self.model, words or self.words, {"samples": self.image(k)}, SEED, 64)[0]

    def target(self, reference) -> Appearance:
        return Appearance(name="appearance", head=AS_THEY_ARE, reference=reference, end=0.99)

    def sample(self, reference, samples: Tensor, mask: Tensor | None = None, words: list | None = None, move: Move = Move(moves=1)):
        """The image that is made of `samples`, and by what [B] it differs from the reference at first. From a level at which flow models are
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


def test_an_image_with_a_noise_mask_is_like_itself(w):
    assert abs(w.differs(w.reference(9), w.image(9), HOLE)) < NOTHING < 0.02 < w.differs(w.reference(10), w.image(9), HOLE)
    assert abs(w.differs(w.reference(9), w.image(9))) < NOTHING


@pytest.mark.parametrize("noise_mask", [None, HOLE], ids=["without a noise mask", "with a noise mask"])
def test_an_image_that_the_conditioning_holds_is_like_itself(w, noise_mask):
    words = w.inpainting(9)
    for of_reference in (w.words, words, w.inpainting(11)):
        reference = w.reference(9, of_reference)
        assert abs(w.differs(reference, w.image(9), noise_mask, words)) < NOTHING


def test_a_reference_is_seen_with_the_runs_hole_and_its_own_image_around_it(unet, monkeypatch):
    seen = []
    monkeypatch.setattr(unet.model.model, "apply_model", lambda x, t, c_concat=None, ask=unet.model.model.apply_model, **more: (
        seen.append(c_concat), ask(x, t, c_concat=c_concat, **more))[1])
    own, hole = unet.model.model.process_latent_in(unet.image(10)), HOLE > 0
    for of_reference in (None, unet.inpainting(9), unet.inpainting(11)):
        seen.clear()
        unet.sample(unet.reference(10, of_reference), unet.image(9), words=unet.inpainting(9))
        mask, image = seen[0][:1].split([1, 4], 1)  # references are read first
        assert torch.equal(mask, HOLE) and torch.allclose(image, torch.where(hole, unet.model.model.process_latent_in(torch.tensor(0.3)), own))
        seen.clear()
        unet.sample(unet.reference(10, of_reference), unet.image(9), HOLE)
        mask, image = seen[0][:1].split([1, 4], 1)
        assert torch.equal(mask, HOLE) and torch.allclose(image, torch.where(hole, unet.model.model.process_latent_in(unet.image(9)), own))


def test_an_image_that_was_made_with_a_mask_is_like_itself(unet):
    """Its own image is no longer the one that was sampled on."""
    latent = {"samples": unet.image(9), "noise_mask": HOLE}
    made, reference = recording_ksampler.KSamplerReadoutReference.execute(unet.model, SEED, 4, 2.0, "euler", "normal", unet.words, unet.words, latent,
                                                                          0.7, 64).args
    assert not torch.allclose(made["samples"], unet.image(9), atol=0.1)
    assert abs(unet.differs(reference, unet.image(9), HOLE)) < NOTHING


def test_the_negative_branch_of_the_published_procedure_is_shown_the_same(w):
    assert abs(w.differs(w.reference(9), w.image(9), HOLE, move=PUBLISHED)) < NOTHING
    assert abs(w.differs(w.reference(9), w.image(9), words=w.inpainting(9), move=PUBLISHED)) < NOTHING


def test_each_image_of_a_batch_has_its_own_mask_and_image(unet):
    masks, images = torch.cat([HOLE, 1 - HOLE, HOLE]), torch.cat([unet.image(9), unet.image(10), unet.image(11)])
    _, energy = unet.sample(unet.reference(9), images, masks)
    assert abs(energy[0]) < NOTHING and energy[1:].min() > 0.1
    same = images[:1].repeat(3, 1, 1, 1)
    reference = ReadoutReference.execute(unet.model, unet.words, {"samples": same}, SEED, 64)[0]  # with the batch's noises
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
    reference, image = world.reference(10), world.image(9)
    first, again, other, without = (readings(world, reference, image, mask) for mask in (HOLE, HOLE, 1 - HOLE, None))
    assert again < first
    assert other == without == (first if name == "sd inpainting" else again)
    assert readings(world, reference, image, HOLE) == again
    pair = torch.cat([image, world.image(12)])
    assert readings(world, world.reference(10), pair) == first  # once for both


@pytest.mark.parametrize("holed", [False, True], ids=["plain words", "words with a hole"])
def test_an_inverted_image_comes_back_from_its_noise(holed):
    """That is sampled without a mask, so a mask of the image's latent is not shown either: the image would be 1.09 of its size off."""
    world = World("sd inpainting")
    world.model.model.diffusion_model.out[2].weight.data *= 0.02  # a model that hardly changes its mind can be inverted
    words, latent = world.inpainting(9) if holed else world.words, {"samples": world.image(9), "noise_mask": HOLE}
    noise, _ = ReadoutInvert.execute(world.model, words, words, latent, 20, 1.0, "normal", 64).args
    assert "noise_mask" not in noise

    def error(words: list) -> float:
        back, = host_nodes.common_ksampler(world.model, SEED, 20, 1.0, "euler", "normal", words, words, noise, disable_noise=True)
        return ((back["samples"] - latent["samples"]).norm() / latent["samples"].norm()).item()

    assert error(words) < 0.01 < 0.5 < error(world.words if holed else world.inpainting(9))


def rough(count: int, seed: int) -> Tensor:
    """Grey images [count, 1, *SIZE]."""
    grid = torch.rand(count, 1, 4, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(grid, SIZE, mode="bicubic").clamp(0, 1)


def test_a_head_reads_inside_of_a_hole_around_it_and_without_one():
    """Mean errors of greys whose own is 0.20, of a head that was made from images: fitted without holes 0.05 without one, but 0.13 in it and 0.21
    around it."""
    fill = World("flux fill")

    def latents(greys: Tensor, seed: int) -> Tensor:
        grain = torch.randn(len(greys), 16, *SIZE, generator=torch.Generator().manual_seed(seed))
        channels = torch.randn(16, generator=torch.Generator().manual_seed(1)).view(1, -1, 1, 1)
        return fill.model.model.process_latent_out(1.5 * (2 * greys - 1) * channels + 0.3 * grain)

    known, other = rough(24, 3), rough(12, 7)
    given = {"samples": latents(known, 4)}
    head = fit.FitReadoutHead.execute([fill.model], [given], [fill.words], [known.movedim(1, -1).expand(-1, -1, -1, 3)], ["depth"], [1]).args[0].cpu()
    samples, hole, levels = latents(other, 8), torch.zeros(1, 1, *SIZE), torch.full((12,), sigma_at(fill.model, 0.9))
    hole[..., 4:14, 5:19] = 1
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(9))

    def errors(words: list) -> Tensor:
        readout = read_features("test", fill.model, words, samples, noise, levels, lambda _, reading: read(head, reading, SIZE).cpu(), [head])
        return (readout.mean(1, keepdim=True) / 2 + 0.5 - other).abs()

    holed = errors([[c, more | {"concat_mask": hole, "concat_latent_image": samples * (1 - hole)}] for c, more in fill.words])
    where = (hole > 0).expand_as(holed)
    assert errors(fill.words).mean() < 0.08 and holed[where].mean() < 0.08 and holed[~where].mean() < 0.08


def test_compared_images_have_one_hole_with_their_own_image_around_it(unet, monkeypatch):
    seen, samples = [], torch.cat([unet.image(9), unet.image(10)])
    monkeypatch.setattr(comparer, "read_features", lambda node, model, positive, *_: seen.append(positive))
    monkeypatch.setattr(comparer, "of_model", lambda model: {"stride": 1})
    made = comparer.Comparer("test", unet.model, None, comparer.Images([], []), "appearance", 0)
    for _ in range(16):
        made.look(2, comparer.Comparison(samples), unet.words, None)
    parts = 0
    for (_, more), in seen:
        hole, image = more["concat_mask"] > 0, more["concat_latent_image"]
        assert torch.equal(hole[0], hole[1]) and torch.equal(torch.where(hole, 0, image), torch.where(hole, 0, samples))
        blank = unet.model.model.process_latent_out(unet.model.model.blank_inpaint_image_like(samples))
        assert torch.equal(torch.where(hole, image, blank), blank)
        parts += not hole.all()
    assert 2 < parts < 14


def test_only_inpainting_models_are_shown_holes_that_nobody_gave(w):
    rng = torch.Generator().manual_seed(0)
    begin, samples = rng.get_state(), torch.cat([w.image(9), w.image(10)])
    if w.name in ("sd", "cosmos-predict2"):
        assert with_holes(w.model, w.words, samples, rng, 2) is w.words
    given = w.inpainting(9)
    assert with_holes(w.model, given, samples, rng, 2) is given and torch.equal(rng.get_state(), begin)


def test_holes_are_of_every_size_from_a_quarter_of_the_sides():
    rng = torch.Generator().manual_seed(0)
    holes = torch.stack([a_hole((16, 24), rng) for _ in range(400)])
    whole = holes.flatten(1).all(1)
    assert 0.4 < whole.float().mean() < 0.6
    heights, widths = (holes[~whole].any(dim).sum(-1) for dim in (2, 1))
    assert heights.min() == 4 and widths.min() == 6 and heights.max() == 16 and widths.max() == 24
    assert holes[~whole].float().mean(0).min() > 0  # every place is in one


def test_a_reference_whose_words_leave_out_a_part_is_said_once(unet, caplog):
    left, = host_nodes.ConditioningSetAreaPercentage().append(unet.words, 0.5, 1.0, 0.0, 0.0, 1.0)
    unet.sample(unet.reference(9, left), unet.image(9))
    said = [record.getMessage() for record in caplog.records if "leaves out" in record.getMessage()]
    assert len(said) == 1 and said[0].startswith("test: the reference of the appearance target was made with a conditioning that leaves out 50% of "
                                                 "the image")
