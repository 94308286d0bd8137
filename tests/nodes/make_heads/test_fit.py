"""Fit Readout Head and Map Target inside the real host, on the demo model."""
import copy
import logging
from types import SimpleNamespace

import comfy.controlnet
import comfy.model_management
import folder_paths
import pytest
import torch
from comfy_extras import nodes_dataset

from random_models import conditioning, random_model
from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import judge, world
from readout_guidance_pack.nodes.common import model_checks
from readout_guidance_pack.nodes.demo import demo_model
from readout_guidance_pack.nodes.make_heads import estimate, examples, fit, fitter, held_out, load_save, reports, training_set
from readout_guidance_pack.nodes.make_heads.evaluation import Judge, Quality
from readout_guidance_pack.nodes.make_heads.examples import Example
from readout_guidance_pack.nodes.samplers import guided_ksampler
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.map import MapTarget
from readout_guidance_pack.rg_core.fitting import ridge
from tiny_transformers import tiny_model

pytestmark = pytest.mark.usefixtures("inference_mode")


class World:
    def __init__(self):
        self.model, self.clip, self.vae = demo_model.load_demo()
        self.empty = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(""))
        self.scene = world.draw(12, seed=5)
        self.depth = self.scene.nearness[..., None].expand(-1, -1, -1, 3)
        self.latents = {"samples": self.vae.encode(self.scene.image.movedim(1, -1))}

    def fit(self, **changes):
        """As the host calls it: every input is a list."""
        given = {"model": [self.model], "latents": [self.latents], "positive": [self.empty], "image": [self.depth], "kind": ["depth"], "seed": [1]}
        return fit.FitReadoutHead.execute(**given | changes).args


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        yield World()


@pytest.fixture(scope="module")
def depth(w):
    with torch.inference_mode():
        return w.fit()


class OnCard(torch.Tensor):
    """Stands for a tensor on a GPU, which is not computed with one of main memory."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is not torch.Tensor.__getitem__ and any(type(x) is torch.Tensor and x.ndim for x in args):
            raise RuntimeError(f"Expected all tensors to be on the same device ({func}).")
        if func is not torch.Tensor.cpu:
            return super().__torch_function__(func, types, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return args[0].as_subclass(torch.Tensor)


def same(one, two) -> bool:
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_what_is_fitted_reads_other_images(w, depth):
    head, report, sheet = depth
    other = world.draw(4, seed=6)
    image = estimate.ReadoutEstimate.execute(w.model, head, w.empty, 0.9, 1, image=other.image.movedim(1, -1), vae=w.vae)[0]
    error, constant = ((x - other.nearness).abs().mean() for x in (image.mean(-1), w.scene.nearness.mean(0)))
    assert error < 0.7 * constant
    assert "reads depth from DemoWorld, fitted from 12 images" in report and "It reads" in report
    assert sheet.shape == (1, 2 * 128, 7 * 128, 3) and 0 <= sheet.min() and sheet.max() <= 1


def test_it_steers(w, depth):
    other = world.draw(4, seed=7)
    guidance = DepthTarget.execute(depth[0], other.nearness[..., None].expand(-1, -1, -1, 3), 1.0, 0.0, 0.9)[0]
    rest = (1, 12, 3.0, "dpmpp_2m", "karras", w.empty, w.empty, {"samples": torch.zeros(4, 3, 64, 64)}, 1.0)
    latents = [guided_ksampler.KSamplerReadoutGuidance.execute(w.model, *rest, guidance, strength)[0] for strength in (0.1, 0.0)]
    errors = [judge.mae(w.vae.decode(latent["samples"]).movedim(-1, 1), other.nearness).mean() for latent in latents]
    assert errors[0] < 0.8 * errors[1]


def test_lists_and_batches_are_the_same(w, depth):
    singles = [{"samples": x[None]} for x in w.latents["samples"]]
    assert same(depth[0], w.fit(latents=singles, image=list(w.depth[:, None]))[0])
    halves = [{"samples": x} for x in w.latents["samples"].split(5)]
    assert same(depth[0], w.fit(latents=halves, positive=[w.empty] * 12)[0])


def test_images_may_lie_on_the_card(w, depth):
    """As with --gpu-only."""
    latents, images = (x.clone().as_subclass(OnCard) for x in (w.latents["samples"], w.depth))
    assert same(depth[0], w.fit(latents=[{"samples": latents}], image=[images])[0])


def test_images_of_several_sizes(w):
    wide = world.draw(4, 48, 80, seed=8)
    latents = [w.latents, {"samples": w.vae.encode(wide.image.movedim(1, -1))}]
    large = torch.nn.functional.interpolate(wide.nearness[:, None], scale_factor=3)[:, 0, ..., None].expand(-1, -1, -1, 3)
    head, report, _ = w.fit(latents=latents, image=[w.depth, large])
    assert "from 16 images" in report
    other = world.draw(4, 48, 80, seed=9)  # of the second size
    read = estimate.ReadoutEstimate.execute(w.model, head, w.empty, 0.9, 1, image=other.image.movedim(1, -1), vae=w.vae)[0][..., 0]
    assert (read - other.nearness).abs().mean() < 0.5 * (other.nearness - other.nearness.mean()).abs().mean()


def test_held_out_images_are_shown_in_their_own_shapes(w, depth):
    seen = []
    for height, width in ((32, 64), (64, 32)):
        latent, wanted = torch.zeros(1, 3, height, width), torch.zeros(1, 3, height // 2, width // 2)
        seen.append((Example(latent, w.empty, wanted), wanted, [wanted]))
    image = reports.sheet(w.model, depth[0], Quality([0.5], [1.0], 0.0, seen))
    grey = (image - 0.5).abs().amax(-1)[0] < 0.1
    assert image.shape == (1, 128 + 256, 3 * 256, 3)
    assert grey[:128].all() and grey[128:, :3 * 128].all() and not grey[128:, 3 * 128:].any()


def test_each_image_is_read_by_its_own_words(w, depth):
    said = [w.clip.encode_from_tokens_scheduled(w.clip.tokenize(p)) for p in w.scene.prompts()]
    assert not same(depth[0], w.fit(positive=said)[0])
    assert same(w.fit(positive=said)[0], w.fit(positive=said)[0])


@pytest.mark.parametrize("sizes", [[12], [8, 4]])
def test_each_image_of_a_bucket_is_read_by_its_own_words(w, sizes):
    """The host's Resolution Bucket gives a batch of one size and a conditioning with the words of each of its images."""
    latents = [{"samples": x} for x in w.latents["samples"][:, :, :48].split(sizes)]
    for bucket in latents[1:]:
        bucket["samples"] = bucket["samples"][:, :, :, :48]
    shown = [image[None, :48, :latents[min(i // 8, len(sizes) - 1)]["samples"].shape[-1]] for i, image in enumerate(w.depth)]
    said = [w.clip.encode_from_tokens_scheduled(w.clip.tokenize(p)) for p in w.scene.prompts()]
    buckets = nodes_dataset.ResolutionBucket.execute([{"samples": x[None]} for bucket in latents for x in bucket["samples"]], said).args
    assert [len(bucket) for bucket in buckets[1]] == sizes
    assert same(w.fit(latents=buckets[0], positive=buckets[1], image=shown)[0], w.fit(latents=latents, positive=said, image=shown)[0])


@pytest.mark.parametrize("order, said", [("same", False), ("shuffled", True), ("shifted", True), ("none", False)])
def test_images_and_targets_in_different_orders_are_said(w, depth, order, said):
    places = {"same": torch.arange(12), "shuffled": torch.randperm(12, generator=torch.Generator().manual_seed(1)),
              "shifted": torch.arange(12).roll(1), "none": torch.arange(12)}[order]
    image = torch.rand(12, 64, 64, 3, generator=torch.Generator().manual_seed(2)) if order == "none" else w.depth[places]
    report = w.fit(image=[image])[1]
    assert ("are in different orders" in report) == said


def test_copies_of_an_image_are_held_out_together():
    rng = torch.Generator().manual_seed(1)
    made = torch.randn(10, 1, 4, 16, 16, generator=rng)
    images = [*made, *(made[:6] + 0.01 * torch.randn(6, 1, 4, 16, 16, generator=rng))]
    for seed in range(20):
        rest, held = held_out.split("test", held_out.distinct(images), torch.Generator().manual_seed(seed))
        assert sorted(rest + held) == list(range(16)) and 3 <= len(held) <= 4
        assert not {i % 10 for i in rest} & {i % 10 for i in held}
    assert held_out.split("test", held_out.distinct(list(made)), torch.Generator().manual_seed(3))[1] == torch.randperm(
        10, generator=torch.Generator().manual_seed(3))[:2].tolist()
    with pytest.raises(ValueError, match="^test: all 3 images are the same one"):
        held_out.split("test", held_out.distinct([made[0]] * 3), rng)


def test_the_seed_is_all_that_chance_depends_on(w, depth):
    torch.manual_seed(4)
    assert same(depth[0], w.fit()[0])
    assert not same(depth[0], w.fit(seed=[2])[0])


def test_the_last_fit_is_of_all_images(w, depth, monkeypatch):
    seen = []
    add = ridge.Sums.add
    monkeypatch.setattr(ridge.Sums, "add", lambda self, band, x, y: (seen.append((band, len(x))), add(self, band, x, y)))
    w.fit()
    assert sorted(seen) == [(band, 32 * 32) for band in range(fitter.BANDS) for _ in range(12)]


def test_saved_and_loaded_it_is_the_same(w, depth, tmp_path, monkeypatch):
    monkeypatch.setattr(load_save.folder_paths, "get_output_directory", lambda: str(tmp_path))
    load_save.SaveReadoutHead.execute(depth[0], "readout_heads/mine")
    head = load_head(next((tmp_path / "readout_heads").glob("mine*.safetensors")))
    assert same(head, depth[0])
    kept = ("kind", "base_model", "channels", "control_range", "stride", "start", "output_head")
    assert [getattr(head, name) for name in kept] == [getattr(depth[0], name) for name in kept]
    assert head.config["fitted_on"] == {"pictures": 12, "held_out": 2, "seed": 1} and len(head.config["explained"]) == fitter.BANDS


def test_a_kind_of_ones_own_steers_by_map_target_alone(w):
    coats = judge.shirt(w.scene.image)[..., None].float().expand(-1, -1, -1, 3)
    head, report, _ = w.fit(image=[coats], kind=["the shirt"])
    assert head.kind == "the shirt" and "reads the shirt" in report
    target, = MapTarget.execute(head, coats[:1], 1.0, 0.0, 0.9)[0]
    assert target.name == "the shirt" and target.start == head.start
    with pytest.raises(ValueError, match="Depth Target: the head reads the shirt, .* For heads of your own kinds, use Map Target"):
        DepthTarget.execute(head, coats[:1], 1.0, 0.0, 0.9)


@pytest.mark.parametrize("written, kind", [("Depth", "depth"), (" edges", "edge"), ("POSE", "pose"), ("Dresses", "Dresses"), ("glass", "glass")])
def test_the_known_kinds_are_known_however_they_are_written(written, kind):
    assert examples.kind_given("Fit Readout Head", written) == kind


def test_a_text_may_be_a_list_of_one(tmp_path, monkeypatch):
    """As the host's nodes for texts give it."""
    given = nodes_dataset.TruncateTextNode.execute(texts="Depth maps", max_length=5).args[0]
    assert examples.kind_given("Fit Readout Head", given) == "depth"
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    assert load_save.save_paths("Save Readout Head", ["readout_heads/of_a_list"])[0].name.startswith("of_a_list_")
    for text in (["a", "b"], [], 3, None, [["a"]]):
        with pytest.raises(ValueError, match="^Fit Attribute: name is .*must be text"):
            examples.kind_given("Fit Attribute", text, "name")


def test_targets_start_where_the_head_reads_something(depth):
    head = copy.copy(depth[0])
    head.start = 0.4
    for given, used in ((0.0, 0.4), (0.7, 0.7)):
        assert DepthTarget.execute(head, torch.rand(1, 8, 8, 3), 1.0, given, 0.9)[0][0].start == used
    with pytest.raises(ValueError, match="reads nothing useful before percent 0.4"):
        DepthTarget.execute(head, torch.rand(1, 8, 8, 3), 1.0, 0.0, 0.3)


def test_what_the_model_does_not_know_is_said_to_be_unfit(w, caplog):
    noise = torch.rand(12, 64, 64, 3, generator=torch.Generator().manual_seed(3))
    with caplog.at_level(logging.WARNING):
        head, report, _ = w.fit(image=[noise], kind=["noise"])
    assert "not fit for use" in report and "noise head is not fit for use" in caplog.text


def test_other_models_refuse_it_by_name(depth):
    for name in ("small", "small sd2"):
        with pytest.raises(ValueError, match=r"the depth head was made on DemoWorld .* this model \(SD(15|20)\)"):
            model_checks.heads_fit("KSampler", random_model(name), [depth[0]])
    small = random_model("small")
    head = fit.FitReadoutHead.execute([small], [{"samples": torch.randn(3, 4, 16, 16)}], [conditioning(768, 0)], [torch.rand(3, 128, 128, 3)],
                                      ["depth"], [0])[0]
    assert (head.base_model, head.config["text_width"], head.stride) == ("SD15", 768, 1)
    other = random_model("small", context_dim=1024)  # the same taps
    with pytest.raises(ValueError, match="trained on SD15, but this model is from another family"):
        model_checks.heads_fit("KSampler", other, [head])


def test_an_interrupt_leaves_the_model_as_it_was(w):
    def state():
        unet = w.model.model.diffusion_model
        return ([id(p) for p in unet.parameters()], [len(m._forward_hooks) for m in unet.modules()], dict(w.model.wrappers))

    before = state()
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        w.fit()
    assert state() == before
    assert w.fit()[1].startswith("A head")


def test_odd_depth_maps_are_named_once_however_they_come(w, caplog):
    odd = torch.cat([torch.ones(1, 64, 64, 3), w.depth[1:].flip(1)])
    for given in ([odd], list(odd.split(1))):
        caplog.clear()
        examples.examples("Fit Readout Head", w.model, [w.latents], [w.empty], given, "depth")
        said, = caplog.messages
        assert "image 1 has one value everywhere" in said and "brighter, and so nearer, at the top" in said
        assert "put Invert Image before this node" in said and "invert," not in said
    caplog.clear()
    examples.examples("Fit Readout Head", w.model, [w.latents], [w.empty], list((1 - w.depth).clamp(0.6, 1).split(1)), "edge")
    assert len(caplog.messages) == 1 and "mostly white" in caplog.text


def hinted(words: list, count: int) -> list[list]:
    """One conditioning with two ControlNets, the first applied with a batch of `count` hints."""
    many, one = (comfy.controlnet.ControlBase().set_cond_hint(torch.rand(n, 3, 64, 64)) for n in (count, 1))
    one.set_previous_controlnet(many)
    return [[[words[0][0], {"control": one}]]]


def test_one_hint_may_be_for_all_images(w, monkeypatch):
    read = []
    monkeypatch.setattr(comfy.controlnet.ControlBase, "get_control", lambda self, x, *_: read.append(len(x)), raising=False)
    w.fit(positive=hinted(w.empty, 1))
    assert read


BAD = {
    "fewer images": (lambda w: {"image": [w.depth[:5]]}, "got 12 images as latents and 5 images"),
    "one picture": (lambda w: {"latents": [{"samples": w.latents["samples"][:1]}], "image": [w.depth[:1]]}, "got one image"),
    "conditionings": (lambda w: {"positive": [w.empty] * 3}, "got 12 images and 3 conditionings"),
    "prompts in one": (lambda w: {"positive": [[[w.empty[0][0].expand(12, -1, -1), {}]]]}, "one conditioning contains 12 prompts"),
    "limited": (lambda w: {"positive": [[[w.empty[0][0], {"end_percent": 0.5}]]]}, "only part of the time"),
    "hints in one": (lambda w: {"positive": hinted(w.empty, 12)}, "one conditioning contains 12 images or masks.* Connect a list of conditionings"),
    "masks in one": (lambda w: {"positive": [[[w.empty[0][0], {"mask": torch.ones(3, 64, 64)}]]]}, "one conditioning contains 3 images or masks"),
    "inpainting in one": (lambda w: {"positive": [[[w.empty[0][0], {"concat_latent_image": torch.ones(12, 3, 8, 8)}]]]},
                          "one conditioning contains 12 images"),
    "an area": (lambda w: {"positive": [[[w.empty[0][0], {"area": (64, 32, 0, 0), "strength": 1.0}]]]}, "leaves out 50% of the image"),
    "constant": (lambda w: {"image": [torch.full((12, 64, 64, 3), 0.5)], "kind": ["own"]}, "one color everywhere"),
    "nan": (lambda w: {"image": [torch.full((12, 64, 64, 3), torch.nan)]}, "image contains NaN"),
    "bytes": (lambda w: {"image": [w.depth * 255], "kind": ["own"]}, "values from .* to 253"),
    "shape": (lambda w: {"image": [torch.rand(12, 64, 96, 3)]}, "image 1 is 64x64 in latents, but the image of what to read from it is 96x64 pixels"),
    "other model's latents": (lambda w: {"latents": [{"samples": torch.zeros(12, 4, 8, 8)}]}, "4 channels"),
    "nan latents": (lambda w: {"latents": [{"samples": torch.full((12, 3, 64, 64), torch.nan)}]}, "latent contains NaN"),
    "no name": (lambda w: {"kind": ["  "]}, "kind is ''"),
    "a path": (lambda w: {"kind": ["../depth"]}, "kind is '../depth'"),
    "odd letters": (lambda w: {"kind": ["hair\n<b>"]}, "kind is "),
    "comparing": (lambda w: {"kind": ["identity"]}, "identity outputs no image.* Choose another kind"),
    "comparing, in capitals": (lambda w: {"kind": ["Keypoint"]}, "keypoints outputs no image"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_are_explained(w, case):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=f"^Fit Readout Head: .*{message}"):
        w.fit(**changes(w))


def test_what_made_one_latent_of_many_images_is_named(w):
    one = {"samples": torch.zeros(1, 16, 1, 8, 8)}
    with pytest.raises(ValueError, match=r"got 1 images as latents and 12 images .*: put Rebatch Images \(batch_size 1\) before VAE Encode"):
        w.fit(model=[tiny_model("qwen-image")], latents=[one])


def test_a_model_without_taps_is_refused(w):
    model = random_model("small")
    del model.model.diffusion_model.output_blocks
    with pytest.raises(ValueError, match=r"^Fit Readout Head: this model \(SD15\) cannot be guided by its features"):
        w.fit(model=[model])


def test_the_best_ridge_is_chosen_for_each_band_and_shares_are_those_of_the_variance():
    judged = Judge(2, torch.zeros(1, 3, 2, 2))
    wanted = torch.ones(1, 3, 2, 2)
    for band, readouts in ((0, (0.0, 0.5)), (1, (0.9, 0.2))):  # of 1
        judged.add(band, object(), wanted, [wanted * x for x in readouts])
    found = judged.quality(judged.best())
    assert judged.best() == [1, 0]
    assert found.shares == pytest.approx([0.75, 0.99]) and found.start == 0.0 and found.percents == [0.25, 0.75]


def test_taps_of_one_call_are_told_apart_by_image(w):
    """Images that are read at a time, each at a noise level of its own, are read as they are alone."""
    given = fit.examples(fit.NODE, w.model, [w.latents], [w.empty], [w.depth], "depth")
    one = fitter.Fitter(fit.TrainingSet(fit.NODE, w.model, given, "depth"), 0)
    together, alone = [], []
    one.look([0, 1, 2], lambda band, example, reading: together.append((band, reading.emb.clone(), reading.features[3].clone())))
    noise, percents = torch.Generator().manual_seed(0), []
    for band in range(fitter.BANDS):
        percents.append((band + torch.rand(3, generator=noise)) / fitter.BANDS)
        drawn = torch.randn(3, 3, 64, 64, generator=noise)
        for i in range(3):
            level = torch.tensor([training_set.sigma_at(w.model, float(percents[-1][i]))])
            training_set.read_features(fit.NODE, w.model, w.empty, w.latents["samples"][i:i + 1].cpu(), drawn[i:i + 1], level,
                      lambda _, reading: alone.append((band, reading.emb.clone(), reading.features[3].clone())))
    assert len(together) == len(alone) == 3 * fitter.BANDS
    for (band, emb, features), (other, emb_alone, features_alone) in zip(together, alone):
        assert band == other and torch.allclose(emb, emb_alone, atol=1e-4) and torch.allclose(features, features_alone, atol=1e-3)


def test_a_model_that_gives_no_numbers_is_named(w, monkeypatch):
    rows = ridge.rows
    monkeypatch.setattr(ridge, "rows", lambda features, size: rows(features, size) * torch.nan)
    with pytest.raises(ValueError, match="^Fit Readout Head: the model's features are NaN or infinite between percent 0.0 and 0.2"):
        w.fit()


@pytest.mark.parametrize("kind, free, expected", [("cuda", 4e9, "cuda"), ("cuda", 3e9, "cpu"), ("mps", 4e9, "cpu"), ("cpu", 4e9, "cpu")])
def test_where_equations_are_solved(kind, free, expected, monkeypatch):
    """No GPU is at hand: what the host would say of one is made up."""
    made = []
    monkeypatch.setattr(training_set.comfy.model_management, "free_memory", lambda size, device: made.append(size))
    monkeypatch.setattr(training_set.comfy.model_management, "get_free_memory", lambda device: free)
    device = training_set.solving_device(SimpleNamespace(load_device=torch.device(kind)), 10560)
    assert device.type == expected and made == ([4 * 8 * 10560**2] if kind == "cuda" else [])
