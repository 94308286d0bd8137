"""Prompts as clients send them."""
import json

from comfy_execution.graph_utils import is_link

DRAGS = ("drags", "drags_json")


def with_drags_as_text(content: dict) -> dict:
    """The content of POST /prompt, where drags that are given as a list are the text of it. The host takes every list for a link, and one that
    is none for a mistake, for which it leaves out what is made from that node and goes on."""
    for node in content.get("prompt", {}).values():
        if node.get("class_type") == "ReadoutDragTarget":
            inputs = node.get("inputs", {})
            inputs |= {name: json.dumps(inputs[name]) for name in DRAGS if isinstance(inputs.get(name), list) and not is_link(inputs[name])}
    return content


def read_prompts() -> None:
    """Has the host hand every prompt to `with_drags_as_text` before it looks at it."""
    from server import PromptServer
    PromptServer.instance.add_on_prompt_handler(with_drags_as_text)
