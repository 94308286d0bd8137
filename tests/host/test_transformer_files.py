"""The shipped workflows for transformers with files laid out like the published ones, loaded by the host's stock loaders: what docs/using.md
says to swap for one's own model, and nothing else.

Each model has few blocks and random weights, so the images are noise; what is shown is that the whole way is there. `python run.py test -m slow`
"""
import json
import shutil

import pytest
import torch

from own_models import is_image, run, shown_images
from tools import ROOT
from tools.assets import templates
from tools.host.server import Server
from tools.random_weights import transformer_checkpoints

pytestmark = pytest.mark.slow
SIZE, IMAGES, STEPS = 128, 12, 4
TEXT_ENCODER, QWEN_WORDS = "clip_l.safetensors", 3584
# Which VAE goes with each file, which empty latent, cfg, and what the host's Load CLIP is told.
USED_WITH = {"flux1-dev": ("ae", "EmptySD3LatentImage", 1.0, "stable_diffusion"),
             "flux2-dev": ("flux2-vae", "EmptyFlux2LatentImage", 1.0, "stable_diffusion"),
             "sd3.5_medium": ("ae", "EmptySD3LatentImage", 4.0, "sd3"),
             "lumina_2": ("ae", "EmptySD3LatentImage", 4.0, "stable_diffusion"),
             "qwen_image_fp8_e4m3fn": ("qwen_image_vae", "EmptySD3LatentImage", 2.5, None)}
FOLDERS = {"diffusion_models", "text_encoders", "vae"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """With the text encoder and the VAEs; the models go as soon as they were used."""
    home = tmp_path_factory.mktemp("transformers")
    for folder in FOLDERS:
        (home / "models" / folder).mkdir(parents=True)
    transformer_checkpoints.save_text_encoder(home / "models" / "text_encoders" / TEXT_ENCODER)
    for vae in {used[0] for used in USED_WITH.values()}:
        transformer_checkpoints.save_vae(vae, home / "models" / "vae" / f"{vae}.safetensors")
    with Server(home / "output", home=home, extra_nodes=[ROOT / "tests" / "host" / "random_conditioning.py"]) as running:
        yield running
    shutil.rmtree(home / "models")


@pytest.fixture(params=USED_WITH)
def model(server, request):
    path = server.home / "models" / "diffusion_models" / f"{request.param}.safetensors"
    transformer_checkpoints.save_transformer(request.param, path)
    yield request.param
    path.unlink()


def keep_apart(workflow: dict, new: int) -> None:
    """Puts Rebatch Images before each VAE Encode of `workflow` and Rebatch Latents behind it; ids from `new` on are free."""
    for node in [node for node in workflow["nodes"] if node["type"] == "VAEEncode"]:
        into = next(link for link in workflow["links"] if link[3] == node["id"] and link[5] == "IMAGE")
        out = [link for link in workflow["links"] if link[1] == node["id"]]
        ids = new * 10, new * 10 + 1  # of links
        workflow["nodes"] += [{"id": new, "type": "RebatchImages", "widgets_values": [1], "inputs": [{"name": "images", "link": ids[0]}]},
                              {"id": new + 1, "type": "RebatchLatents", "widgets_values": [64], "inputs": [{"name": "latents", "link": ids[1]}]}]
        workflow["links"] += [[ids[0], into[1], into[2], new, 0, "IMAGE"], [ids[1], node["id"], 0, new + 1, 0, "LATENT"]]
        into[1], into[2] = new, 0
        for link in out:
            link[1] = new + 1
        new += 2


def swapped(workflow: str, model: str) -> dict:
    """That shipped workflow with the swaps of docs/using.md for one's own model."""
    vae, empty, cfg, text = USED_WITH[model]
    workflow = json.loads(templates.path(workflow).read_text())
    new = max(node["id"] for node in workflow["nodes"]) + 1
    loaders = {0: None, 1: new, 2: new + 1}  # by which output of Load Demo Model they stand for
    for node in workflow["nodes"]:
        widgets = node.get("widgets_values")
        if node["type"] == "LoadReadoutDemoModel":
            loaders[0] = node["id"]
            node |= {"type": "UNETLoader", "widgets_values": [f"{model}.safetensors", "default"], "inputs": []}
        elif node["type"] == "CLIPTextEncode" and text is None:
            node |= {"type": "RandomConditioning", "widgets_values": [node["id"], QWEN_WORDS], "inputs": []}
        elif node["type"] == "EmptyLatentImage":
            node |= {"type": empty, "widgets_values": [SIZE, SIZE, 1]}
        elif node["type"] == "ReadoutDemoScene":  # images and skeletons, in place of photographs and a pose detector
            widgets[2:] = [SIZE, SIZE, IMAGES if node.get("title", "").endswith("to fit on") else 1]
        elif node["type"].startswith("KSampler"):
            widgets[2:4] = [STEPS, cfg]
    if text is None:  # Qwen-Image's VAE takes a batch of images for a video
        keep_apart(workflow, new + 2)
    workflow["nodes"] += [{"id": loaders[1], "type": "CLIPLoader", "widgets_values": [TEXT_ENCODER, text or "stable_diffusion", "default"]},
                          {"id": loaders[2], "type": "VAELoader", "widgets_values": [f"{vae}.safetensors"]}]
    for link in workflow["links"]:
        if link[1] == loaders[0]:
            link[1], link[2] = loaders[link[2]], 0
    return workflow


def test_the_workflows_with_a_published_layout(server, model):
    posed = shown_images(server, run(server, swapped("transformer_pose", model), f"pose, {model}", expected="the pose head is not fit for use"))
    assert is_image(posed["guided"], SIZE) and is_image(posed["unguided"], SIZE)
    assert not torch.equal(posed["guided"], posed["unguided"])
    dragged = shown_images(server, run(server, swapped("transformer_drag", model), f"drag, {model}"))
    assert is_image(dragged["guided"], SIZE) and is_image(dragged["target"], SIZE)
    assert not torch.equal(dragged["guided"], dragged["target"])
