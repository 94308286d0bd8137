"""Workflows as the frontend saves them, turned into what the server's API takes."""

# What the frontend adds behind a seed's value in widgets_values.
SEED_MODES = {"fixed", "increment", "decrement", "randomize"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}  # what is typed into a node
MUTED, BYPASSED = 2, 4
NOT_RUN = {"Note", "MarkdownNote"}


def is_widget(spec: list) -> bool:
    """Whether an input of /object_info is typed into the node rather than connected."""
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    return (isinstance(kind, list) or options.get("widgetType", kind) in WIDGETS) and not options.get("forceInput")


def to_api(workflow: dict, object_info: dict) -> dict:
    """The API's prompt for a workflow of the frontend: {node id: {class_type, inputs}}.

    Raises KeyError for a node class that the server does not have.
    """
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOT_RUN or node.get("mode") in (MUTED, BYPASSED):
            continue
        info = object_info[node["type"]]["input"]
        values, inputs = list(node.get("widgets_values") or []), {}
        for name, spec in {**info.get("required", {}), **info.get("optional", {})}.items():
            if is_widget(spec) and values:
                inputs[name] = values.pop(0)
                if len(spec) > 1 and spec[1].get("control_after_generate") and values and values[0] in SEED_MODES:
                    values.pop(0)
        inputs |= {slot["name"]: links[slot["link"]] for slot in node.get("inputs", []) if slot.get("link") is not None}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt
