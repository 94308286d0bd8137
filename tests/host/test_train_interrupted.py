"""Train Readout Head in a real server: interrupted and queued again, it ends as if it had never stopped."""
import pytest
from PIL import Image

from readout_guidance_pack.heads import load_head, load_training
from server_graphs import changed, odd
from tools import ROOT
from tools.host.server import Server, WorkflowFailed

STEPS = 24


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("training")
    with Server(home / "output", home=home, extra_nodes=[ROOT / "tests" / "host" / "odd_inputs.py"]) as running:
        yield running


def graph(name: str, **changes) -> dict:
    """Trains a head on six scenes, plots its losses, saves it and shows what it reads."""
    nodes = {
        "model": ("LoadReadoutDemoModel", {}),
        "empty": ("CLIPTextEncode", {"clip": ["model", 1], "text": ""}),
        "scene": ("ReadoutDemoScene", {"seed": 5, "width": 64, "height": 64, "batch_size": 6}),
        "encode": ("VAEEncode", {"pixels": ["scene", 0], "vae": ["model", 2]}),
        "train": ("TrainReadoutHead", {
            "model": ["model", 0], "latents": ["encode", 0], "positive": ["empty", 0], "image": ["scene", 2], "kind": "depth", "preset": "small",
            "steps": STEPS, "batch_size": 2, "learning_rate": 0.0, "seed": 1, "filename_prefix": f"readout_heads/{name}", "resume": False}),
        "plot": ("LossGraphNode", {"loss": ["train", 1], "filename_prefix": "loss"}),
        "save": ("SaveReadoutHead", {"head": ["train", 0], "filename_prefix": f"saved/{name}"}),
        "report": ("PreviewAny", {"source": ["train", 2]}),
        "shown": ("SaveImage", {"images": ["train", 3], "filename_prefix": f"held out/{name}"}),
    }
    return changed({key: {"class_type": kind, "inputs": dict(inputs)} for key, (kind, inputs) in nodes.items()}, changes)


def interrupted(server: Server, prompt: dict, after: int) -> None:
    """Runs it until that step of the training is done, or little more."""
    steps = []

    def progress(node, step, total):
        if node == "TrainReadoutHead" and step >= after and not steps:  # the host leaves out some
            steps.append(step)
            server.post("/interrupt", {})

    with pytest.raises(WorkflowFailed, match="interrupted") as failure:
        server.run(prompt, progress)
    assert failure.value.node == "TrainReadoutHead" and steps[0] < STEPS


def test_interrupted_twice_and_resumed_it_gives_what_it_gives_uninterrupted(server):
    folder = server.output / "readout_heads"
    whole = server.run(graph("whole"))
    for after in (2, 9):
        interrupted(server, graph("parts", train={"resume": True}), after)
        done = load_training(folder / "parts_00001_.safetensors")[1]["training"]["done"]
        assert after <= done < STEPS
    parts = server.run(graph("parts", train={"resume": True}))
    assert sorted(path.name for path in folder.iterdir()) == ["parts_00001_.safetensors", "whole_00001_.safetensors"]
    for one, two in ((folder / "whole_00001_.safetensors", folder / "parts_00001_.safetensors"),
                     (server.output / "saved" / "whole_00001_.safetensors", server.output / "saved" / "parts_00001_.safetensors")):
        assert one.read_bytes() == two.read_bytes()
    assert load_head(folder / "whole_00001_.safetensors").kind == "depth"
    images = [[Image.open(f).tobytes() for f in server.files(outputs)["shown"]] for outputs in (whole, parts)]
    assert images[0] == images[1] and all(outputs["plot"]["images"] for outputs in (whole, parts))
    assert f"for {STEPS} steps (the first {done} of them earlier)" in parts["report"]["text"][0]


def test_what_an_interrupt_leaves_can_be_loaded_at_once(server):
    interrupted(server, graph("half"), 3)
    listed = server.get("/object_info/LoadReadoutHead")["LoadReadoutHead"]["input"]["required"]["head_name"][1]["options"]
    assert "half_00001_.safetensors" in listed and not any(name.endswith(".part") for name in listed)
    reads = graph("half", head=("LoadReadoutHead", {"head_name": "half_00001_.safetensors"}),
                  estimate=("ReadoutEstimate", {"model": ["model", 0], "head": ["head", 0], "positive": ["empty", 0], "percent": 0.9, "seed": 0,
                                                "image": ["scene", 0], "vae": ["model", 2]}), shown={"images": ["estimate", 0]})
    reads = {name: node for name, node in reads.items() if name not in ("train", "plot", "save", "report")}
    assert len(server.files(server.run(reads))["shown"]) == 6


BAD = {"another folder": (dict(train={"filename_prefix": "../../mine"}), ["../../mine", "output folder"]),
       "odd kind": (dict(train={"kind": "de/pth"}), ["kind is 'de/pth'"]),
       "nan": (dict(odd=odd("nan image"), train={"image": ["odd", 0]}), ["NaN"]),
       "one target": (dict(odd=odd("white image"), train={"image": ["odd", 0]}), ["6 images as latents and 1 images"]),
       "no taps": (dict(odd=odd("unknown model"), train={"model": ["odd", 0]}), ["LTXVModel", "Stable Diffusion 1.5"])}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_explained_on_the_node(server, name):
    changes, words = BAD[name]
    with pytest.raises(WorkflowFailed) as failure:
        server.run(graph("bad", **changes))
    assert failure.value.node == "TrainReadoutHead"
    assert all(word in str(failure.value) for word in ["Train Readout Head", *words]), str(failure.value)
    assert not list(server.output.rglob("bad_*")) and not list(server.home.rglob("mine_*"))
