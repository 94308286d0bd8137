"""`run.py evaluate --checkpoint`: readouts beside a ControlNet on somebody's own files. The demo stands for a checkpoint, with the host's
Canny; the host's pose and depth detectors cannot read the demo world, so its judge stands for them."""
import json
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.functional import to_pil_image

from readout_guidance_pack.heads.demo import HEADS_FOLDER, judge, world
from readout_guidance_pack.nodes.demo import demo_model
from tools import evaluate
from tools.comparison import compare, controls, detectors
from tools.host import checkpoints
from tools.peers import networks
from tools.random_weights import detectors as random_detectors
from tools.random_weights.checkpoints import drawn
from tools.train_demo import load_model

RUN = ["--side", "64", "--steps", "8", "--sampler", "lcm", "--scheduler", "sgm_uniform", "--cfg", "1"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with a picture, one with a pose, prompts, and the demo in the place of the checkpoint and an untrained ControlNet for it."""
    scene = world.draw(1, seed=5)
    for name in ("pictures", "poses", "empty"):
        (tmp_path / name).mkdir()
    to_pil_image(scene.image[0]).save(tmp_path / "pictures" / "scene.png")
    (tmp_path / "poses" / "scene.json").write_text(json.dumps(frames(scene.keypoints, 64, 64)))
    (tmp_path / "prompts.txt").write_text("a figure in a red shirt and blue trousers, meadow\n\na figure, sea\n")
    monkeypatch.setattr(checkpoints, "whole_checkpoint", lambda file: demo_model.load_demo())
    net = networks.control(networks.UNTRAINED["controlnet"](load_model(torch.device("cpu"))[0]).eval().requires_grad_(False))
    monkeypatch.setattr(checkpoints, "controlnet", lambda file: net)
    return tmp_path


def frames(points: torch.Tensor, height: int, width: int) -> list:
    return [{"canvas_height": height, "canvas_width": width, "people": [{"pose_keypoints_2d": person.flatten().tolist()}]} for person in points]


def seen(image: torch.Tensor) -> list:
    """What a detector would see: of the scene all its points, of other images the joints that have beads, 6 of 14."""
    scene = world.draw(1, seed=5)
    if (image.movedim(-1, 1) - scene.image).abs().max() < 0.01:
        return frames(scene.keypoints, *image.shape[1:3])
    found, there = judge.joints(image.movedim(-1, 1))
    points = torch.zeros(len(image), 18, 3)
    for joint, name in enumerate(world.JOINTS):
        if name in world.OPENPOSE:
            points[:, world.OPENPOSE[name]] = torch.cat([found[:, joint], there[:, joint, None]], 1)
    return frames(points, *image.shape[1:3])


def arguments(files, kind: str, *more: str, folder: str = "pictures") -> list[str]:
    return ["--checkpoint", str(files / "model.safetensors"), "--head", str(HEADS_FOLDER / f"demo_{kind}.safetensors"), f"--{kind}s",
            str(files / folder), "--prompts", str(files / "prompts.txt"), *RUN, *more]


def test_edges_are_followed_by_the_head_and_not_by_a_net_that_does_nothing(files, capsys):
    more = ("--controlnet", "x", "--json", str(files / "table.json"), "--sheet", str(files / "sheet.png"))
    assert compare.main(arguments(files, "edge", *more)) == 0
    report = json.loads((files / "table.json").read_text())
    found = {way: figures["fscore"] for way, figures in report["means"].items()}
    assert found["ControlNet"] == found["unguided"] < found["readouts"] - 0.2
    assert found["both"] == pytest.approx(found["readouts"], abs=0.05)  # nothing is added, but branches are summed in another order
    assert report["files"] == {"checkpoint": "model.safetensors", "controlnet": "x", "head": "demo_edge.safetensors"}
    assert report["run"]["steps"] == 8 and report["pictures"] == 1
    assert Image.open(files / "sheet.png").size == (5 * compare.CELL, compare.LABEL + compare.CELL)
    said = capsys.readouterr().out
    assert "1 of 1, scene.png, readouts: fscore" in said and "1 pictures, edge, 8 steps of lcm sgm_uniform, cfg 1" in said


@pytest.mark.parametrize("folder", ["pictures", "poses"])
def test_a_pose_is_found_in_a_picture_or_read_from_a_file(files, monkeypatch, folder):
    monkeypatch.setattr(detectors, "pose", lambda file: seen)
    assert compare.main(arguments(files, "pose", "--detector", "x", "--json", str(files / "table.json"), folder=folder)) == 0
    found = json.loads((files / "table.json").read_text())["means"]
    assert set(found) == {"unguided", "readouts"}
    assert found["unguided"]["pck@0.1"] + 0.2 < found["readouts"]["pck@0.1"] == pytest.approx(6 / 14)
    assert found["readouts"]["pck@0.05"] <= found["readouts"]["pck@0.1"]


def test_depth_is_followed(files, monkeypatch):
    monkeypatch.setattr(detectors, "geometry", lambda file: lambda image: {"depth": 1 / (0.1 + judge.nearness(image.movedim(-1, 1)))})
    assert compare.main(arguments(files, "depth", "--detector", "x", "--json", str(files / "table.json"))) == 0
    found = json.loads((files / "table.json").read_text())["means"]
    assert found["readouts"]["error"] < 0.7 * found["unguided"]["error"]


def test_the_evaluate_command_leads_there(files, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments(files, "edge")])
    assert evaluate.main() == 0


@pytest.mark.parametrize("change, said", [
    ({"--prompts": "missing.txt"}, "missing.txt cannot be read as text"),
    ({"--prompts": "blank.txt"}, "blank.txt holds no prompts"),
    ({"--edges": "empty"}, "empty holds no pictures"),
    ({"--edges": "nowhere"}, "nowhere is no folder"),
    ({"--head": "prompts.txt"}, "prompts.txt cannot be loaded as a readout head")])
def test_what_is_wrong_is_said_in_a_line(files, capsys, change, said):
    (files / "blank.txt").write_text("\n \n")
    given = arguments(files, "edge")
    for option, name in change.items():
        given[given.index(option) + 1] = str(files / name)
    assert compare.main(given) == 1
    error = capsys.readouterr().err
    assert error.startswith("evaluate: ") and said in error and error.count("\n") == 1


@pytest.mark.parametrize("loader, said", [
    (checkpoints.checkpoint, "cannot be loaded as a checkpoint"), (checkpoints.controlnet, "is no ControlNet"),
    (detectors.pose, "cannot be loaded as a checkpoint"), (detectors.geometry, "is neither MoGe")])
def test_a_file_that_is_something_else_is_named(tmp_path, loader, said):
    file = HEADS_FOLDER / "demo_pose.safetensors"
    with pytest.raises(ValueError, match=said) as raised:
        loader(file)
    assert "demo_pose.safetensors" in str(raised.value)


@pytest.mark.parametrize("taken, said", [(["--head"], "give --controlnet, --head or both"), (["--prompts"], "--prompts"), (["--poses"], "--poses"),
                                         (["--detector"], "--detector is missing: give SDPose's checkpoint")])
def test_what_is_missing_is_asked_for(files, capsys, taken, said):
    given = arguments(files, "pose", "--detector", "x")
    for option in taken:
        place = given.index(option)
        del given[place:place + 2]
    with pytest.raises(SystemExit) as ended:
        compare.main(given)
    assert ended.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("weights, more", [(random_detectors.moge_weights, {"mask"}), (random_detectors.depth_anything_weights, {"sky"})])
def test_depth_is_found_by_the_hosts_own_models(tmp_path, weights, more):
    """Small ones of random weights: what they find is nothing, but it has the picture's size and a target takes it."""
    save_file(drawn(weights()), tmp_path / "detector.safetensors")
    with torch.inference_mode():
        control = controls.Depth(tmp_path / "detector.safetensors")
        geometry = control.found(torch.rand(1, 48, 80, 3, generator=torch.Generator().manual_seed(0)))
        assert control.size(geometry) == (48, 80) and more <= set(geometry)
        assert control.hint(geometry).shape == (1, 48, 80, 3)
        assert control.figures(torch.rand(1, 48, 80, 3), geometry)["error"] >= 0


def test_pictures_without_anybody_are_left_out_by_name(files, monkeypatch, capsys):
    monkeypatch.setattr(detectors, "pose", lambda file: lambda image: [{"canvas_height": 64, "canvas_width": 64, "people": []}])
    assert compare.main(arguments(files, "pose", "--detector", "x")) == 1
    said = capsys.readouterr()
    assert "left out: scene.png: the pose is empty" in said.out and "nothing in" in said.err


def test_sides_keep_shape_and_area():
    assert compare.sides((845, 845), 512) == (512, 512)
    assert compare.sides((1080, 1920), 1024) == (768, 1344)
    assert compare.sides((10, 4000), 512) == (64, 10240)
