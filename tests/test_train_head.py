"""python run.py train-head: folders in, a head's file out."""
import os
import signal
import subprocess
import sys

import comfy.model_management
import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from readout_guidance_pack.heads import load_head, load_training
from readout_guidance_pack.heads.demo import world
from readout_guidance_pack.heads.files import HeadFileError
from readout_guidance_pack.nodes.demo import demo_model
from readout_guidance_pack.nodes.make_heads.train import TrainReadoutHead
from tools import ROOT, train_head
from tools.host import folders

FEW = ["--steps", "4", "--batch-size", "2", "--seed", "3"]


@pytest.fixture
def scenes(tmp_path):
    """Five small images in one folder, their depth in another."""
    scene = world.draw(5, seed=5)
    for name in ("pictures", "depth"):
        (tmp_path / name).mkdir()
    for i, (image, near) in enumerate(zip(scene.image[..., :32, :32], scene.nearness[:, :32, :32])):
        to_pil_image(image).save(tmp_path / "pictures" / f"scene {i}.png")
        Image.fromarray((near.numpy() * 65535).astype(np.uint16)).save(tmp_path / "depth" / f"scene {i}.png")
    (tmp_path / "pictures" / "scene 2.txt").write_text("a figure, sea\n")
    return tmp_path


def run(folder, *more, out="head.safetensors", model=("--demo",)) -> int:
    return train_head.main([str(folder / "pictures"), str(folder / "depth"), *model, "--kind", "depth", "--out", str(folder / out), *FEW, *more])


def weights(path) -> torch.Tensor:
    return torch.cat([x.flatten() for x in load_head(path).state_dict().values()])


def test_it_trains_what_the_node_does_on_the_same_images(scenes, capsys, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(scenes / "output"))
    assert run(scenes) == 0
    said = capsys.readouterr().out
    assert "5 pictures, 2 different captions" in said and "step 4 of 4" in said and "trained on 4 images for 4 steps" in said
    assert Image.open(scenes / "head.png").size[0] > 0
    with torch.inference_mode():
        model, clip, vae = demo_model.load_demo()
        prompts = {words: clip.encode_from_tokens_scheduled(clip.tokenize(words)) for words in ("", "a figure, sea")}
        images, depth = ([folders.load(scenes / name / f"scene {i}.png") for i in range(5)] for name in ("pictures", "depth"))
        said = [prompts["a figure, sea" if i == 2 else ""] for i in range(5)]
        latents = [{"samples": vae.encode(x)} for x in images]
        head, *_ = TrainReadoutHead.execute([model], latents, said, depth, ["depth"], ["small"], [4], [2], [0.0], [3], ["head"], [False]).args
    assert torch.equal(weights(scenes / "head.safetensors"), torch.cat([x.flatten() for x in head.state_dict().values()]))


def test_ctrl_c_keeps_the_last_step_and_resume_goes_on_from_it(scenes, monkeypatch, capsys):
    assert run(scenes) == 0
    handler, hook = signal.getsignal(signal.SIGINT), train_head.shows

    def pressing(begin):
        def progress(value, total, preview=None, **more):
            if value == 1:  # the first is always shown
                signal.raise_signal(signal.SIGINT)
        return progress

    monkeypatch.setattr(train_head, "shows", pressing)
    assert run(scenes, out="parts.safetensors") == 130
    assert load_training(scenes / "parts.safetensors")[1]["training"]["done"] == 1
    assert signal.getsignal(signal.SIGINT) is handler and not comfy.model_management.processing_interrupted()
    monkeypatch.setattr(train_head, "shows", hook)
    with pytest.raises(SystemExit):
        run(scenes, out="parts.safetensors")
    assert "parts.safetensors is there already; --resume goes on" in capsys.readouterr().err
    assert run(scenes, "--resume", out="parts.safetensors") == 0
    assert (scenes / "head.safetensors").read_bytes() == (scenes / "parts.safetensors").read_bytes()
    assert run(scenes, "--resume", "--seed", "4", out="parts.safetensors") == 1
    assert "train-head: parts.safetensors was trained with seed 3 instead of 4" in capsys.readouterr().err


def lacking(folder):
    (folder / "depth" / "scene 1.png").unlink()


def twice(folder):
    Image.new("RGB", (32, 32)).save(folder / "depth" / "scene 1.jpg")


def damaged(folder):
    path = folder / "pictures" / "scene 3.png"
    path.write_bytes(path.read_bytes()[:200])


def wide(folder):
    Image.new("L", (64, 32)).save(folder / "depth" / "scene 0.png")


def emptied(folder):
    for path in (folder / "pictures").iterdir():
        path.unlink()


BAD = {"missing": (lacking, "depth has no picture of the name of scene 1.png"), "twice": (twice, "both scene 1.jpg and scene 1.png"),
       "damaged": (damaged, r"scene 3.png cannot be read as a picture"), "shape": (wide, "image 1 is 32x32 in latents"),
       "empty": (emptied, "holds no pictures")}


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_are_explained_and_nothing_is_written(scenes, capsys, name):
    spoil, words = BAD[name]
    spoil(scenes)
    assert run(scenes) == 1
    said = capsys.readouterr().err
    assert said.startswith("train-head: ") and words in said
    assert not list(scenes.glob("head*"))


def test_a_file_that_is_no_checkpoint_is_explained(scenes, capsys):
    (scenes / "model.safetensors").write_bytes(b"nothing")
    assert run(scenes, model=("--checkpoint", str(scenes / "model.safetensors"))) == 1
    assert run(scenes, model=("--checkpoint", str(scenes / "not there.safetensors"))) == 1
    said = capsys.readouterr().err
    assert "model.safetensors" in said and "not there.safetensors" in said


@pytest.mark.parametrize("arguments, words", [(["--steps", "0"], "must be above 0"), (["--out", "head.pt"], "head's file ends in .safetensors")])
def test_bad_options_are_explained(scenes, capsys, arguments, words):
    with pytest.raises(SystemExit):
        run(scenes, *arguments)
    assert words in capsys.readouterr().err


def test_images_of_any_depth_and_orientation_are_read_rightly(tmp_path):
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert torch.allclose(folders.load(tmp_path / "deep.png")[0, 0, :, 1], torch.tensor([0.0, 0.5, 1.0]), atol=1e-4)
    image, turned = Image.new("RGBA", (4, 2), (255, 0, 0, 9)), Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    image.convert("RGB").save(tmp_path / "turned.jpg", exif=turned)
    image.save(tmp_path / "clear.png")
    assert folders.load(tmp_path / "turned.jpg").shape == (1, 4, 2, 3) and folders.load(tmp_path / "clear.png").shape == (1, 2, 4, 3)
    assert folders.load(tmp_path / "clear.png")[0, 0, 0].tolist() == [1, 0, 0]


def test_large_targets_shrink_in_their_own_shape():
    image = torch.rand(1, 90, 160, 3)
    assert train_head.smaller(image, (9, 16)).shape == (1, 9, 16, 3) and train_head.smaller(image, (9, 8)).shape == (1, 9, 16, 3)
    assert train_head.smaller(image, (90, 160)) is image


def test_where_the_file_could_not_be_written_the_command_says_so_and_fails(scenes, monkeypatch, capsys, caplog):
    def full(*_):
        raise HeadFileError("out.safetensors cannot be written (no space left).")

    monkeypatch.setattr("readout_guidance_pack.nodes.make_heads.training.Training.save", full)
    assert run(scenes, out="full.safetensors") == 1
    assert not (scenes / "full.safetensors").exists() and "cannot be written" in caplog.text
    assert "not saved, because nothing could be written to full.safetensors" in capsys.readouterr().out


@pytest.mark.parametrize("ending, encoding", [(".txt", "utf-8"), (".txt", "utf-8-sig"), (".txt", "utf-16"), (".caption", "utf-8")])
def test_captions_are_read_as_editors_save_them(tmp_path, ending, encoding):
    (tmp_path / f"a{ending}").write_text("a château at dusk\n", encoding=encoding)
    assert folders.caption(tmp_path / "a.png") == "a château at dusk" and folders.caption(tmp_path / "b.png") == ""


def test_captions_that_are_no_text_are_named(tmp_path):
    (tmp_path / "a.txt").write_text("a château", encoding="latin-1")
    with pytest.raises(folders.FolderError, match="a.txt is no text in UTF-8"):
        folders.caption(tmp_path / "a.png")


def by_processes(folder, count: int, batch: int, *more, out: str):
    """The command in so many processes, as torchrun starts it."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m"]
    options = [str(folder / "pictures"), str(folder / "depth"), "--demo", "--kind", "depth", "--out", str(folder / out), "--seed", "3",
               "--batch-size", str(batch), *more]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.run([*(start if count > 1 else [sys.executable, "-m"]), "tools.train_head", *options], cwd=ROOT, env=environment,
                          capture_output=True, text=True)


def test_two_processes_train_the_head_of_one_with_twice_the_batch(scenes):
    """Of their five images one has another size, so that some parts of a batch are one process's alone."""
    for name in ("pictures", "depth"):
        image = Image.open(scenes / name / "scene 4.png")
        image.resize((48, 32)).save(scenes / name / "scene 4.png")
    alone = by_processes(scenes, 1, 4, "--steps", "6", out="one.safetensors")
    assert alone.returncode == 0, alone.stderr
    together = by_processes(scenes, 2, 2, "--steps", "6", out="two.safetensors")
    assert together.returncode == 0, together.stderr
    one, two = weights(scenes / "one.safetensors"), weights(scenes / "two.safetensors")
    assert (one - two).abs().max() < 1e-5
    assert together.stdout.count("trained on 4 images for 6 steps") == together.stdout.count("step 6 of 6") == 1  # one of them says so
    assert not list(scenes.glob("*.part"))
    further = by_processes(scenes, 2, 2, "--steps", "8", "--resume", out="one.safetensors")  # what one began two end
    assert further.returncode == 0, further.stderr
    alone = by_processes(scenes, 1, 4, "--steps", "8", "--resume", out="two.safetensors")
    assert alone.returncode == 0, alone.stderr
    assert (weights(scenes / "one.safetensors") - weights(scenes / "two.safetensors")).abs().max() < 1e-5
