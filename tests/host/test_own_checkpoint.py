"""`run.py evaluate --checkpoint` from end to end, as its command: whole checkpoints, ControlNets, a published head and SDPose in the published
layouts and full size, with random weights. `python run.py test -m slow tests/host/test_own_checkpoint.py`"""
import json
import os
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import save_file
from torchvision.transforms.functional import to_pil_image

from readout_guidance_pack.heads.demo import world
from tools import ROOT
from tools.random_weights import checkpoints, control_models, detectors

pytestmark = pytest.mark.slow
WHOLE = {"sd15": (checkpoints.sd15_weights, "sdv15"), "sdxl": (checkpoints.sdxl_weights, "sdxl")}
RUN = ["--side", "256", "--steps", "2"]


@pytest.fixture
def folder(tmp_path):
    """Pictures and a pose to follow, and prompts; the models that a test puts there, gigabytes, go when it is done."""
    (tmp_path / "given").mkdir()
    scene = world.draw(1, 128, 128, seed=5)
    to_pil_image(scene.image[0]).save(tmp_path / "given" / "scene.png")
    frame = {"canvas_height": 128, "canvas_width": 128, "people": [{"pose_keypoints_2d": scene.keypoints[0].flatten().tolist()}]}
    (tmp_path / "given" / "pose.json").write_text(json.dumps([frame]))
    (tmp_path / "prompts.txt").write_text("a dancer in a meadow\n")
    yield tmp_path
    shutil.rmtree(tmp_path)


def evaluate(folder, base: str, net: str, kind: str, *more: str) -> dict:
    """The report of the command on `base` with a ControlNet or T2I-Adapter."""
    weights, name = WHOLE[base]
    checkpoints.save_checkpoint(weights(), folder / "checkpoint.safetensors")
    save_file(checkpoints.drawn(getattr(control_models, f"{net}_weights")(base)), folder / "net.safetensors")
    head = f"readout_{name}_spatial_{kind}.pt"
    checkpoints.save_published_head(folder / head, name, spatial=True)
    options = ["--checkpoint", "checkpoint.safetensors", "--controlnet", "net.safetensors", "--head", head, f"--{kind}s", "given",
               "--prompts", "prompts.txt", "--json", "table.json", "--sheet", "sheet.png", *RUN, *more]
    made = subprocess.run([sys.executable, "-m", "tools.evaluate", *options], cwd=ROOT, env=os.environ | {"RUN_FROM": str(folder)}, text=True,
                          capture_output=True)
    assert made.returncode == 0, made.stderr[-3000:]
    return json.loads((folder / "table.json").read_text())


def test_poses_on_sd15_by_a_controlnet(folder):
    checkpoints.save_checkpoint(detectors.sdpose_weights(), folder / "sdpose.safetensors")
    report = evaluate(folder, "sd15", "controlnet", "pose", "--detector", "sdpose.safetensors")
    assert set(report["means"]) == {"unguided", "ControlNet", "readouts", "both"} and report["pictures"] >= 1
    assert all(0 <= found["pck@0.1"] <= 1 for found in report["means"].values())


def test_depth_on_sd15_by_an_adapter(folder):
    save_file(checkpoints.drawn(detectors.moge_weights()), folder / "moge.safetensors")
    report = evaluate(folder, "sd15", "adapter", "depth", "--detector", "moge.safetensors")
    assert report["pictures"] == 1 and all(found["error"] >= 0 for found in report["means"].values())


def test_edges_on_sdxl_by_a_controlnet(folder):
    report = evaluate(folder, "sdxl", "controlnet", "edge", "--cfg", "1")
    assert report["pictures"] == 1 and (folder / "sheet.png").exists()
