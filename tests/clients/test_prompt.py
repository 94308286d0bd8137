"""What a prompt by POST /prompt may hold, and what /object_info tells clients that make one."""
import json
import re

import pytest

from small import workflow
from tools.assets.workflow import to_api
from tools.host.server import WorkflowFailed

ONE, ANOTHER = [[0.25, 0.33], [0.2, 0.5]], [[0.5, 0.3], [0.6, 0.3]]
LISTS = {"a drag": [ONE], "as long as a link": [ONE, ANOTHER], "points by name": [[{"x": 16, "y": 21}, {"x": 13, "y": 32}]], "none": []}


def dragged(server, **inputs) -> bytes:
    """The image of the demo's drag with these inputs of Drag Target."""
    prompt = to_api(workflow("drag"), server.get("/object_info"))
    prompt["11"]["inputs"] |= inputs
    prompt["13"]["inputs"]["moves"] = 1
    prompt["given"] = {"class_type": "PrimitiveString", "inputs": {"value": json.dumps([ONE])}}
    file, = server.files(server.run(prompt))["15"]
    return file.read_bytes().partition(b"IDAT")[2]  # the prompt is before the pixels


@pytest.mark.parametrize("name", LISTS)
def test_drags_are_taken_as_a_list_too(server, name):
    given = LISTS[name]
    assert dragged(server, drags=given) == dragged(server, drags=json.dumps(given))
    assert (dragged(server, drags=given) == dragged(server, drags="[]")) == (not given)


def test_more_drags_are_taken_as_a_list_and_as_a_link(server):
    assert dragged(server, drags="[]", drags_json=[ONE, ANOTHER]) == dragged(server, drags=[ONE, ANOTHER])
    assert dragged(server, drags="[]", drags_json=["given", 0]) == dragged(server, drags=[ONE])


def test_the_example_of_the_message_works_as_it_is_given(server):
    with pytest.raises(WorkflowFailed, match="the drags cannot be read") as failure:
        dragged(server, drags="up a bit")
    example = re.search(r"such as (.*)\.", str(failure.value))[1]
    assert dragged(server, drags=json.loads(example)) == dragged(server, drags=example) != dragged(server, drags="[]")


def test_what_is_no_prompt_is_refused_by_the_host_as_ever(server):
    for content, words in (({}, "no_prompt"), ({"prompt": {"1": {"inputs": {}}}}, "missing_node_type")):
        with pytest.raises(WorkflowFailed, match=words):
            server.post("/prompt", content)
    assert "on_prompt_handler" not in server.last_words()


def test_clients_are_told_which_inputs_are_typed_and_which_are_links(server):
    """A type of the pack's own is a link for them, unless widgetType says otherwise: what a workflow saves for typed ones is read in their order."""
    told = {node: info["input"] for node, info in server.get("/object_info").items() if info["python_module"].startswith("custom_nodes.readout")}
    inputs = {(node, name): spec for node, groups in told.items() for group in groups if group != "hidden" for name, spec in groups[group].items()}
    typed = {place for place, (kind, options) in inputs.items() if options.get("widgetType") or kind.startswith("READOUT_") and "default" in options}
    assert len(told) == 30 and typed == {("ReadoutDragTarget", "drags")}
    assert inputs["ReadoutDragTarget", "drags"][1]["widgetType"] == "STRING"
    # What has a default is filled in: a box that nobody drew would be one.
    assert not [place for place, (kind, options) in inputs.items() if options.get("forceInput") and "default" in options]
    assert [spec[1]["forceInput"] for spec in inputs.values() if spec[0] == "BOUNDING_BOX"] == [True] * 6
