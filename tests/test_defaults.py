"""Defaults stand in one place each, the classes of targets and moves; nodes, shipped workflows, help pages and measurements hold to them."""
import inspect
import json
import re

import pytest

from readout_guidance_pack.nodes import NODES
from readout_guidance_pack.nodes.make_heads import load_save
from readout_guidance_pack.rg_core.guidance.targets import Appearance, Attribute, Color, Drag, Identity, Spatial
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools import ROOT
from tools.assets.workflow import to_api
from tools.tables import relations

load_save.register_folder()
INFO = {node.define_schema().node_id: node.GET_NODE_INFO_V1() for node in NODES}
TARGETS = {"ReadoutPoseTarget": Spatial, "ReadoutDepthTarget": Spatial, "ReadoutEdgeTarget": Spatial, "ReadoutMapTarget": Spatial,
           "ReadoutAttributeTarget": Attribute, "ReadoutDragTarget": Drag,
           "ReadoutAppearanceTarget": Appearance, "ReadoutStructureTarget": Appearance, "ReadoutIdentityTarget": Identity,
           "ReadoutColourTarget": Color}
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))


def wanted(node: str) -> dict:
    """The defaults of a node, by input."""
    if node in TARGETS:
        return {"start_percent": TARGETS[node].start, "end_percent": TARGETS[node].end}
    return {"strength": Move.strength} if node in ("ApplyReadoutGuidance", "KSamplerReadoutGuidance") else {}


@pytest.mark.parametrize("node", INFO)
def test_nodes(node):
    assert node in TARGETS or not node.endswith("Target")
    assert (ROOT / "web" / "docs" / f"{node}.md").exists()
    inputs = INFO[node]["input"]
    inputs = inputs.get("required", {}) | inputs.get("optional", {})
    assert {name: inputs[name][1]["default"] for name in wanted(node)} == wanted(node)


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_what_a_prompt_leaves_out_is_what_the_node_shows(node):
    """Clients' prompts and older workflows lack optional inputs: then Python's own default counts."""
    own = inspect.signature(node.execute).parameters
    for given in node.define_schema().inputs:
        if given.optional and getattr(given, "default", None) not in (None, ""):
            assert own[given.id].default == given.default, given.id


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows(path):
    workflow = json.loads(path.read_text())
    ours = workflow | {"nodes": [node for node in workflow["nodes"] if node["type"] in INFO]}
    weights = {"ReadoutAppearanceTarget": relations.APPEARANCE, "ReadoutIdentityTarget": relations.IDENTITY}
    combined = sum(node["type"] in TARGETS for node in ours["nodes"]) > 1
    for node in to_api(ours, INFO).values():
        kind, inputs = node["class_type"], node["inputs"]
        weight = relations.FEATURES if kind == "ReadoutAppearanceTarget" and "head" not in inputs else weights.get(kind, 1.0)
        if kind == "ApplyReadoutGuidance" and inputs["strength"] == 0:  # for comparison
            continue
        expected = wanted(kind) | ({"weight": weight if combined else 1.0} if "weight" in inputs else {})
        assert {name: inputs[name] for name in expected} == expected, kind


@pytest.mark.parametrize("node", TARGETS)
def test_help_pages(node):
    ranges = re.findall(r"start_percent.*?([\d.]*\d) to ([\d.]*\d)", (ROOT / "web" / "docs" / f"{node}.md").read_text())
    assert [tuple(map(float, found)) for found in ranges] == [(TARGETS[node].start, TARGETS[node].end)]
