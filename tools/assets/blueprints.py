"""The subgraph blueprints in subgraphs/, written from what is said here: `python -m tools.assets.blueprints` with the environment of run.py.

A blueprint is one node to the user: the model, the prompt and what to steer by go in, a picture comes out. ComfyUI offers those in a pack's folder
subgraphs/ in its node library, by the file's name.
"""
import json
import uuid
from dataclasses import dataclass, field

import nodes as host_nodes

from readout_guidance_pack.heads.published import HEADS
from readout_guidance_pack.nodes import NODES
from readout_guidance_pack.nodes.make_heads import load_save
from tools import ROOT
from tools.assets.workflow import is_widget

CHECKPOINT = {"name": "v1-5-pruned-emaonly-fp16.safetensors", "directory": "checkpoints",
              "url": "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors"}
FOLDER = ROOT / "subgraphs"
SPACE = uuid.UUID("6f1d7c0e-52a1-4be6-9a52-0d5f6d0c8a11")  # ids are made from it and names, so that they stay
INSIDE, OUTSIDE = -10, -20                                  # the frontend's ids of a subgraph's borders
PREVIEW = "$$canvas-image-preview"                          # what it calls a node's preview
ROW, COLUMN = 260, 420


@dataclass(frozen=True)
class Given:
    """An input of a node that is the blueprint's, by this name; `value` is what it is at first, None for the node's own default."""
    name: str
    value: object = None


@dataclass
class Blueprint:
    """`nodes` are by name what the API would be given: (class, {input: value, (name, slot), or Given}). `outputs` are by name (node's name, slot);
    `shows` is the node whose preview is shown while it works."""
    description: str
    nodes: dict[str, tuple[str, dict]]
    outputs: dict[str, tuple[str, int]]
    shows: str
    models: dict[str, list[dict]] = field(default_factory=dict)  # files by the name of the node that loads them, which the frontend offers


def information() -> dict[str, dict]:
    """{class: {"input": ..., "output": [...], "output_name": [...]}} of our nodes and the host's own."""
    load_save.register_folder()
    found = {node.define_schema().node_id: node.GET_NODE_INFO_V1() for node in NODES}
    for name, kind in host_nodes.NODE_CLASS_MAPPINGS.items():
        if name not in found and hasattr(kind, "INPUT_TYPES") and hasattr(kind, "RETURN_TYPES"):
            found[name] = {"input": kind.INPUT_TYPES(), "output": kind.RETURN_TYPES, "output_name": getattr(kind, "RETURN_NAMES", kind.RETURN_TYPES)}
    return found


def kind_of(spec) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


class Writer:
    """The frontend's JSON of one blueprint."""

    def __init__(self, name: str, blueprint: Blueprint, info: dict):
        self.name, self.blueprint, self.info = name, blueprint, info
        self.ids = {node: i + 1 for i, node in enumerate(blueprint.nodes)}
        self.links: list[dict] = []
        self.given: dict[str, dict] = {}  # the blueprint's inputs, in order

    def id(self, *parts: str) -> str:
        return str(uuid.uuid5(SPACE, "/".join((self.name, *parts))))

    def link(self, origin: tuple[int, int], target: tuple[int, int], kind: str) -> int:
        self.links.append({"id": len(self.links) + 1, "origin_id": origin[0], "origin_slot": origin[1], "target_id": target[0],
                           "target_slot": target[1], "type": kind})
        return len(self.links)

    def node(self, name: str) -> dict:
        kind, values = self.blueprint.nodes[name]
        info = self.info[kind]
        specs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        assert set(values) <= set(specs), (name, set(values) - set(specs))
        inputs, widgets = [], []
        for slot, (key, spec) in enumerate(sorted(specs.items(), key=lambda item: is_widget(item[1]))):  # sockets first, as the frontend has them
            value, entry = values.get(key), {"localized_name": key, "name": key, "type": kind_of(spec), "link": None}
            if is_widget(spec):
                entry["widget"] = {"name": key}
            if isinstance(value, Given):
                entry["link"] = self.link((INSIDE, self.place(value, spec)), (self.ids[name], slot), kind_of(spec))
                self.given[value.name]["linkIds"].append(entry["link"])
            elif isinstance(value, tuple):
                entry["link"] = self.link((self.ids[value[0]], value[1]), (self.ids[name], slot), kind_of(spec))
            inputs.append(entry)
        for key, spec in specs.items():
            if is_widget(spec):
                options = spec[1] if len(spec) > 1 else {}
                value = values.get(key, options.get("default", spec[0][0] if isinstance(spec[0], list) and spec[0] else ""))
                widgets.append(self.given[value.name]["value"] if isinstance(value, Given) else value)
                if options.get("control_after_generate"):
                    widgets.append("randomize")
        properties = {"Node name for S&R": kind} | ({"models": self.blueprint.models[name]} if name in self.blueprint.models else {})
        at = self.ids[name] - 1
        return {"id": self.ids[name], "type": kind, "pos": [at // 3 * COLUMN, at % 3 * ROW], "size": [360, 200], "flags": {}, "order": at, "mode": 0,
                "inputs": inputs, "outputs": [{"localized_name": label, "name": label, "type": output, "links": []}
                                              for label, output in zip(info["output_name"], info["output"])],
                "properties": properties, "widgets_values": widgets}

    def place(self, given: Given, spec) -> int:
        """The slot of the blueprint's input."""
        name = given.name
        if name not in self.given:
            options = {"default": given.value} if given.value is not None else spec[1] if len(spec) > 1 else {}
            self.given[name] = {"id": self.id("input", name), "name": name, "type": kind_of(spec), "linkIds": [], "localized_name": name,
                                "pos": [-120, 40 + 20 * len(self.given)], "widget": is_widget(spec), "value": options.get("default", "")}
        return list(self.given).index(name)

    def json(self) -> dict:
        nodes = [self.node(name) for name in self.blueprint.nodes]
        outputs = []
        for i, (name, (node, slot)) in enumerate(self.blueprint.outputs.items()):
            kind = nodes[self.ids[node] - 1]["outputs"][slot]["type"]
            outputs.append({"id": self.id("output", name), "name": name, "type": kind, "localized_name": name, "pos": [2000, 40 + 20 * i],
                            "linkIds": [self.link((self.ids[node], slot), (OUTSIDE, i), kind)]})
        for link in self.links:
            if link["origin_id"] > 0:
                nodes[link["origin_id"] - 1]["outputs"][link["origin_slot"]]["links"].append(link["id"])
        typed = [given for given in self.given.values() if given["widget"]]
        subgraph = {"id": self.id(), "version": 1, "revision": 0, "config": {}, "name": self.name, "description": self.blueprint.description,
                    "category": "Readout Guidance",
                    "state": {"lastGroupId": 0, "lastNodeId": len(nodes), "lastLinkId": len(self.links), "lastRerouteId": 0},
                    "inputNode": {"id": INSIDE, "bounding": [-240, 0, 120, 40 + 20 * len(self.given)]},
                    "outputNode": {"id": OUTSIDE, "bounding": [2000, 0, 120, 60]},
                    "inputs": [{key: value for key, value in given.items() if key not in ("widget", "value")} for given in self.given.values()],
                    "outputs": outputs, "widgets": [], "nodes": nodes, "groups": [], "links": self.links, "extra": {}}
        preview = {"name": PREVIEW, "sourceNodeId": str(self.ids[self.blueprint.shows]), "sourcePreviewName": PREVIEW}
        node = {"id": 1, "type": self.id(), "pos": [0, 0], "size": [400, 420], "flags": {}, "order": 0, "mode": 0,
                "inputs": [{"localized_name": given["name"], "name": given["name"], "type": given["type"], "link": None}
                           | ({"widget": {"name": given["name"]}} if given["widget"] else {}) for given in self.given.values()],
                "outputs": [{"localized_name": output["name"], "name": output["name"], "type": output["type"], "links": []} for output in outputs],
                "properties": {"proxyWidgets": [["-1", given["name"]] for given in typed], "previewExposures": [preview]},
                "widgets_values": [given["value"] for given in typed]}
        return {"id": self.id("workflow"), "revision": 0, "last_node_id": 1, "last_link_id": 0, "nodes": [node], "links": [], "groups": [],
                "definitions": {"subgraphs": [subgraph]}, "config": {}, "extra": {"BlueprintDescription": self.blueprint.description}, "version": 0.4}


def guided_by(kind: str, target: str, what: str) -> Blueprint:
    """A picture from a checkpoint and `what`, by the published head for it."""
    published = [HEADS[f"readout_{family}_spatial_{kind}"] for family in ("sdv15", "sdxl")]
    return Blueprint(
        f"A picture by a checkpoint of Stable Diffusion 1.5 or XL, steered to {what}. Choose the head for the checkpoint's family.",
        {"checkpoint": ("CheckpointLoaderSimple", {"ckpt_name": Given("ckpt_name", CHECKPOINT["name"])}),
         "positive": ("CLIPTextEncode", {"clip": ("checkpoint", 1), "text": Given("prompt")}),
         "negative": ("CLIPTextEncode", {"clip": ("checkpoint", 1), "text": Given("negative")}),
         "latent": ("EmptyLatentImage", {"width": Given("width"), "height": Given("height")}),
         "head": ("LoadReadoutHead", {"head_name": Given("head_name", published[0].file)}),
         "target": (target, {"head": ("head", 0), "image": Given(kind)}),
         "sampler": ("KSamplerReadoutGuidance", {
             "model": ("checkpoint", 0), "positive": ("positive", 0), "negative": ("negative", 0), "latent_image": ("latent", 0),
             "guidance": ("target", 0), "seed": Given("seed"), "steps": Given("steps"), "cfg": Given("cfg", 7.0), "sampler_name": "dpmpp_2m",
             "scheduler": "karras", "strength": Given("strength")}),
         "decode": ("VAEDecode", {"samples": ("sampler", 0), "vae": ("checkpoint", 2)})},
        {"image": ("decode", 0), "trace": ("sampler", 1)}, "sampler",
        {"checkpoint": [CHECKPOINT], "head": [{"name": head.file, "url": head.url, "directory": "readout_heads"} for head in published]})


BLUEPRINTS = {"Picture from a pose (Readout Guidance)": guided_by("pose", "ReadoutPoseTarget", "a pose, drawn as an OpenPose skeleton"),
              "Picture from a depth map (Readout Guidance)": guided_by("depth", "ReadoutDepthTarget", "a depth map, white being near"),
              "Picture from edges (Readout Guidance)": guided_by("edge", "ReadoutEdgeTarget", "edges, white on black")}


def written() -> dict[str, str]:
    """The files' texts by name."""
    info = information()
    return {f"{name}.json": json.dumps(Writer(name, blueprint, info).json(), indent=1) + "\n" for name, blueprint in BLUEPRINTS.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in written().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(name)
