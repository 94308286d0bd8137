"""The templates in workflows/: which there are, and those for published models, written from the demo's: `python -m tools.templates` with the
environment of run.py.

A template's name in ComfyUI's browser is its file's. Those for published models load files by the names that they have where they are published, say
where to get them, and take a scene of the demo as an example of a target; their pictures are of the demo's own run.
"""
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from readout_guidance_pack.heads.published import HEADS
from tools import ROOT
from tools.blueprints import CHECKPOINT

FOLDER = ROOT / "workflows"
DEMO = {"pose": "Pose (demo)", "depth": "Depth map (demo)", "edge": "Edges (demo)", "pose_and_depth": "Pose and depth map (demo)",
        "drag": "Drag (demo)", "drag_given": "Drag on your own picture (demo)", "appearance": "Appearance of a reference (demo)",
        "identity": "Identity with another pose (demo)", "fit": "Fit a head (demo)", "attribute": "A slider of your own (demo)",
        "transformer_pose": "Pose on a transformer (demo)", "transformer_drag": "Drag on a transformer (demo)"}
CFG_GIVEN = 3.5  # at most, of drags on a given picture, which the sampler gives back the less exactly the higher it is
EXAMPLE = "example.png"  # in the host's input folder
PROMPT, NEGATIVE = "photo of a dancer in a red shirt and blue trousers, in a meadow", "blurry, low quality, text, watermark"
# By control, where the prompt must leave the looks open or say what EXAMPLE shows.
PROMPTS = {"appearance": "photo of a dancer", "drag_given": "drawing of a girl in a pink dress on a green hill, blue sky, white clouds"}


def path(control: str) -> Path:
    """The demo's template for it."""
    return FOLDER / f"{DEMO[control]}.json"


@dataclass(frozen=True)
class Model:
    """A published model: `load(workflow, node)` makes the node that loads the demo model into what loads this one."""
    name: str
    side: int                 # of its pictures
    load: Callable[[dict, dict], None]
    cfg: float
    heads: str | None = None  # its family among the published heads
    scheduler: str = "karras"  # of drags on a given picture, which are sampled as they were inverted
    controls: tuple[str, ...] = ("pose", "depth", "edge", "pose_and_depth", "drag", "drag_given", "appearance")


def file(directory: str, name: str, url: str) -> dict:
    """As the frontend knows files that it offers to fetch."""
    return {"name": name, "url": url, "directory": directory}


def checkpoint(about: dict) -> Callable[[dict, dict], None]:
    def load(workflow: dict, node: dict) -> None:
        loading(node, "CheckpointLoaderSimple", [about["name"]], about)
    return load


def loading(node: dict, kind: str, widgets: list, *files: dict) -> None:
    node |= {"type": kind, "widgets_values": widgets, "properties": {"Node name for S&R": kind} | ({"models": list(files)} if files else {})}


def z_image(workflow: dict, node: dict) -> None:
    """Its files are three, and its noise levels are set by a node."""
    place, new = "https://huggingface.co/Comfy-Org/z_image_turbo/resolve/main/split_files", workflow["last_node_id"] + 1
    loading(node, "UNETLoader", ["z_image_turbo_bf16.safetensors", "default"],
            file("diffusion_models", "z_image_turbo_bf16.safetensors", f"{place}/diffusion_models/z_image_turbo_bf16.safetensors"))
    parts = [("ModelSamplingAuraFlow", [3.0], "MODEL", None),
             ("CLIPLoader", ["qwen_3_4b.safetensors", "lumina2", "default"], "CLIP",
              file("text_encoders", "qwen_3_4b.safetensors", f"{place}/text_encoders/qwen_3_4b.safetensors")),
             ("VAELoader", ["ae.safetensors"], "VAE", file("vae", "ae.safetensors", f"{place}/vae/ae.safetensors"))]
    for slot, (kind, widgets, out, about) in enumerate(parts):
        part = {"id": new + slot, "flags": {}, "order": 0, "mode": 0, "pos": [-380, 470 + 160 * slot], "size": [360, 110], "inputs": [],
                "outputs": [{"localized_name": out, "name": out, "type": out, "slot_index": 0, "links": node["outputs"][slot]["links"]}]}
        loading(part, kind, widgets, *([about] if about else []))
        workflow["nodes"].append(part)
    workflow["last_node_id"] += len(parts)
    for link in workflow["links"]:
        if link[1] == node["id"]:
            link[1:3] = new + link[2], 0
    node["outputs"] = [node["outputs"][0] | {"links": []}]
    sampling = workflow["nodes"][-3]
    sampling["inputs"] = [{"localized_name": "model", "name": "model", "type": "MODEL", "link": connect(workflow, node, sampling, "MODEL")}]
    sampling["pos"], node["pos"] = node["pos"], [-380, 470]
    groups = workflow["groups"]
    groups.append(groups[0] | {"id": 1 + max(group["id"] for group in groups), "title": "Files", "bounding": [-400, 400, 400, 520]})


def connect(workflow: dict, origin: dict, target: dict, kind: str) -> int:
    workflow["last_link_id"] += 1
    workflow["links"].append([workflow["last_link_id"], origin["id"], 0, target["id"], 0, kind])
    origin["outputs"][0]["links"].append(workflow["last_link_id"])
    return workflow["last_link_id"]


MODELS = [
    Model("SD 1.5", 512, checkpoint(CHECKPOINT), 7.0, "sdv15"),
    Model("SDXL", 1024, checkpoint(file("checkpoints", "sd_xl_base_1.0.safetensors",
          "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors")), 6.0, "sdxl"),
    Model("Z-Image", 1024, z_image, 1.0, scheduler="simple", controls=("transformer_drag", "drag_given"))]
HEADS_OF = {"demo_pose": "spatial_pose", "demo_depth": "spatial_depth", "demo_edge": "spatial_edge", "demo_correspondence": "drag_correspondence",
            "demo_appearance": "drag_appearance"}


def for_model(control: str, model: Model) -> dict:
    """The demo's template, made to load `model` and its published heads."""
    workflow = json.loads(path(control).read_text(encoding="utf-8"))
    prompts = {"Prompt": PROMPTS.get(control, PROMPT), "Negative prompt": NEGATIVE}
    heads = sum(n["type"] == "LoadReadoutHead" for n in workflow["nodes"])
    workflow["last_node_id"] = max(node["id"] for node in workflow["nodes"])
    workflow["last_link_id"] = max(link[0] for link in workflow["links"])
    for node in list(workflow["nodes"]):
        kind, widgets = node["type"], node.get("widgets_values")
        if kind == "MarkdownNote":
            widgets[0] = note(widgets[0], model, heads)
        elif kind == "LoadReadoutDemoModel":
            model.load(workflow, node)
        elif kind == "LoadReadoutHead":
            head = HEADS[f"readout_{model.heads}_{HEADS_OF[widgets[0].removesuffix('.safetensors')]}"]
            loading(node, kind, [head.file], file("readout_heads", head.file, head.url))
        elif kind == "ReadoutDemoScene":
            own_picture(workflow, node, model.side) if node.get("title") in ("The given picture", "Reference scene") else example(node)
        elif kind == "EmptyLatentImage":
            node["widgets_values"] = [model.side, model.side, 1]
        elif kind == "CLIPTextEncode":
            node["widgets_values"] = [prompts[node["title"]]]
        elif kind == "KSamplerAdvanced":
            widgets[4], widgets[6] = min(model.cfg, CFG_GIVEN), model.scheduler
        elif kind == "ReadoutInvert":
            widgets[2] = model.scheduler
        elif kind.startswith("KSampler"):
            widgets[3] = model.cfg
    return workflow


def own_picture(workflow: dict, node: dict, side: int) -> None:
    """A Load Image, cut to the model's size, in the place of a scene that is edited, or looked like."""
    workflow["last_node_id"] += 1
    (left, top), height = node["pos"], 330
    make_room(workflow, node, height + 190)
    links, cut = node["outputs"][0]["links"], {"id": workflow["last_node_id"], "flags": {}, "order": 0, "mode": 0, "size": [340, 130],
                                               "pos": [left, top + height + 60]}
    loading(cut, "ImageScale", ["lanczos", side, side, "center"])
    for link in workflow["links"]:
        if link[0] in links:
            link[1] = cut["id"]
    loading(node, "LoadImage", [EXAMPLE, "image"])
    node["inputs"], node["size"] = [], [340, height]
    node["outputs"] = [{"localized_name": name, "name": name, "type": name, "slot_index": slot, "links": []}
                       for slot, name in enumerate(("IMAGE", "MASK"))]
    cut["outputs"] = [{"localized_name": "IMAGE", "name": "IMAGE", "type": "IMAGE", "slot_index": 0, "links": links}]
    cut["inputs"] = [{"localized_name": "image", "name": "image", "type": "IMAGE", "link": connect(workflow, node, cut, "IMAGE")}]
    workflow["nodes"].append(cut)


def make_room(workflow: dict, node: dict, height: int) -> None:
    """Moves what stands below `node` in its column so far down that it can be `height` high, and lets the group around it grow."""
    (left, top), more = node["pos"], height - node["size"][1]
    for other in workflow["nodes"]:
        if other["pos"][0] == left and other["pos"][1] > top:
            other["pos"][1] += more
    for group in workflow["groups"]:
        x, y, wide, high = group["bounding"]
        if x <= left < x + wide and y <= top < y + high:
            group["bounding"] = [x, y, wide, high + more]


def example(node: dict) -> None:
    """One scene, of which the targets are larger."""
    node["widgets_values"][2:] = [128, 128, 1]
    node["title"] = "An example: put Load Image with your own here"


def note(text: str, model: Model, heads: int) -> str:
    """What the demo's template says, and for this model."""
    words = {"SD 1.5": "a checkpoint of Stable Diffusion 1.5", "SDXL": "a checkpoint of Stable Diffusion XL",
             "Z-Image": "Z-Image Turbo, its text encoder and its VAE"}[model.name]
    of_heads = f", and {'a head' if heads == 1 else 'heads'} that the method's authors published, in `models/readout_heads`" if heads else ""
    return (f"{text[:text.index('**For your own model**')]}**Files**: {words}{of_heads}. ComfyUI says what is missing when this opens, and offers to "
            "fetch it; a browser puts it among its downloads, from where it must be moved. Any fine-tune of the same family does as well.")


def title(control: str, model: Model) -> str:
    return DEMO[control].replace(" on a transformer", "").replace("demo", model.name)


def written() -> dict[str, str]:
    """The files' texts by name."""
    found = {}
    for model in MODELS:
        for control in model.controls:
            found[f"{title(control, model)}.json"] = json.dumps(for_model(control, model), indent=1) + "\n"
    return found


def pictures() -> dict[str, Path]:
    """The demo's picture that each of those files has."""
    return {f"{title(control, model)}.jpg": path(control).with_suffix(".jpg")
            for model in MODELS for control in model.controls}


if __name__ == "__main__":
    for name, text in written().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(name)
