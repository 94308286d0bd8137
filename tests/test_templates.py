"""The templates for published models are as tools/assets/templates.py makes them; each names every file that it loads, and where to get it."""
import json
from itertools import combinations

import pytest

from readout_guidance_pack.heads.published import HEADS
from tools.assets import templates
from tools.assets.blueprints import information
from tools.assets.workflow import NOT_RUN, to_api

INFO = information()
ALL = sorted(templates.FOLDER.glob("*.json"))
WRITTEN = templates.written()


def test_the_files_are_what_is_said():
    demo = {templates.path(control).name for control in templates.DEMO}
    assert {path.name: path.read_text(encoding="utf-8") for path in ALL if path.name not in demo} == WRITTEN
    assert {path.name for path in ALL} == demo | set(WRITTEN)
    assert {path.stem for path in templates.FOLDER.glob("*.jpg")} == {path.stem for path in ALL}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_link_has_two_ends_of_one_type(path):
    workflow = json.loads(path.read_text())
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert len(nodes) == len(workflow["nodes"])
    for link, origin, out, target, slot, kind in workflow["links"]:
        begin, end = nodes[origin]["outputs"][out], nodes[target]["inputs"][slot]
        assert link in begin["links"] and link == end["link"] and begin["type"] == kind and end["type"] in (kind, "*")
    ends = [link for node in nodes.values() for output in node.get("outputs", ()) for link in output.get("links") or ()]
    assert sorted(ends) == sorted(link[0] for link in workflow["links"])


def box(node: dict) -> tuple:
    """Left, top, right and bottom on the canvas, in whichever of the page's renderings is larger: a node's title is above its place."""
    (left, top), (wide, high) = node["pos"], node["size"]
    if node["flags"].get("collapsed"):
        return left, top - 30, left + 120, top
    return left, top - 30, left + max(wide, 225), top + max(high, 110 if node["type"] == "LoadReadoutHead" else 0)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_no_node_covers_another_and_each_is_in_a_group(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    boxes = {node["id"]: box(node) for node in workflow["nodes"]}
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (one, other)
    for node in workflow["nodes"]:
        left, top, right, bottom = boxes[node["id"]]
        around = [group for group in workflow["groups"] for x, y, wide, high in [group["bounding"]]
                  if x <= left and y <= top and right <= x + wide and bottom <= y + high]
        assert len(around) == (node["type"] != "MarkdownNote"), node["id"]


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_template_loads_is_named_and_to_be_had(name):
    workflow = json.loads(WRITTEN[name])
    loaders = {"CheckpointLoaderSimple", "LoraLoaderModelOnly", "UNETLoader", "CLIPLoader", "VAELoader", "LoadReadoutHead"}
    heads = {head.file: head.url for head in HEADS.values()}
    for node in workflow["nodes"]:
        if node["type"] in loaders:
            about, = node["properties"]["models"]
            assert node["widgets_values"][0] == about["name"] == about["url"].rsplit("/", 1)[1]
            assert node["type"] != "LoadReadoutHead" or about == {"name": about["name"], "url": heads[about["name"]], "directory": "readout_heads"}
    assert not any("Demo" in node["type"] and node["type"] != "ReadoutDemoScene" for node in workflow["nodes"])
    known = workflow | {"nodes": [node for node in workflow["nodes"] if node["type"] in INFO or node["type"] in NOT_RUN]}
    for node in to_api(known, INFO).values():
        needed = INFO[node["class_type"]]["input"].get("required", {})
        assert set(needed) <= set(node["inputs"]), node["class_type"]
