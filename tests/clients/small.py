"""The demo's workflows, made small."""
import json

from tools.assets import templates
from tools.assets.workflow import to_api

STEPS = 4


def workflow(control: str) -> dict:
    """The template for it, with few steps and one image."""
    content = json.loads(templates.path(control).read_text())
    for node in content["nodes"]:
        values = node.get("widgets_values", [])
        if "KSampler" in node["type"]:
            values[values.index("fixed") + 1] = STEPS
        elif node["type"] in ("EmptyLatentImage", "ReadoutDemoScene"):
            values[-1] = 1
    return content


def prompt(content: dict, object_info: dict) -> dict:
    """The prompt of a workflow as the page exports it for the API: with the titles of nodes."""
    titles = {str(node["id"]): node.get("title") for node in content["nodes"]}
    return {name: node | {"_meta": {"title": titles[name] or object_info[node["class_type"]]["display_name"]}}
            for name, node in to_api(content, object_info).items()}
