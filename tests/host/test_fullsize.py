"""The shipped workflows with full-size models: what the demo templates' notes say to swap for one's own checkpoint, and nothing else.

The weights are random, so the images are noise; what is shown is that the whole way is there. `python run.py test -m slow`
"""
import json
import logging
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from own_models import is_image, run, save_skeleton, shown_images, traced
from tools import ROOT
from tools.assets import templates
from tools.host.server import Server
from tools.random_weights import checkpoints

pytestmark = pytest.mark.slow
CHECKPOINT, UNET, SKELETON = "sd15_random.safetensors", "sdxl_unet_random.safetensors", "skeleton.png"
HEADS = {"demo_pose.safetensors": "readout_sdv15_spatial_pose.pt",
         "demo_correspondence.safetensors": "readout_sdv15_drag_correspondence.pt",
         "demo_appearance.safetensors": "readout_sdv15_drag_appearance.pt"}
SIZE = 256


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A ComfyUI folder with a skeleton to load; the models that tests put there, gigabytes, go when they are done."""
    home = tmp_path_factory.mktemp("fullsize")
    for folder in ("input", "models/checkpoints", "models/diffusion_models", "models/readout_heads"):
        (home / folder).mkdir(parents=True)
    save_skeleton(home / "input" / SKELETON, SIZE)
    yield home
    shutil.rmtree(home / "models")


@pytest.fixture(scope="module")
def checkpoint(home):
    path = home / "models" / "checkpoints" / CHECKPOINT
    checkpoints.save_checkpoint(checkpoints.sd15_weights(), path)
    for name in HEADS.values():
        checkpoints.save_published_head(home / "models" / "readout_heads" / name, "sdv15", "spatial" in name)
    return path


def swapped(path: Path) -> dict:
    """A shipped workflow with its note's four swaps for one's own model."""
    workflow = json.loads(path.read_text())
    scenes = set()
    for node in workflow["nodes"]:
        if node["type"] == "LoadReadoutDemoModel":
            node |= {"type": "CheckpointLoaderSimple", "widgets_values": [CHECKPOINT]}
        elif node["type"] == "LoadReadoutHead":
            node["widgets_values"] = [HEADS[node["widgets_values"][0]]]
        elif node["type"] == "ReadoutDemoScene":
            node |= {"type": "LoadImage", "widgets_values": [SKELETON, "image"]}
            scenes.add(node["id"])
        elif node["type"] == "EmptyLatentImage":
            node["widgets_values"][:2] = [SIZE, SIZE]
    for link in workflow["links"]:
        if link[1] in scenes:
            link[2] = 0  # the image of Load Image
    return workflow


def assert_a_trace_of(trace: str, target: str, batch: int) -> None:
    rows = json.loads(trace)
    assert rows and {row["target"] for row in rows} == {target}
    assert all(len(row["energy"]) == batch and all(map(math.isfinite, row["energy"])) for row in rows)


def test_the_host_takes_the_checkpoint_whole_and_as_sd15(checkpoint, caplog):
    import comfy.sd
    with caplog.at_level(logging.DEBUG), torch.inference_mode():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint))
        assert type(model.model.model_config).__name__ == "SD15"
        context = clip.encode_from_tokens_scheduled(clip.tokenize("a figure in a red shirt"))[0][0]
        assert context.shape == (1, 77, 768) and torch.isfinite(context).all() and context.std() > 0.01
        image = vae.decode(torch.randn(1, 4, 8, 8))
        assert image.shape == (1, 64, 64, 3) and torch.isfinite(image).all() and image.std() > 0.01
    said = [r.getMessage() for r in caplog.records if re.search("missing|unexpected|left.?over", r.getMessage(), re.IGNORECASE)]
    # The text encoder's own scale and projection are in no checkpoint of this kind.
    assert [words for words in said if "text_projection" not in words] == []


def test_pose_workflow_with_an_sd15_checkpoint(home, checkpoint):
    with Server(home / "output", home=home) as server:
        outputs = run(server, traced(swapped(templates.path("pose"))), "pose, SD 1.5")
    found = shown_images(server, outputs)
    assert is_image(found["guided"], SIZE) and is_image(found["unguided"], SIZE) and len(found["guided"]) == 4
    assert not any(torch.equal(a, b) for a, b in zip(found["guided"], found["unguided"]))
    trace, = [output["text"][0] for output in outputs.values() if "text" in output]
    assert_a_trace_of(trace, "pose", batch=4)


def test_drag_workflow_with_an_sd15_checkpoint(home, checkpoint):
    with Server(home / "output", home=home) as server:
        found = shown_images(server, run(server, swapped(templates.path("drag")), "drag, SD 1.5"))
    assert is_image(found["guided"], SIZE) and is_image(found["target"], SIZE)
    assert not torch.equal(found["guided"], found["target"])


def test_pose_guidance_of_the_sdxl_unet(home):
    checkpoints.save_checkpoint(checkpoints.sdxl_unet_weights(), home / "models" / "diffusion_models" / UNET)
    head = "readout_sdxl_spatial_pose.pt"
    checkpoints.save_published_head(home / "models" / "readout_heads" / head, "sdxl", spatial=True)
    sampler = {"model": ["model", 0], "seed": 1, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal",
               "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0], "denoise": 1.0}
    nodes = {
        "model": ("UNETLoader", {"unet_name": UNET, "weight_dtype": "default"}),
        "positive": ("RandomConditioning", {"seed": 1}),
        "negative": ("RandomConditioning", {"seed": 2}),
        "latent": ("EmptyLatentImage", {"width": SIZE, "height": SIZE, "batch_size": 1}),
        "skeleton": ("LoadImage", {"image": SKELETON}),
        "head": ("LoadReadoutHead", {"head_name": head}),
        "target": ("ReadoutPoseTarget", {"head": ["head", 0], "image": ["skeleton", 0], "weight": 1.0, "start_percent": 0.0,
                                         "end_percent": 0.5}),
        "guided": ("KSamplerReadoutGuidance", sampler | {"guidance": ["target", 0], "strength": 0.1}),
        "unguided": ("KSampler", sampler),
        "trace": ("PreviewAny", {"source": ["guided", 1]}),
        "save guided": ("SaveLatent", {"samples": ["guided", 0], "filename_prefix": "guided"}),
        "save unguided": ("SaveLatent", {"samples": ["unguided", 0], "filename_prefix": "unguided"}),
    }
    prompt = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
    with Server(home / "output", home=home, extra_nodes=[ROOT / "tests" / "host" / "random_conditioning.py"]) as server:
        outputs = run(server, prompt, "pose, SDXL's UNet")
    guided, unguided = (load_file(home / "output" / outputs[f"save {name}"]["latents"][0]["filename"])["latent_tensor"]
                        for name in ("guided", "unguided"))
    assert guided.shape == unguided.shape == (1, 4, SIZE // 8, SIZE // 8)
    assert all(torch.isfinite(latent).all() and latent.std() > 0.01 for latent in (guided, unguided))
    assert not torch.equal(guided, unguided)
    assert_a_trace_of(outputs["trace"]["text"][0], "pose", batch=1)
