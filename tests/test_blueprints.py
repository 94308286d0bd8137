"""The subgraph blueprints are what tools/assets/blueprints.py says, and hold together."""
import json

import pytest

from tools.assets import blueprints

WRITTEN = blueprints.written()


def test_the_files_are_what_is_said():
    assert {path.name: path.read_text(encoding="utf-8") for path in blueprints.FOLDER.glob("*.json")} == WRITTEN


@pytest.mark.parametrize("name", WRITTEN)
def test_every_link_has_two_ends_of_one_type(name):
    workflow = json.loads(WRITTEN[name])
    (outside,), (inside,) = workflow["nodes"], workflow["definitions"]["subgraphs"]
    assert outside["type"] == inside["id"] and inside["name"] == name.removesuffix(".json")
    nodes = {node["id"]: node for node in inside["nodes"]}
    for link in inside["links"]:
        begin = (inside["inputs"] if link["origin_id"] == blueprints.INSIDE else nodes[link["origin_id"]]["outputs"])[link["origin_slot"]]
        end = (inside["outputs"] if link["target_id"] == blueprints.OUTSIDE else nodes[link["target_id"]]["inputs"])[link["target_slot"]]
        assert begin["type"] == end["type"] == link["type"]
        assert link["id"] in begin.get("links", begin.get("linkIds")) and link["id"] in [end.get("link"), *end.get("linkIds", [])]
    assert [slot["name"] for slot in outside["inputs"]] == [slot["name"] for slot in inside["inputs"]]
    typed = [slot["name"] for slot in outside["inputs"] if "widget" in slot]
    assert len(outside["widgets_values"]) == len(typed) == len(outside["properties"]["proxyWidgets"])
