"""Fit Comparing Head inside the real host, on the demo model."""
import copy
import logging
from types import SimpleNamespace

import comfy.model_management
import comfy.utils
import pytest
import torch
import torch.nn.functional as F
from comfy_extras.nodes_dataset import StripWhitespaceNode

import tiny_transformers
from random_models import conditioning, random_model
from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import world
from readout_guidance_pack.nodes.demo import demo_model
from readout_guidance_pack.nodes.engine.read_features import read_features, sigma_at
from readout_guidance_pack.nodes.engine.reader import read
from readout_guidance_pack.nodes.make_heads import comparer, fit_comparing, held_out, load_save
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.likeness import AppearanceTarget, IdentityTarget
from readout_guidance_pack.rg_core.fitting import pairs
from readout_guidance_pack.rg_core.guidance import energies

pytestmark = pytest.mark.usefixtures("inference_mode")


class World:
    def __init__(self):
        self.model, self.clip, self.vae = demo_model.load_demo()
        self.empty = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(""))
        self.images = world.draw(6, seed=5).image.movedim(1, -1)

    def fit(self, **changes):
        """As the host calls it: every input is a list."""
        given = {"model": [self.model], "vae": [self.vae], "images": [self.images], "positive": [self.empty], "kind": ["correspondence"], "seed": [1]}
        return fit_comparing.FitComparingHead.execute(**given | changes).args

    def read(self, head, images, percent=0.9, seed=3):
        """Readouts [B, C, 32, 32] of images [B, 3, 64, 64], each under noise of its own."""
        x = images * 2 - 1
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        return read_features("test", self.model, self.empty, x, noise, torch.full((len(x),), sigma_at(self.model, percent)),
                             lambda _, reading: read(head, reading, (32, 32)).cpu(), [head])

    def reference(self):
        latent = {"samples": self.vae.encode(self.images[:1])}
        return ReadoutReference.execute(self.model, self.empty, latent, 0, 64)[0]


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparer, "TIMES", 1)  # for half of the time
        yield World()


@pytest.fixture(scope="module")
def fitted(w):
    """What the node gives for each kind, made once."""
    with torch.inference_mode():
        return {kind: w.fit(kind=[kind]) for kind in pairs.RULES}


def same(one, two) -> bool:
    return all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


def test_points_of_other_images_are_found(w, fitted):
    """Where an image has been shifted by a quarter, and its colors turned, beside the pixels as they are."""
    other = world.draw(4, seed=6).image
    moved = other.roll(16, 3).flip(1)  # red for blue
    here, there = w.read(fitted["correspondence"][0], torch.cat([other, moved])).chunk(2)

    def found(one, two):
        best = torch.einsum("bcn,bcm->bnm", *(F.normalize(x, dim=1).flatten(2) for x in (one, two))).argmax(2)
        cell = torch.arange(32 * 32)
        inside = cell % 32 < 24
        distance = torch.hypot((best % 32 - (cell % 32 + 8)).float(), (best // 32 - cell // 32).float())
        return (distance <= 2)[:, inside].float().mean()

    assert found(here, there) > 0.3 > found(F.interpolate(other, scale_factor=0.5), F.interpolate(moved, scale_factor=0.5))


def test_looks_are_told_from_other_colors(w, fitted):
    other = world.draw(6, seed=6).image
    one, near, colored = w.read(fitted["appearance"][0], torch.cat([other, other.roll(1, 3), other.roll(1, 1)])).chunk(3)
    span = torch.ones(6)
    assert (energies.appearance(one, near, span) < energies.appearance(one, colored, span)).float().mean() > 0.8


def test_people_are_known_by_their_groups(w):
    plan = world.plan(24, seed=9)
    who = torch.arange(24) % 4
    plan.shirt, plan.trousers = who, 3 - who
    image, labels = world.render(plan).image, "ABCD"
    head, _, _ = w.fit(kind=["identity"], images=[image[:16].movedim(1, -1)], groups=[",\n".join(labels[i] for i in who[:16])])
    means = F.normalize(w.read(head, image[16:]).mean((2, 3)), dim=1)
    alike = (means @ means.mT).fill_diagonal_(-2)
    assert (who[16:][alike.argmax(1)] == who[16:]).float().mean() > 0.5  # chance is a seventh


def test_the_report_and_the_image(fitted):
    for kind, (head, report, image) in fitted.items():
        assert f"reads {kind} from DemoWorld, fitted from 6 images" in report and report.count("\n  percent") == comparer.BANDS
        assert (head.kind, head.output_head, head.stride, head.base_model) == (kind, None, 2, "DemoWorld")
        assert image.shape[0] == 1 and image.shape[1:] == (2 * 128, 6 * 128, 3)
        assert 0 <= image.min() and image.max() <= 1 and torch.isfinite(image).all()


def test_the_seed_is_all_that_chance_depends_on(w, fitted):
    torch.manual_seed(4)
    assert same(fitted["identity"][0], w.fit(kind=["identity"], images=list(w.images[:, None]), positive=[w.empty] * 6)[0])
    assert not same(fitted["identity"][0], w.fit(kind=["identity"], seed=[2])[0])


def test_saved_and_loaded_it_is_the_same(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(load_save.folder_paths, "get_output_directory", lambda: str(tmp_path))
    head = fitted["appearance"][0]
    load_save.SaveReadoutHead.execute(head, "readout_heads/mine")
    loaded = load_head(next((tmp_path / "readout_heads").glob("mine*.safetensors")))
    assert same(loaded, head) and (loaded.kind, loaded.start, loaded.output_head) == ("appearance", head.start, None)
    assert loaded.config["fitted_on"] == {"pictures": 6, "held_out": 1, "seed": 1}


def test_targets_start_where_the_head_compares(w, fitted):
    reference = w.reference()

    def targets(start, end):
        later = {kind: copy.copy(out[0]) for kind, out in fitted.items()}
        for head in later.values():
            head.start = 0.4
        rest = (1.0, start, end)
        return (DragTarget.execute(reference, "[[[0.2, 0.2], [0.6, 0.6]]]", *rest, later["correspondence"])[0][0],
                AppearanceTarget.execute(reference, *rest, later["appearance"])[0][0],
                IdentityTarget.execute(later["identity"], reference, *rest)[0][0])

    assert [t.start for t in targets(0.0, 0.9)] == [0.4] * 3 and [t.start for t in targets(0.7, 0.9)] == [0.7] * 3
    with pytest.raises(ValueError, match="Drag Target: the correspondence head reads nothing useful before percent 0.4"):
        targets(0.0, 0.3)


def tracks(path, seen=None):
    return {"track_path": path} | ({} if seen is None else {"track_visibility": seen})


def test_tracked_points_are_compared_where_both_frames_show_them(w, monkeypatch):
    path, seen = torch.rand(6, 5, 2) * 60, torch.ones(6, 5, dtype=torch.bool)
    seen[2, 1:] = False  # one point is too few
    path[3, 4] = 80      # beyond the image
    compared = []
    add = comparer.Comparer.add
    monkeypatch.setattr(comparer.Comparer, "add", lambda self, band, c, reading: (compared.append(c), add(self, band, c, reading)))
    head, _, _ = w.fit(tracks=[tracks(path, seen)])
    shares, latents = path / 64, w.images.movedim(-1, 1) * 2 - 1
    mine = [c for c in compared if c.points.shape[1] <= 5]
    assert mine and not same(head, w.fit()[0])
    for comparison in mine:
        i, k = (int((latents - x).abs().flatten(1).sum(1).argmin()) for x in comparison.images)
        both = seen[i] & seen[k] & (shares[[i, k]] <= 1).all(-1).all(0)
        assert 2 not in (i, k) and i != k and torch.equal(comparison.points, shares[[i, k]][:, both])


def test_grouped_images_are_compared_with_their_own_and_with_others(w, monkeypatch):
    compared = []
    add = comparer.Comparer.add
    monkeypatch.setattr(comparer.Comparer, "add", lambda self, band, c, reading: (compared.append(c), add(self, band, c, reading)))
    w.fit(kind=["identity"], groups=["a, a, a, b, b, c"])
    latents, who = w.images.movedim(-1, 1) * 2 - 1, "aaabbc"
    for comparison in compared:
        distances = torch.stack([(latents - x).abs().flatten(1).sum(1) for x in comparison.images])
        i, like, unlike = distances.argmin(1).tolist()
        assert who[i] != who[unlike] and i != like or who[i] == "c" or distances[1].min() > 0
        assert distances[1].min() > 0 or who[i] == who[like]


def test_copies_of_an_image_judge_no_head_that_learnt_from_it_and_are_no_other_image(w):
    images = [image for image in w.images.movedim(-1, 1).split(1) for _ in range(3)]
    for seed in range(5):
        fitter = comparer.Comparer("test", w.model, w.vae, comparer.Images(images, [w.empty] * 18, groups=["a", "b", "c"] * 6), "identity", seed)
        rest, held = held_out.split("test", fitter.several, fitter.rng)
        assert sorted(rest + held) == list(range(18)) and not {i // 3 for i in rest} & {i // 3 for i in held}
        shown = fitter.comparison(0, range(18)).images
        assert not any(torch.equal(shown[0], other) for other in shown[1:])


def test_frames_of_a_video_are_no_copies(w):
    frames = w.images[:1].movedim(-1, 1).expand(6, -1, -1, -1).split(1)
    fitter = comparer.Comparer("test", w.model, w.vae, comparer.Images(list(frames), [w.empty] * 6, tracks=(PATH / 64, torch.ones(6, 5) > 0)),
                               "correspondence", 0)
    rest, held = held_out.split("test", fitter.several, fitter.rng)
    assert sorted(rest + held) == list(range(6)) and len(held) == 1 and fitter.tracked(0, rest)


def test_images_of_several_sizes(w):
    wide = world.draw(3, 48, 80, seed=8).image.movedim(1, -1)
    for kind in pairs.RULES:
        head, report, image = w.fit(kind=[kind], images=[w.images[:3], wide])
        assert "from 6 images" in report and torch.isfinite(image).all()


def test_it_works_for_models_of_stable_diffusions_layout(w):
    class Encoder:  # stands for the VAE of such a model
        def encode(self, image):
            return F.avg_pool2d(image.movedim(-1, 1).sum(1, keepdim=True).expand(-1, 4, -1, -1), 8)

    small = random_model("small")
    images = F.interpolate(w.images[:3].movedim(-1, 1), scale_factor=2).movedim(1, -1)
    head, _, image = fit_comparing.FitComparingHead.execute([small], [Encoder()], [images], [conditioning(768, 0)], ["appearance"], [0]).args
    assert (head.base_model, head.config["text_width"], head.stride) == ("SD15", 768, 1) and torch.isfinite(image).all()


def test_a_batch_is_images_to_a_vae_that_takes_it_for_a_video_too(w):
    words = tiny_transformers.conditioning("qwen-image", 0)
    head, report, image = w.fit(model=[tiny_transformers.tiny_model("qwen-image")], vae=[tiny_transformers.video_vae()], images=[w.images[:2]],
                                  positive=[words])
    assert head.base_model == "QwenImage" and "fitted from 2 images" in report and torch.isfinite(image).all()


def test_it_hears_cancel_while_it_encodes_and_shows_that_it_does(w, monkeypatch):
    encoded, shown = [], []

    class Encoder:  # somebody presses Cancel while the second of 26 times is encoded
        def encode(self, image):
            encoded.append(image)
            comfy.model_management.interrupt_current_processing(len(encoded) == 2)
            return w.vae.encode(image)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **more: shown.append((value, total)))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        w.fit(vae=[Encoder()])
    assert len(encoded) == 2 and shown == [(1, 26 + 5 * 6)]


def test_a_model_that_gives_no_numbers_is_named(w, monkeypatch):
    monkeypatch.setattr(comparer, "resize", lambda x, size: torch.full((*x.shape[:2], *size), torch.nan))
    with pytest.raises(ValueError, match="^Fit Comparing Head: the model's features are NaN or infinite between percent 0.0 and 0.2"):
        w.fit()


def test_images_of_nothing_are_said_to_be_unfit(w, caplog):
    with caplog.at_level(logging.WARNING):
        _, report, _ = w.fit(images=[torch.tensor([0.1, 0.3, 0.7, 0.9]).view(4, 1, 1, 1).expand(4, 64, 64, 3)])
    assert "not fit for use" in report and "Fit Comparing Head: the correspondence head is not fit for use" in caplog.text


def test_a_list_of_groups_has_a_label_for_each_image():
    """As captions come from a folder, with commas in them; the host's nodes for texts give each in a list of its own."""
    captions = ["anna, smiling", "ben", "anna, smiling", " ben\n"]
    wanted = ["anna, smiling", "ben", "anna, smiling", "ben"]
    assert fit_comparing.labels(captions, "identity", 4) == wanted
    assert fit_comparing.labels([StripWhitespaceNode.execute(texts=caption).args[0] for caption in captions], "identity", 4) == wanted
    assert fit_comparing.labels(["anna, ben,\nanna\nben"], "identity", 4) == ["anna", "ben", "anna", "ben"]
    assert fit_comparing.labels([""], "identity", 4) is fit_comparing.labels(["", " ", "", ""], "identity", 4) is None


PATH = torch.rand(6, 5, 2) * 60
BAD = {
    "one picture": (lambda w: {"images": [w.images[:1]]}, "got one image"),
    "one picture again and again": (lambda w: {"images": [w.images[:1].repeat(4, 1, 1, 1)]}, "all 4 images are the same one"),
    "nan": (lambda w: {"images": [w.images * torch.nan]}, "image contains NaN"),
    "bytes": (lambda w: {"images": [w.images * 255]}, "values from"),
    "conditionings": (lambda w: {"positive": [w.empty] * 3}, "got 6 images and 3 conditionings"),
    "groups for points": (lambda w: {"groups": ["a,a,b,b,c,c"]}, "only a head that reads identity can use"),
    "fewer groups": (lambda w: {"kind": ["identity"], "groups": ["a\nb"]}, "got 6 images and 2 groups"),
    "one missing, one with a comma": (lambda w: {"kind": ["identity"], "groups": ["a", "", "b, c", "a", "b", "b"]}, "no label for image 2"),
    "a text too few, one with a comma": (lambda w: {"kind": ["identity"], "groups": ["a", "b, c", "a", "b", "b"]}, "got 6 images and 5 groups"),
    "no texts": (lambda w: {"kind": ["identity"], "groups": [1, 2, 3, 4, 5, 6]}, "groups is 1, but must be text"),
    "one group": (lambda w: {"kind": ["identity"], "groups": ["a,a,a,a,a,a"]}, "every image is in the group 'a'"),
    "tracks for looks": (lambda w: {"kind": ["appearance"], "tracks": [tracks(PATH)]}, "only a head that reads correspondence can use"),
    "fewer frames": (lambda w: {"tracks": [tracks(PATH[:4])]}, "got tracks of 4 frames and 6 images"),
    "another canvas": (lambda w: {"tracks": [tracks(PATH * 8 + 65)]}, "outside the images of 64x64"),
    "never seen twice": (lambda w: {"tracks": [tracks(PATH, torch.zeros(6, 5))]}, "almost no point"),
    "no tracks": (lambda w: {"tracks": [{"track_path": PATH * torch.nan}]}, "cannot be used"),
    "frames of two sizes": (lambda w: {"images": [w.images[:5], w.images[5:, :48]], "tracks": [tracks(PATH)]}, "of one size"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_are_explained(w, case):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=f"^Fit Comparing Head: .*{message}"):
        w.fit(**changes(w))


def test_models_without_taps_and_other_models_vaes_are_refused(w):
    model = random_model("small")
    with pytest.raises(ValueError, match=r"^Fit Comparing Head: the latent has 3 channels, but this model \(SD15\) needs 4"):
        w.fit(model=[model])
    del model.model.diffusion_model.output_blocks
    with pytest.raises(ValueError, match=r"^Fit Comparing Head: this model \(SD15\) cannot be guided by its features"):
        w.fit(model=[model])
    with pytest.raises(ValueError, match="^Fit Comparing Head: there is no VAE"):
        w.fit(vae=[None])


@pytest.mark.parametrize("kind", ["identity", "appearance"])
@pytest.mark.parametrize("count", [2, 8, 24])
def test_chance_is_not_praised(kind, count, caplog):
    """Heads that order triplets by chance, the same in all bands of noise, which misleads most."""
    rng, head, words = torch.Generator().manual_seed(0), SimpleNamespace(kind=kind, base_model="a model"), []
    for _ in range(2000):
        share = (torch.rand(count, generator=rng) < 0.5).float().mean().item()
        words.append(fit_comparing.report(head, comparer.Found([share] * comparer.BANDS, count, 0.0, []), 5 * count, 1.0))
    assert sum("It compares" in report for report in words) <= 0.02 * len(words)
    shares = [0.5, 0.6, 0.95, 1.0, 1.0]
    assert ("It compares roughly" in fit_comparing.report(head, comparer.Found(shares, 24, 0.0, []), 120, 1.0))
    assert "too few to show it" in fit_comparing.report(head, comparer.Found([1.0] * 5, 2, 0.0, []), 5, 1.0)
