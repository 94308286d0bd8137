"""The pack's words in other languages: complete, and in a form that the host's page can show."""
import json
import re

import pytest

from readout_guidance_pack.nodes import NODES
from readout_guidance_pack.nodes.make_heads import load_save
from tools import ROOT

load_save.register_folder()
LANGUAGES = sorted(path.name for path in (ROOT / "locales").iterdir())
ENGLISH = dict(re.findall(r'^  (\w+): "(.*)",$', (ROOT / "web" / "words.js").read_text(), re.M))
SYNTAX = set("{}@|")  # the page reads these as more than text everywhere but in tooltips


def texts(language: str, file: str) -> dict:
    return json.loads((ROOT / "locales" / language / file).read_text(encoding="utf-8"))


def wanted(node) -> dict:
    """What there is to say of a node: its inputs and outputs, and which of these have tooltips."""
    info = node.GET_NODE_INFO_V1()
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    tooltips = info.get("output_tooltips") or [None] * len(info["output"])
    return {"inputs": {name: bool(len(spec) > 1 and spec[1].get("tooltip")) for name, spec in inputs.items()},
            "outputs": {str(i): bool(tooltip) for i, tooltip in enumerate(tooltips)}}


def test_there_are_four():
    assert LANGUAGES == ["de", "ja", "zh"]  # beside English, which the nodes themselves say


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.define_schema().node_id)
def test_every_input_and_output_has_a_tooltip(node):
    assert node.define_schema().description
    assert not [(part, key) for part, found in wanted(node).items() for key, tooltip in found.items() if not tooltip]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_is_translated(language):
    said = texts(language, "nodeDefs.json")
    assert set(said) == {node.define_schema().node_id for node in NODES}
    for node in NODES:
        name, words = node.define_schema().node_id, said[node.define_schema().node_id]
        assert words["display_name"] and words["description"]
        assert {part: {key: "tooltip" in text for key, text in words[part].items()} for part in ("inputs", "outputs")} == wanted(node), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_taken_for_syntax(language):
    main = texts(language, "main.json")
    plain = [*main["nodeCategories"].values()]
    for words in texts(language, "nodeDefs.json").values():
        plain += [words["display_name"], words["description"], *(text["name"] for part in ("inputs", "outputs") for text in words[part].values())]
    assert not [text for text in plain if SYNTAX & set(text) or not text.strip()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_of_the_page_is_translated(language):
    said = texts(language, "main.json")["readoutGuidance"]
    assert len(ENGLISH) > 10 and set(said) == set(ENGLISH)
    for key, text in ENGLISH.items():
        assert set(re.findall(r"<\w+>", said[key])) == set(re.findall(r"<\w+>", text)), key
        assert said[key].strip()


@pytest.mark.parametrize("language", LANGUAGES)
def test_categories_are_translated(language):
    categories = {part for node in NODES for part in node.define_schema().category.split("/")}
    assert set(texts(language, "main.json")["nodeCategories"]) == categories
