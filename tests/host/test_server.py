"""The pack in a real ComfyUI server, over its HTTP API."""
import json
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from own_models import traced
from readout_guidance_pack.heads import save_head
from readout_guidance_pack.heads.base_models import BASE_MODELS
from readout_guidance_pack.rg_core.readout.head import ReadoutHead
from server_graphs import changed, graph, odd
from tools import ROOT
from tools.assets import templates
from tools.assets.workflow import to_api
from tools.host.server import Server, WorkflowFailed

FEW = 6
# How many images each node of a workflow saves.
SAVED = {"pose": [4, 4, 4], "depth": [4, 4, 4], "edge": [4, 4, 4], "pose_and_depth": [4, 4, 4], "drag": [1, 1],
         "drag_given": [1, 1, 1], "appearance": [1, 4, 4], "identity": [1, 4, 4], "fit": [4, 4, 4],
         "attribute": [4, 4, 4], "transformer_pose": [4, 4, 4], "transformer_drag": [1, 1]}
PUBLISHED = ReadoutHead("pose", BASE_MODELS["sdv15"].channels, projection_dim=128, base_model=BASE_MODELS["sdv15"].name)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("server")
    (home / "balance.py").write_text(re.search(r"```python\n(.*?)```", (ROOT / "docs" / "own_targets.md").read_text(), re.S)[1])
    with Server(home / "output", home=home, extra_nodes=[ROOT / "tests" / "host" / "odd_inputs.py", home / "balance.py"]) as running:
        folder = home / "models" / "readout_heads"
        save_head(PUBLISHED, folder / "sd15_pose.safetensors")
        save_head(PUBLISHED, folder / "readout_sdxl_spatial_depth.safetensors")
        whole = (folder / "sd15_pose.safetensors").read_bytes()
        (folder / "half_pose.safetensors").write_bytes(whole[:len(whole) // 2])

        class Attack:
            def __reduce__(self):
                return os.system, (f"touch '{home / 'witness'}'",)

        torch.save({"aggregation_network": Attack()}, folder / "attack_pose.pt")
        Image.effect_noise((256, 128), 60).convert("RGB").save(home / "input" / "photo.png")
        np.save(home / "input" / "head-turn.npy", np.array([[[[60, 40]], [[120, 80]]]]))  # integers, as in the published data
        np.save(home / "input" / "arm.npy", np.array([[[60.5, 40.25]], [[120.0, 80.0]]]))
        np.save(home / "input" / "flat.npy", np.zeros((4, 2)))
        (home / "input" / "words.npy").write_text("not an array")
        yield running


def stock(model=("model", 0), **changes) -> dict:
    """The same graph with the stock KSampler."""
    prompt = graph(**changes)
    inputs = {k: v for k, v in prompt["sampler"]["inputs"].items() if k not in ("guidance", "strength")}
    prompt["sampler"] = {"class_type": "KSampler", "inputs": inputs | {"model": list(model)}}
    return prompt


def image(server: Server, prompt: dict) -> torch.Tensor:
    return to_tensor(Image.open(server.files(server.run(prompt))["save"][0]))


def test_another_packs_target_acts_beside_ours(server):
    """The node of docs/own_targets.md, a pack of its own, chained with Color Target."""
    own = dict(target=("BalanceTarget", {"weight": 1.0, "end_percent": 0.9}), trace=("PreviewAny", {"source": ["sampler", 1]}))
    color = ("ReadoutColourTarget", {"image": ["scene", 0], "vae": ["model", 2], "detail": 8, "weight": 1.0, "start_percent": 0.0,
                                      "end_percent": 0.75, "guidance": ["own", 0]})
    plain, balanced = image(server, stock()), image(server, graph(**own))
    imbalance = [(x - x.flip(-1)).abs().mean() for x in (torch.nn.functional.avg_pool2d(x, 8) for x in (plain, balanced))]
    assert imbalance[1] < 0.7 * imbalance[0]
    outputs = server.run(graph(**own | {"own": own["target"], "target": color}))
    assert {row["target"] for row in json.loads(outputs["trace"]["text"][0])} == {"balance", "color"}


@pytest.mark.skipif("COMFYUI_VERSION" not in os.environ, reason="no version was asked for")
def test_the_server_is_of_the_version_asked_for_and_has_the_packages_that_it_wants(server):
    system = server.get("/system_stats")["system"]
    assert system["comfyui_version"] == os.environ["COMFYUI_VERSION"]
    assert system["installed_templates_version"] == system["required_templates_version"]


def test_every_shipped_workflow_runs_and_saves_its_images(server):
    assert set(templates.DEMO) == set(SAVED)
    for control in SAVED:
        prompt = to_api(traced(json.loads(templates.path(control).read_text())), server.get("/object_info"))
        for node in prompt.values():
            if "steps" in node["inputs"]:
                node["inputs"]["steps"] = FEW  # `run.py demo` has all of them
            if node["class_type"] in ("KSamplerReadoutGuidance", "ApplyReadoutGuidance"):
                node["inputs"]["moves"] = 1
        outputs = server.run(prompt)
        files = server.files(outputs)
        assert sorted(len(f) for f in files.values()) == SAVED[control], control
        assert all(Image.open(f).getextrema() != ((0, 0),) * 3 for group in files.values() for f in group)
        traces = [json.loads(o["text"][0]) for o in outputs.values() if "text" in o and o["text"][0].startswith("[")]
        assert len(traces) == (control != "drag_given")  # Apply Readout Guidance gives none
        if set(drawn := control.split("_and_")) <= {"pose", "depth", "edge"}:
            assert {row["target"] for row in traces[0]} == set(drawn) and len(traces[0][0]["energy"]) == 4


def test_guided_and_stock_samplers_agree_to_the_bit_and_leave_no_trace_of_each_other(server):
    plain = image(server, stock())
    guided = image(server, graph())
    patched = image(server, stock(model=("apply", 0), apply=("ApplyReadoutGuidance", {
        "model": ["model", 0], "guidance": ["target", 0], "strength": 0.1})))
    assert torch.equal(guided, patched)
    assert not torch.equal(guided, plain)
    assert torch.equal(plain, image(server, graph(target={"weight": 0.0})))
    # Seed 1 again with another steps value in between, so that nothing comes from the server's cache.
    image(server, graph(sampler={"steps": 5}))
    assert torch.equal(guided, image(server, graph(save={"filename_prefix": "again"}, sampler={"denoise": 0.9999})))
    assert torch.equal(plain, image(server, stock(sampler={"denoise": 0.9999})))


def interrupted(server: Server, prompt: dict) -> str:
    """The node in which a run of 300 steps stopped that was interrupted after two."""
    steps = []

    def progress(node, step, total):
        steps.append(step)
        if len(steps) == 2:
            server.post("/interrupt", {})

    with pytest.raises(WorkflowFailed, match="interrupted") as failure:
        server.run(prompt, progress)
    assert steps[-1] < 300
    return failure.value.node


def test_interrupting_a_guided_run_leaves_everything_as_it_was(server):
    before = image(server, stock(sampler={"seed": 2}))
    assert interrupted(server, graph(sampler={"seed": 2, "steps": 300})) == "KSamplerReadoutGuidance"
    assert torch.equal(before, image(server, stock(sampler={"seed": 2, "denoise": 0.9999})))
    assert torch.equal(before, image(server, graph(sampler={"seed": 2}, target={"weight": 0.0})))


def drag_graph(**changes) -> dict:
    """A drag by tracks on an image from the input folder, inverted, with other targets chained; `changes` as for `graph`."""
    prompt = graph(
        photo=("LoadImage", {"image": "photo.png"}),
        small=("ImageScale", {"image": ["photo", 0], "upscale_method": "area", "width": 96, "height": 48, "crop": "disabled"}),
        encode=("VAEEncode", {"pixels": ["small", 0], "vae": ["model", 2]}),
        invert=("ReadoutInvert", {"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0],
                                  "latent": ["encode", 0], "steps": 6, "cfg": 1.0, "scheduler": "karras", "cache_mb": 64}),
        tracks=("LoadReadoutTracks", {"file": "head-turn.npy"}),
        drag_head=("LoadReadoutHead", {"head_name": "demo_correspondence.safetensors"}),
        looks_head=("LoadReadoutHead", {"head_name": "demo_appearance.safetensors"}),
        drag=("ReadoutDragTarget", {"head": ["drag_head", 0], "reference": ["invert", 1], "drags": "[]", "weight": 1.0,
                                    "start_percent": 0.0, "end_percent": 0.9, "image": ["photo", 0], "tracks": ["tracks", 0],
                                    "guidance": ["target", 0]}),
        looks=("ReadoutAppearanceTarget", {"head": ["looks_head", 0], "reference": ["invert", 1], "weight": 0.5,
                                           "start_percent": 0.0, "end_percent": 0.9, "guidance": ["drag", 0]}),
        path=("ReadoutDragPath", {"guidance": ["looks", 0], "latent": ["invert", 0], "frames": 3}),
        apply=("ApplyReadoutGuidance", {"model": ["model", 0], "guidance": ["path", 0], "strength": 0.1}),
        sampler=("KSamplerAdvanced", {
            "model": ["apply", 0], "add_noise": "disable", "noise_seed": 0, "steps": 6, "cfg": 3.0, "sampler_name": "euler",
            "scheduler": "karras", "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["path", 1],
            "start_at_step": 0, "end_at_step": 10000, "return_with_leftover_noise": "disable"}))
    return changed(prompt, changes)


@pytest.mark.parametrize("tracks", ["head-turn.npy", r".\arm.npy"])
def test_tracks_drag_a_given_image_along_their_path_beside_a_pose(server, tracks):
    outputs = server.run(drag_graph(tracks={"file": tracks}))
    assert [Image.open(f).size for f in server.files(outputs)["save"]] == [(96, 48)] * 3
    shown, = outputs["drag"]["readout_picture"]  # what the editor draws on, although the node saves nothing
    assert shown["type"] == "temp" and shown["filename"].endswith(".png")


def test_a_drag_target_alone_makes_nothing_run(server):
    prompt = {name: node for name, node in drag_graph().items() if node["class_type"] not in (
        "KSamplerAdvanced", "KSamplerReadoutGuidance", "SaveImage", "VAEDecode", "PreviewImage")}
    if server.get("/object_info/ReadoutDragTarget")["ReadoutDragTarget"]["output_node"]:
        pytest.skip("an old host shows pictures of output nodes alone")
    with pytest.raises(WorkflowFailed, match="no outputs"):
        server.run(prompt)


BAD_RELATIONS = {
    "outside": (dict(drag={"drags": "[[[0.2, 0.2], [1.4, 0.2]]]", "tracks": None}), "ReadoutDragTarget", ["drag 1", "outside the image"]),
    "no length": (dict(drag={"drags": "[[[0.2, 0.2], [0.2, 0.2]]]", "tracks": None}), "ReadoutDragTarget", ["drag 1 of zero length"]),
    "not drags": (dict(drag={"drags": "[[0.2, 0.2]]"}), "ReadoutDragTarget", ["cannot be read", "[[[0.2, 0.5], [0.6, 0.5]]]"]),
    "tracks outside": (dict(drag={"image": ["small", 0]}), "ReadoutDragTarget", ["outside the image"]),
    "no tracks": (dict(tracks={"file": "flat.npy"}), "LoadReadoutTracks", ["flat.npy", "(4, 2)"]),
    "not an array": (dict(tracks={"file": "words.npy"}), "LoadReadoutTracks", ["words.npy", "cannot be read"]),
    "other size": (dict(path={"latent": ["latent", 0]}), "KSamplerAdvanced", ["96x48", "64x64", "Apply Readout Guidance"]),
    "more than one": (dict(path={"latent": ["latent", 0]}, latent={"batch_size": 2}), "ReadoutDragPath", ["got 2 latents"]),
    "channels": (dict(invert={"latent": ["latent", 0]}), "ReadoutInvert", ["4 channels", "DemoWorld", "3"]),
    "wrong head": (dict(drag={"head": ["looks_head", 0]}), "ReadoutDragTarget", ["reads appearance", "correspondence"]),
}


@pytest.mark.parametrize("name", BAD_RELATIONS)
def test_bad_relations_are_explained_on_their_node_and_the_server_goes_on(server, name):
    changes, node, words = BAD_RELATIONS[name]
    prompt = drag_graph(**changes)
    prompt["drag"]["inputs"] = {k: v for k, v in prompt["drag"]["inputs"].items() if v is not None}
    with pytest.raises(WorkflowFailed) as failure:
        server.run(prompt)
    assert failure.value.node == node
    assert all(word in str(failure.value) for word in words), str(failure.value)
    assert server.run(graph(sampler={"steps": 1}))


def test_interrupted_inversion_leaves_the_server_as_it_was(server):
    before = image(server, stock(sampler={"seed": 3}))
    assert interrupted(server, drag_graph(invert={"steps": 300})) == "ReadoutInvert"
    assert torch.equal(before, image(server, stock(sampler={"seed": 3, "denoise": 0.9999})))


BAD = {
    "another architecture": (dict(head={"head_name": "sd15_pose.safetensors"}),
                             "KSamplerReadoutGuidance", ["Stable Diffusion 1.5", "1280", "DemoWorld", "[128, 128, 128, 128, 64"]),
    "truncated": (dict(head={"head_name": "half_pose.safetensors"}), "LoadReadoutHead", ["half_pose.safetensors", "again"]),
    "attack": (dict(head={"head_name": "attack_pose.pt"}), "LoadReadoutHead", ["attack_pose.pt was refused", "Nothing in it was run"]),
    "nan": (dict(odd=odd("nan image"), target={"image": ["odd", 0]}), "ReadoutPoseTarget", ["Pose Target", "NaN"]),
    "no pixels": (dict(odd=odd("empty image"), target={"image": ["odd", 0]}), "ReadoutPoseTarget", ["image is empty", "(1, 0, 8, 3)"]),
    "black": (dict(odd=odd("black image"), target={"image": ["odd", 0]}), "ReadoutPoseTarget", ["all black"]),
    "nobody": (dict(odd=odd("nobody"), target=("ReadoutPoseTarget", {
        "head": ["head", 0], "keypoints": ["odd", 0], "weight": 1.0, "start_percent": 0.0, "end_percent": 0.5})),
        "ReadoutPoseTarget", ["nobody"]),
    "unseen": (dict(odd=odd("unseen pose"), target=("ReadoutPoseTarget", {
        "head": ["head", 0], "keypoints": ["odd", 0], "weight": 1.0, "start_percent": 0.0, "end_percent": 0.5})),
        "ReadoutPoseTarget", ["the pose is empty", "confidence below 0.1"]),
    "other layout": (dict(odd=odd("16 points"), target=("ReadoutPoseTarget", {
        "head": ["head", 0], "keypoints": ["odd", 0], "weight": 1.0, "start_percent": 0.0, "end_percent": 0.5})),
        "ReadoutPoseTarget", ["18 or 25 body points", "54"]),
    "both": (dict(target={"keypoints": ["scene", 4]}), "ReadoutPoseTarget", ["both image and keypoints"]),
    "small mask": (dict(odd=odd("small mask"), target={"mask": ["odd", 0]}), "ReadoutPoseTarget", ["4x4", "512x512"]),
    "empty mask": (dict(white=odd("white image"), odd=odd("empty mask"), target={"image": ["white", 0], "mask": ["odd", 0]}),
                   "ReadoutPoseTarget", ["mask is empty"]),
    "late start": (dict(target={"start_percent": 0.6}), "ReadoutPoseTarget", ["start_percent is 0.6", "end_percent is 0.5"]),
    "wrong kind": (dict(target=("ReadoutDepthTarget", {"head": ["head", 0], "image": ["scene", 2], "weight": 1.0,
                                                       "start_percent": 0.0, "end_percent": 0.5})),
                   "ReadoutDepthTarget", ["reads pose", "depth"]),
    "no taps to estimate from": (dict(odd=odd("unknown model"), estimate=("ReadoutEstimate", {
        "model": ["odd", 0], "head": ["head", 0], "positive": ["positive", 0], "percent": 0.9, "seed": 0, "latent": ["latent", 0]}),
        save={"images": ["estimate", 0]}), "ReadoutEstimate", ["LTXVModel", "Stable Diffusion 1.5"]),
    "no taps": (dict(odd=odd("unknown model"), sampler={"model": ["odd", 0]}), "KSamplerReadoutGuidance",
                ["LTXVModel", "cannot be guided", "Stable Diffusion 1.5"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_explained_on_its_node_and_the_server_goes_on(server, name):
    changes, node, words = BAD[name]
    with pytest.raises(WorkflowFailed) as failure:
        server.run(graph(**changes))
    assert failure.value.node == node
    assert all(word in str(failure.value) for word in words), str(failure.value)
    assert not (server.home / "witness").exists()
    assert server.get("/system_stats")["system"]
    assert server.run(graph(sampler={"steps": 1}))


MISSING = {
    "published": ("readout_sdv15_spatial_pose.pt", ["reads pose", "Stable Diffusion 1.5", "Apache-2.0", "models/readout_heads",
                  "https://huggingface.co/g-luo/readout-guidance/resolve/main/weights/readout_sdv15_spatial_pose.pt"]),
    "published, converted": ("readout_sdxl_pose_keypoint.safetensors", ["reads keypoints", "Download readout_sdxl_pose_keypoint.pt from",
                             "/readout_pose/readout_sdxl_pose_keypoint.pt"]),
    "with the other suffix": ("readout_sdxl_spatial_depth.pt", ["Choose readout_sdxl_spatial_depth.safetensors, which is there"]),
    "in another folder": (r"sdxl\readout_sdxl_spatial_depth.pt", ["Choose readout_sdxl_spatial_depth.safetensors, which is there"]),
    "of a known kind": ("my_edge.safetensors", ["Available heads that read edge: demo_edge.safetensors.",
                        "readout_sdxl_spatial_edge.pt", "huggingface.co/g-luo"]),
    "of a kind that none was published of": ("my_identity.pt", ["demo_identity.safetensors", "Published heads: none"]),
    "of no known kind": ("mystery.pt", ["demo_identity.safetensors", "readout_sdv15_*.pt", "huggingface.co/g-luo"]),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_head_that_is_missing_is_explained_before_anything_runs(server, name):
    file, words = MISSING[name]
    with pytest.raises(WorkflowFailed) as failure:
        server.run(graph(head={"head_name": file}))
    refused = json.loads(str(failure.value))["node_errors"]
    assert [node["class_type"] for node in refused.values()] == ["LoadReadoutHead"]
    error, = refused["head"]["errors"]
    assert all(word in error["details"] for word in ["Load Readout Head", file, *words]), error["details"]


def test_a_saved_head_can_be_loaded_at_once_and_nothing_is_overwritten(server):
    save = {"save": ("SaveReadoutHead", {"head": ["head", 0], "filename_prefix": "readout_heads/mine"}),
            "head": ("LoadReadoutHead", {"head_name": "demo_pose.safetensors"})}
    alone = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in save.items()}
    server.run(alone)
    alone["save"]["inputs"]["filename_prefix"] = "readout_heads//mine"  # the same place, and nothing from the server's cache
    server.run(alone)
    listed = server.get("/object_info/LoadReadoutHead")["LoadReadoutHead"]["input"]["required"]["head_name"][1]["options"]
    assert [name for name in listed if "mine" in name] == ["mine_00001_.safetensors", "mine_00002_.safetensors"]
    assert torch.equal(image(server, graph()), image(server, graph(head={"head_name": "mine_00002_.safetensors"})))


ESTIMATE = ("ReadoutEstimate", {"model": ["model", 0], "head": ["head", 0], "positive": ["negative", 0], "percent": 0.9, "seed": 0,
                                "image": ["scene", 0], "vae": ["model", 2]})


def test_an_estimate_is_image_and_a_target(server):
    estimate = server.files(server.run(graph(estimate=ESTIMATE, save={"images": ["estimate", 0]})))["save"]
    assert [Image.open(f).size for f in estimate] == [(64, 64)]
    outputs = server.run(graph(estimate=ESTIMATE, target={"image": ["estimate", 0]}, sampler={"steps": 3}))
    assert len(server.files(outputs)["save"]) == 1


def test_keypoints_of_a_head_that_reads_none_are_explained(server):
    target = ("ReadoutPoseTarget", {"head": ["head", 0], "keypoints": ["estimate", 1], "weight": 1.0, "start_percent": 0.0,
                                    "end_percent": 0.5})
    with pytest.raises(WorkflowFailed, match="only a head that reads keypoints.*reads pose") as failure:
        server.run(graph(estimate=ESTIMATE, target=target))
    assert failure.value.node == "ReadoutPoseTarget"


def test_targets_of_any_size_and_shape_and_batches_of_any_length(server):
    scene = {"width": 96, "height": 48, "batch_size": 2}
    outputs = server.run(graph(scene=scene, latent={"width": 80, "height": 48, "batch_size": 3}, sampler={"steps": 3}))
    assert [Image.open(f).size for f in server.files(outputs)["save"]] == [(80, 48)] * 3
