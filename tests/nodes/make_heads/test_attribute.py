"""Fit Attribute and Attribute Target inside the real host, on the demo model."""
from types import SimpleNamespace

import pytest
import torch

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import judge, world
from readout_guidance_pack.nodes.demo import demo_model
from readout_guidance_pack.nodes.make_heads import estimate, fit_attribute, load_save, reports
from readout_guidance_pack.nodes.make_heads.evaluation import Quality
from readout_guidance_pack.nodes.make_heads.fit_attribute import FitAttribute
from readout_guidance_pack.nodes.samplers import guided_ksampler
from readout_guidance_pack.nodes.targets.attribute import AttributeTarget
from readout_guidance_pack.nodes.targets.map import MapTarget
from readout_guidance_pack.rg_core.guidance.targets import Attribute

pytestmark = pytest.mark.usefixtures("inference_mode")
SIZE = 64


class World:
    def __init__(self):
        self.model, self.clip, self.vae = demo_model.load_demo()
        self.empty = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(""))
        scene = world.draw(96, seed=5)
        self.dusk, self.other = (self.latents(scene.image[(scene.scene == list(world.SCENES).index("dusk")) == is_dusk][:10])
                                 for is_dusk in (True, False))

    def latents(self, image):
        return {"samples": self.vae.encode(image.movedim(1, -1))}

    def fit(self, **changes):
        """As the host calls it: every input is a list."""
        given = {"model": [self.model], "pictures_with": [self.dusk], "pictures_without": [self.other], "positive": [self.empty], "name": ["dusk"],
                 "seed": [1]}
        return FitAttribute.execute(**given | changes).args

    def sampled(self, guidance, strength=0.1):
        latent = guided_ksampler.KSamplerReadoutGuidance.execute(self.model, 1, 8, 3.0, "euler", "karras", self.empty, self.empty,
                                                                 {"samples": torch.zeros(4, 3, SIZE, SIZE)}, 1.0, guidance, strength)[0]
        return self.vae.decode(latent["samples"]).movedim(-1, 1)


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        yield World()


@pytest.fixture(scope="module")
def dusk(w):
    with torch.inference_mode():
        return w.fit()


def target(head, amount, **more):
    return AttributeTarget.execute(head, amount, 0.0, 0.9, **more)[0]


def test_the_report_says_what_it_tells_by_the_other_images(dusk):
    head, report = dusk
    assert head.kind == "dusk" and head.pooled and "detects: dusk. Fitted from 20 images" in report
    assert "It classifies well" in report and "percent 0.5: 20 of 20" in report


def test_what_nothing_tells_apart_is_not_praised(w):
    latents = w.latents(world.draw(20, seed=103).image)["samples"]
    report = w.fit(pictures_with=[{"samples": latents[:10]}], pictures_without=[{"samples": latents[10:]}])[1]
    assert "not fit for use" in report


def test_so_few_images_are_not_praised(w):
    report = w.fit(pictures_with=[{"samples": w.dusk["samples"][:4]}], pictures_without=[{"samples": w.other["samples"][:4]}])[1]
    assert "percent 0.5: 8 of 8" in report and "so few images cannot show it. Give it 10 of each" in report


def test_sizes_are_not_praised(w, caplog):
    """Images of the same kinds, in two sizes."""
    latents = w.latents(world.draw(24, seed=103).image)["samples"]
    report = w.fit(pictures_with=[{"samples": latents[:12]}], pictures_without=[{"samples": latents[12:, :, :, :48]}])[1]
    assert "It may classify by size alone" in report and "the size alone classifies 100% of them correctly" in caplog.text


def test_copies_are_not_judged_by_each_other(w):
    """Images that nothing tells apart, each there four times."""
    latents = w.latents(world.draw(12, seed=103).image)["samples"]
    report = w.fit(pictures_with=[{"samples": latents[:6].repeat(4, 1, 1, 1)}], pictures_without=[{"samples": latents[6:].repeat(4, 1, 1, 1)}])[1]
    assert " of 12\n" in report and "tells them" not in report.replace("hardly tells them", "")


def said(having, lacking, shift, seed) -> str:
    """What is said of images whose features are noise, alike in all bands for the most part, that `shift` tells apart."""
    rng, found = torch.Generator().manual_seed(seed), Quality([0.1, 0.3, 0.5, 0.7, 0.9], [0.0] * 5, 0.0, [])
    sides = [torch.randn(n, 1, 300, generator=rng) + torch.randn(n, 5, 300, generator=rng) + sign * shift
             for n, sign in ((having, 1), (lacking, -1))]
    head = SimpleNamespace(kind="old", base_model="", start=0.0, config={"fitted_on": {"pictures": having + lacking}})
    sizes = [fit_attribute.size_of(torch.zeros(1, 3, 64, 64)).expand(n, 1, -1) for n in (having, lacking)]
    return reports.attribute_report("Fit Attribute", head, found, (sides, sizes), 0.0).splitlines()[1]


@pytest.mark.parametrize("having, lacking", [(10, 10), (10, 90), (40, 40)])
def test_chance_is_praised_seldom_and_what_is_there_always(having, lacking):
    chance = [said(having, lacking, 0.0, seed) for seed in range(40)]
    assert not any("well" in words for words in chance) and sum("roughly" in words for words in chance) <= 2
    assert all("well" in said(having, lacking, 0.5, seed) for seed in range(10))


def test_more_and_less_of_it(w, dusk):
    """The empty prompt gives all scenes."""
    shares = [judge.dusk(w.sampled(target(dusk[0], amount))).mean() for amount in (1.0, 0.0, -1.0)]
    assert shares[0] == 1 and shares[2] == 0


def test_nothing_of_it_is_as_unguided(w, dusk):
    assert torch.equal(w.sampled(target(dusk[0], 0.0)), w.sampled(target(dusk[0], 1.0), strength=0.0))


def test_a_mask_says_where(dusk):
    """The gradient of the readout stays where the mask is white."""
    mask = torch.zeros(1, SIZE, SIZE)
    mask[..., :SIZE // 2] = 1
    one, = target(dusk[0], 1.0, mask=mask)
    fitted = one.prepared((SIZE, SIZE), torch.device("cpu"))
    with torch.inference_mode(False), torch.enable_grad():
        readout = torch.zeros(2, 1, 32, 32, requires_grad=True)
        gradient, = torch.autograd.grad(fitted.energy(readout, torch.ones(2), None).sum(), readout)
    assert torch.equal(gradient[..., 18:], torch.zeros(2, 1, 32, 14))  # a mask's edge is smoothed
    assert (gradient[..., :14] < 0).all() and torch.allclose(gradient.sum((1, 2, 3)), torch.tensor(-2.0))


def test_it_pulls_until_the_image_has_as_much(dusk):
    more, less, much = (target(dusk[0], amount)[0] for amount in (0.5, -0.5, 2.0))
    assert isinstance(more, Attribute) and more.weight == less.weight == 0.5 and more.name == "dusk" and much.weight == 2
    readout = torch.tensor([-1.0, 0.5, 1.5]).view(3, 1, 1, 1).expand(-1, -1, 4, 4)
    for one, energy in ((more, [4, 0.25, 0]), (less, [0, 2.25, 6.25]), (much, [9, 2.25, 0.25])):
        found = one.energy(readout, None, None)
        assert found.tolist() == energy and one.pull_share(found).tolist() == [min(1, x ** 0.5) for x in energy]


def test_saved_and_loaded_it_is_the_same(dusk, tmp_path, monkeypatch):
    monkeypatch.setattr(load_save.folder_paths, "get_output_directory", lambda: str(tmp_path))
    load_save.SaveReadoutHead.execute(dusk[0], "dusk")
    head = load_head(next(tmp_path.glob("dusk*.safetensors")))
    assert head.pooled and head.kind == "dusk"
    assert all(torch.equal(x, y.cpu()) for x, y in zip(head.state_dict().values(), dusk[0].state_dict().values(), strict=True))


def test_an_estimate_is_lighter_where_there_is_more_of_it(w, dusk):
    scene = world.draw(24, seed=8)
    image = estimate.ReadoutEstimate.execute(w.model, dusk[0], w.empty, 0.9, 1, image=scene.image.movedim(1, -1), vae=w.vae)[0]
    assert image.shape == (24, SIZE, SIZE, 3)
    is_dusk = scene.scene == list(world.SCENES).index("dusk")
    assert image[is_dusk].mean() > image[~is_dusk].mean() + 0.1


def test_heads_are_told_apart(w, dusk):
    with pytest.raises(ValueError, match="^Map Target: a head that reads dusk outputs no map"):
        MapTarget.execute(dusk[0], torch.rand(1, 8, 8, 3), 1.0, 0.0, 0.9)
    with pytest.raises(ValueError, match="^Attribute Target: the head reads pose, which is not an attribute"):
        target(load_head(load_save.HEADS_FOLDER / "demo_pose.safetensors"), 1.0)


BAD = {
    "too few": (lambda w: {"pictures_without": [{"samples": w.other["samples"][:2]}]}, "got 10 images with it and 2 without it"),
    "a name that is taken": (lambda w: {"name": ["pose"]}, "name is pose, which is what other heads read"),
    "a name of what compares": (lambda w: {"name": ["identity"]}, "identity outputs no image.* Choose another name"),
    "a path": (lambda w: {"name": ["a/b"]}, "name is 'a/b'"),
    "conditionings": (lambda w: {"positive": [w.empty] * 3}, "got 20 images and 3 conditionings"),
    "nan": (lambda w: {"pictures_with": [{"samples": w.dusk["samples"] * torch.nan}]}, "latent contains NaN"),
    "channels": (lambda w: {"pictures_with": [{"samples": torch.zeros(4, 4, 8, 8)}]}, "4 channels"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_are_explained(w, case):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=f"^Fit Attribute: .*{message}"):
        w.fit(**changes(w))


@pytest.mark.parametrize("amount", ["much", float("nan"), float("inf")])
def test_an_amount_that_is_no_number(dusk, amount):
    with pytest.raises(ValueError, match="^Attribute Target: (amount|weight) is "):
        target(dusk[0], amount)
