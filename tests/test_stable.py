"""What people's workflows hold on to stays: node ids, names and types of inputs and outputs, the order of widgets.

tests/saved/nodes.json has it. What is new is added there by `python run.py test tests/test_stable.py`, which fails and writes it once; what is there
never goes. tests/saved/*_0.1.json are templates as the first versions saved them.
"""
import json

import pytest

from readout_guidance_pack.nodes import NODES
from readout_guidance_pack.nodes.make_heads import load_save
from tools import ROOT
from tools.assets.workflow import is_widget, to_api

load_save.register_folder()
SAVED = ROOT / "tests" / "saved"
NODES_FILE = SAVED / "nodes.json"
INFO = {node.define_schema().node_id: node.GET_NODE_INFO_V1() for node in NODES}
EARLY = sorted(SAVED.glob("*_0.1.json"))


def kind(spec: list) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def shape(info: dict) -> dict:
    """A node's inputs and outputs with their types, in order; those that must be given; its widgets, whose order workflows are saved by."""
    required, optional = (info["input"].get(part, {}) for part in ("required", "optional"))
    return {"inputs": {name: kind(spec) for name, spec in {**required, **optional}.items()}, "required": list(required),
            "widgets": [name for name, spec in {**required, **optional}.items() if is_widget(spec)], "outputs": list(info["output"])}


NOW = {name: shape(info) for name, info in INFO.items()}


def test_every_node_is_in_the_list():
    known = json.loads(NODES_FILE.read_text()) if NODES_FILE.exists() else {}
    new = {name: node for name, node in NOW.items() if name not in known}
    if new:
        NODES_FILE.write_text(json.dumps(known | new, indent=1, sort_keys=True) + "\n")
    assert not new, "written down now; look at it, for it is to stay"


@pytest.mark.parametrize("name", sorted(json.loads(NODES_FILE.read_text())) if NODES_FILE.exists() else [])
def test_nodes_stay(name):
    before, now = json.loads(NODES_FILE.read_text())[name], NOW[name]
    assert {input: now["inputs"].get(input) for input in before["inputs"]} == before["inputs"]
    assert not set(now["required"]) - set(before["required"]), "an input that was not there must be optional"
    assert now["widgets"][:len(before["widgets"])] == before["widgets"], "new widgets come behind, for values are saved by their order"
    assert now["outputs"][:len(before["outputs"])] == before["outputs"]


@pytest.mark.parametrize("path", EARLY, ids=lambda path: path.stem)
def test_early_workflows_say_what_they_said(path):
    workflow = json.loads(path.read_text())
    ours = workflow | {"nodes": [node for node in workflow["nodes"] if node["type"] in INFO]}
    unknown = {node["type"] for node in workflow["nodes"] if "Readout" in node["type"]} - set(INFO)
    prompt = to_api(ours, INFO)
    assert prompt and not unknown
    for node in prompt.values():
        now = NOW[node["class_type"]]
        given = {name: value for name, value in node["inputs"].items() if name in now["widgets"]}
        for name, value in given.items():
            spec = {**INFO[node["class_type"]]["input"].get("required", {}), **INFO[node["class_type"]]["input"].get("optional", {})}[name]
            expected = {"INT": int, "FLOAT": (int, float), "BOOLEAN": bool}.get(kind(spec), str)
            assert isinstance(value, expected), (node["class_type"], name, value)
        missing = [name for name in now["required"] if name not in node["inputs"] and name not in now["widgets"]]
        assert not missing, (node["class_type"], missing)
