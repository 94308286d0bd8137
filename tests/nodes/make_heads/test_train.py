"""Train Readout Head inside the real host, on the demo model."""
import logging
import random
import shutil
from dataclasses import replace
from types import SimpleNamespace

import comfy.model_management
import comfy.utils
import folder_paths
import nodes as host_nodes
import pytest
import torch

from interrupting import At
from random_models import random_model
from readout_guidance_pack.heads import HeadFileError, load_head, load_training, save_head
from readout_guidance_pack.heads.demo import world
from readout_guidance_pack.nodes.demo import demo_model
from readout_guidance_pack.nodes.make_heads import train, training
from readout_guidance_pack.nodes.make_heads.examples import examples
from readout_guidance_pack.nodes.make_heads.load_save import SaveReadoutHead
from readout_guidance_pack.nodes.make_heads.training import Training
from readout_guidance_pack.nodes.make_heads.training_set import TrainingSet
from readout_guidance_pack.nodes.samplers import guided_ksampler
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.rg_core.training.recipes import RECIPES, SMALL

pytestmark = pytest.mark.usefixtures("inference_mode")
Interrupted = comfy.model_management.InterruptProcessingException
STEPS = 4


class World:
    def __init__(self):
        self.model, self.clip, self.vae = demo_model.load_demo()
        self.said = [self.clip.encode_from_tokens_scheduled(self.clip.tokenize(words)) for words in ("", "a figure, sea")]
        scene = world.draw(5, seed=5)
        self.images, self.wanted = scene.image.movedim(1, -1)[:, :32, :32], scene.nearness[:, :32, :32, None].expand(-1, -1, -1, 3)

    def given(self, **changes) -> dict:
        """The node's inputs, each in a list, as the host gives them."""
        inputs = {"model": self.model, "kind": "depth", "preset": "small", "steps": STEPS, "batch_size": 2, "learning_rate": 0.0, "seed": 3,
                  "filename_prefix": "readout_heads/mine", "resume": False, "latents": {"samples": self.vae.encode(self.images)},
                  "positive": self.said[0], "image": self.wanted} | changes
        return {name: value if isinstance(value, Lists) else [value] for name, value in inputs.items()}

    def train(self, **changes) -> tuple:
        return train.TrainReadoutHead.execute(**self.given(**changes)).args


class Lists(list):
    """An input that is a list already."""


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        yield World()


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path / "readout_heads"


def weights(head) -> torch.Tensor:
    return torch.cat([x.flatten() for x in head.state_dict().values()])


def test_a_head_comes_with_its_losses_a_report_and_an_image_and_is_kept(w, output):
    before = torch.backends.cudnn.deterministic, torch.get_rng_state()
    head, loss, report, sheet = w.train()
    assert len(loss["loss"]) == STEPS and all(0 < x < 1 for x in loss["loss"])
    assert "trained on 4 images for 4 steps, in" in report and "mine_00001_.safetensors" in report and sheet.shape[0] == 1
    assert torch.backends.cudnn.deterministic == before[0] and torch.equal(torch.get_rng_state(), before[1])
    assert not any(p.requires_grad for p in head.parameters()) and not any(p.is_inference() for p in head.parameters())
    kept = load_head(output / "mine_00001_.safetensors")
    assert torch.equal(weights(kept), weights(head)) and (kept.start, kept.stride, kept.base_model) == (head.start, 2, "DemoWorld")
    assert set(kept.config["explained"]) == {"0.1", "0.3", "0.5", "0.7", "0.9"} and not list(output.glob("*.part"))


def test_another_run_writes_another_file_and_gives_the_same_head(w, output):
    (one, *_), (two, *_) = w.train(), w.train()
    assert torch.equal(weights(one), weights(two)) and len(list(output.iterdir())) == 2
    assert not torch.equal(weights(one), weights(w.train(seed=4)[0]))


def test_it_goes_on_to_the_bit_wherever_it_was_interrupted(w, output):
    whole, curve, _, sheet = w.train(filename_prefix="readout_heads/whole")
    with At(None) as counter:
        w.train(filename_prefix="readout_heads/whole")
    for k, place in enumerate(random.Random(0).sample(range(counter.count), 12)):
        name = f"readout_heads/parts{k}"
        with pytest.raises(Interrupted), At(place):
            w.train(filename_prefix=name)
        # Nothing is kept of the first step, nor in the midst of Adam's.
        done = [load_training(path)[1]["training"]["done"] for path in output.glob(f"parts{k}_*")]
        head, again, report, shown = w.train(filename_prefix=name, resume=True)
        assert torch.equal(weights(head), weights(whole)) and again == curve and torch.equal(shown, sheet), place
        assert ("(the first" in report) == bool(done)
        one, two = ((output / f"{stem}_00001_.safetensors").read_bytes() for stem in ("whole", f"parts{k}"))
        assert one == two


def test_the_hosts_own_interrupt_is_heard_between_steps(w, output, monkeypatch):
    def progress(value, total, preview, **more):
        if value >= 2:  # the host leaves out some
            comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", progress)
    with pytest.raises(Interrupted):
        w.train(steps=1000)
    assert 2 <= load_training(output / "mine_00001_.safetensors")[1]["training"]["done"] < 1000
    load_head(output / "mine_00001_.safetensors")  # usable as it is


@pytest.fixture
def often(monkeypatch):
    """The file is written after every step."""
    monkeypatch.setattr(training, "EVERY", 0.0)
    monkeypatch.setattr(training, "AT_MOST", float("inf"))


def test_what_a_crash_leaves_goes_on_to_the_bit(w, output, often, monkeypatch):
    w.train(filename_prefix="readout_heads/whole")
    step = Training.step

    def crashes(self):
        """Keeps what a crash in this step would leave."""
        for path in output.glob("mine_*"):
            shutil.copy(path, output / f"crash{self.trainer.done}_00001_.safetensors")
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", crashes)
        w.train()
    whole = (output / "whole_00001_.safetensors").read_bytes()
    assert (output / "mine_00001_.safetensors").read_bytes() == whole
    for done in (1, STEPS - 1):
        report = w.train(filename_prefix=f"readout_heads/crash{done}", resume=True)[2]
        assert f"(the first {done} of them earlier)" in report and (output / f"crash{done}_00001_.safetensors").read_bytes() == whole


def test_the_file_is_written_every_five_minutes_and_takes_a_per_cent_of_the_time_at_most(w, monkeypatch):
    clock, written = SimpleNamespace(now=0.0, monotonic=lambda: clock.now), []

    def step(self):
        clock.now, self.trainer.done = clock.now + 200, self.trainer.done + 1

    def save(self, path):
        written.append(self.trainer.done)
        clock.now += 10

    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(Training, "step", step)
    monkeypatch.setattr(Training, "save", save)
    w.train(steps=8)
    assert written == [2, 7, 8]  # 400 s; 1000 s after that was written, in 10 s; the end


def test_a_head_whose_file_cannot_be_written_is_there_all_the_same(w, often, monkeypatch, caplog):
    whole = w.train()[0]

    def full(*_args, **_more):
        raise HeadFileError("mine.safetensors cannot be written (No space left on device).")

    monkeypatch.setattr(training, "save_head", full)
    with caplog.at_level(logging.WARNING):
        head, _, report, _ = w.train()
    assert torch.equal(weights(head), weights(whole)) and "not saved, because nothing could be written to mine_00002_.safetensors" in report
    goes_on, finished = [text for text in caplog.messages if "No space left" in text]
    assert goes_on.startswith("Train Readout Head: mine.safetensors") and goes_on.endswith("Training continues, and the file is written again later.")
    assert "connect Save Readout Head and queue again" in finished
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *_, **more: comfy.model_management.interrupt_current_processing())
    with pytest.raises(Interrupted):
        w.train(steps=1000)
    assert "What was trained since it was last written, up to step" in caplog.text


def test_more_steps_go_on_from_the_end(w):
    w.train()
    head, loss, report, _ = w.train(steps=6, resume=True)
    assert len(loss["loss"]) == 6 and "6 steps (the first 4 of them earlier)" in report
    with_constant_rate = {"preset": "published", "batch_size": 1, "filename_prefix": "readout_heads/published"}
    w.train(**with_constant_rate, steps=2)
    assert torch.equal(weights(w.train(**with_constant_rate, steps=3, resume=True)[0]), weights(w.train(**with_constant_rate, steps=3)[0]))


def test_the_published_preset_is_the_published_network(w):
    head = w.train(preset="published", steps=2, batch_size=1)[0]
    assert head.bottleneck_layers[0].conv3.out_channels == 384 and [layer.out_channels for layer in head.output_head[:5:2]] == [128, 32, 3]
    assert RECIPES["published"].learning_rate == 1e-3 and RECIPES["published"].batch_size == 8


def test_images_of_several_sizes_and_conditionings_are_learnt_from(w):
    latents = Lists([{"samples": w.vae.encode(w.images[:2])}, {"samples": w.vae.encode(w.images[2:, :, :24])}])
    images = Lists([w.wanted[:2], w.wanted[2:, :, :24]])
    said = Lists([w.said[i % 2] for i in range(5)])
    head, loss, *_ = w.train(latents=latents, image=images, positive=said, steps=12)  # enough to have drawn each
    assert len(loss["loss"]) == 12 and torch.isfinite(weights(head)).all()
    other_words = w.train(latents=latents, image=images, positive=w.said[0], steps=12)[0]
    other_images = w.train(latents=latents, image=Lists([images[0], 1 - images[1]]), positive=said, steps=12)[0]
    assert not torch.equal(weights(head), weights(other_words))
    assert not torch.equal(weights(head), weights(other_images))


def test_what_is_trained_steers_and_is_refused_by_another_model(w):
    head = w.train()[0]
    head.start = 0.0
    guidance = DepthTarget.execute(head, w.wanted[:1], 1.0, 0.0, 0.5)[0]
    sample = {"samples": torch.zeros(1, 3, 32, 32)}
    settings = (1, 2, 3.0, "euler", "karras", w.said[1], w.said[0], sample, 1.0)
    out, *_ = guided_ksampler.KSamplerReadoutGuidance.execute(w.model, *settings, guidance, 0.1, "off").args
    plain, = host_nodes.common_ksampler(w.model, *settings[:8])
    assert not torch.equal(out["samples"], plain["samples"])
    with pytest.raises(ValueError, match="depth head was made on DemoWorld"):
        guided_ksampler.KSamplerReadoutGuidance.execute(random_model("small"), *settings, guidance, 0.1, "off")


OTHERS = {"kind": ({"kind": "height"}, "kind 'depth' instead of height"), "seed": ({"seed": 4}, "seed 3 instead of 4"),
          "preset": ({"preset": "published"}, "preset 'small' instead of published"), "batch": ({"batch_size": 1}, "batch_size 2 instead of 1"),
          "rate": ({"learning_rate": 0.5}, "learning_rate 0.001 instead of 0.5"),
          "fewer steps": ({"steps": 3}, "was already trained for 4 steps, and steps is 3")}


@pytest.mark.parametrize("name", OTHERS)
def test_going_on_with_something_else_is_refused_by_name(w, name):
    w.train()
    changes, words = OTHERS[name]
    with pytest.raises(ValueError, match=f"Train Readout Head: mine_00001_.safetensors.*{words}"):
        w.train(resume=True, **changes)


def test_going_on_with_other_images_or_a_file_that_holds_no_training_is_refused(w, output):
    head = w.train()[0]
    for changes in ({"image": 1 - w.wanted}, {"latents": {"samples": w.vae.encode(w.images.flip(0))}}):
        with pytest.raises(ValueError, match="other images, or the same in another order"):
            w.train(resume=True, **changes)
    w.train(resume=True, latents={"samples": w.vae.encode(w.images) + 1e-5})  # another card rounds otherwise
    SaveReadoutHead.execute(head, "readout_heads/mine")
    with pytest.raises(ValueError, match="mine_00002_.safetensors contains a head, but no training state to continue from"):
        w.train(resume=True)


def test_going_on_by_other_words_or_with_other_weights_is_refused(w):
    w.train()
    with pytest.raises(ValueError, match="mine_00001_.safetensors was trained with other conditionings.* Use the same again"):
        w.train(resume=True, positive=w.said[1])
    changed = w.model.clone()  # as by a LoRA
    weights = {name: x for name, x in w.model.model.state_dict().items() if "output_blocks" in name and name.endswith("weight") and x.ndim == 4}
    changed.add_patches({name: (0.1 * x.std() * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),) for name, x in weights.items()})
    with pytest.raises(ValueError, match="mine_00001_.safetensors was trained with something else on MODEL or conditioning, such as another LoRA"):
        w.train(resume=True, model=changed)


def test_files_of_the_same_name_that_are_no_heads_are_passed_over(w, output):
    w.train()
    for name in ("mine_00007_.png", "mine_00003_.txt", "mine_other_00009_.safetensors"):
        (output / name).touch()
    report = w.train(steps=5, resume=True)[2]
    assert "5 steps (the first 4 of them earlier)" in report and "saved in mine_00001_.safetensors" in report


def test_a_state_that_is_damaged_is_refused(w, output):
    w.train()
    path = output / "mine_00001_.safetensors"
    head, (state, config) = load_head(path), load_training(path)
    weight = "head.mixing_weights.exp_avg"
    for changes, known, words in (({}, [1], "was trained with kind None"), ({"curve": state["curve"][:2]}, config["training"], "how far"),
                                  ({}, config["training"] | {"done": -1}, "how far"), ({weight: state[weight][:2]}, config["training"], "mixing"),
                                  ({"dice": state["dice"][:9]}, config["training"], "random numbers"),
                                  ({}, config["training"] | {"taps": [1]}, r"taps \[1\] instead of")):
        save_head(head, path, torch.float32, state | changes, training=known)
        with pytest.raises(ValueError, match=f"Train Readout Head: .*{words}"):
            w.train(resume=True)


BAD = {
    "fewer targets": (lambda w: {"image": w.wanted[:4]}, "got 5 images as latents and 4 images"),
    "constant": (lambda w: {"image": torch.full_like(w.wanted, 0.5)}, "one color everywhere"),
    "nan target": (lambda w: {"image": w.wanted * float("nan")}, "NaN"),
    "nan latent": (lambda w: {"latents": {"samples": torch.full((5, 3, 32, 32), float("nan"))}}, "the latent contains NaN"),
    "one picture": (lambda w: {"latents": {"samples": w.vae.encode(w.images[:1])}, "image": w.wanted[:1]}, "got one image, but needs at least two"),
    "other shape": (lambda w: {"image": w.wanted[:, :, :16]}, "image 1 is 32x32 in latents.*16x32 pixels, a different aspect ratio"),
    "conditionings": (lambda w: {"positive": Lists(w.said)}, "5 images and 2 conditionings"),
    "odd kind": (lambda w: {"kind": "../depth"}, "kind is '../depth'"), "no kind": (lambda w: {"kind": " "}, "kind is ''"),
    "no map": (lambda w: {"kind": "appearance"}, "outputs no image"),
    "path": (lambda w: {"filename_prefix": "../mine"}, "filename_prefix is '../mine'.*not a place in ComfyUI's output folder"),
    "absolute": (lambda w: {"filename_prefix": "/mine"}, "not a place in ComfyUI's output folder"),
    "long name": (lambda w: {"filename_prefix": f"readout_heads/{'x' * 232}"}, "cannot be written.*so training did not start"),
    "diverges": (lambda w: {"learning_rate": 1e30}, "Lower learning_rate")}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_explained_and_nothing_is_written(w, output, name):
    changes, words = BAD[name]
    with pytest.raises(ValueError, match=f"Train Readout Head: .*{words}"):
        w.train(**changes(w))
    assert not list(output.parent.rglob("*.safetensors")) and not (output.parent.parent / "mine_00001_.safetensors").exists()


def test_the_model_is_asked_about_no_more_images_at_a_time_than_fit(w, monkeypatch):
    """A step's loss is the mean of all, in however many parts."""
    monkeypatch.setattr("readout_guidance_pack.nodes.make_heads.examples.MOST_AT_ONCE", 1)
    given = examples(train.NODE, w.model, [{"samples": w.vae.encode(w.images)}], [w.said[0]], [w.wanted], "depth")
    training = Training(TrainingSet(train.NODE, w.model, given, "depth"), replace(SMALL, batch_size=4), 3)
    with torch.inference_mode(False), torch.no_grad():
        parts = [part["head"].item() for part in training.losses(torch.Generator().manual_seed(3))]
    assert len(parts) == 4 and sum(parts) == pytest.approx(w.train(batch_size=4)[1]["loss"][0])
