"""The demo's workflows, made small."""
import json

from tools import templates

STEPS = 4


def workflow(control: str) -> dict:
    """The template for it, with few steps and one picture."""
    content = json.loads(templates.path(control).read_text())
    for node in content["nodes"]:
        values = node.get("widgets_values", [])
        if "KSampler" in node["type"]:
            values[values.index("fixed") + 1] = STEPS
        elif node["type"] in ("EmptyLatentImage", "ReadoutDemoScene"):
            values[-1] = 1
    return content
