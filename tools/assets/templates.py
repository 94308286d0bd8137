"""The templates in workflows/: which there are, and those for published models, written from the demo's: `python -m tools.assets.templates` with the
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
from tools.assets.blueprints import CHECKPOINT

FOLDER = ROOT / "workflows"
DEMO = {"pose": "Pose (demo)", "depth": "Depth map (demo)", "edge": "Edges (demo)", "pose_and_depth": "Pose and depth map (demo)",
        "drag": "Drag (demo)", "drag_given": "Drag on your own picture (demo)", "appearance": "Appearance of a reference (demo)",
        "identity": "Identity with another pose (demo)", "fit": "Fit a head (demo)", "attribute": "A slider of your own (demo)",
        "transformer_pose": "Pose on a transformer (demo)", "transformer_drag": "Drag on a transformer (demo)"}
CFG_GIVEN = 3.5  # at most, of drags on a given picture, which the sampler gives back the less exactly the higher it is
EXAMPLE = "example.png"  # in the host's input folder
PICTURES = "poses"       # a folder of one's own there
PROMPT, NEGATIVE = "photo of a dancer in a red shirt and blue trousers, in a meadow", "blurry, low quality, text, watermark"
# By control, where the prompt must leave the looks open or say what EXAMPLE shows.
PROMPTS = {"appearance": "photo of a dancer", "drag_given": "drawing of a girl in a pink dress on a green hill, blue sky, white clouds"}
LOAD = "LoadImage", [EXAMPLE, "image"], 330, {"IMAGE": "IMAGE", "MASK": "MASK"}
LOAD_FOLDER = "LoadImageDataSetFromFolder", [PICTURES], 80, {"images": "IMAGE"}
# What stands in the place of a scene, by its title, and what that is called; of others an example is left.
OWN = {"The given picture": ("The given picture", *LOAD), "Reference scene": ("Reference scene", *LOAD),
       "64 pictures to fit on": ("Pictures to fit on, a folder in input", *LOAD_FOLDER),
       "Scenes to take poses from": ("A picture to take the pose from", *LOAD)}
# By control, where what the demo's note says is of the demo.
NOTES = {"transformer_pose": "\n\n".join((
    "## A pose on a flow transformer",
    "Nobody publishes readout heads for transformers, so this workflow makes one first, from pictures of yours.",
    f"1. Put two dozen pictures or more, each of one person, in many poses, into a folder `{PICTURES}` in `ComfyUI/input`, and press R. The model "
    "may have made them.\n"
    "2. **SDPose** finds the skeletons, **Fit Readout Head** makes a head from pictures and skeletons; its report says how well it reads.\n"
    "3. **Pose Target** steers by it to the pose of another picture. A skeleton that is drawn already goes to **Pose Target** itself.",
    "Both samplers at the right start from the same noise; only one is guided.",
    "**Save Readout Head** keeps the head in `output/readout_heads`. Next time put *Load Readout Head* in the place of *Fit Readout Head*, and take "
    "out what leads there and what shows its report.",
    ""))}


def path(control: str) -> Path:
    """The demo's template for it."""
    return FOLDER / f"{DEMO[control]}.json"


@dataclass(frozen=True)
class Model:
    """A published model: `load(workflow, node)` makes the node that loads the demo model into what loads this one."""
    name: str
    files: str                # as notes call them
    side: int                 # of its pictures
    load: Callable[[dict, dict], None]
    cfg: float
    heads: str | None = None  # its family among the published heads
    scheduler: str = "karras"  # of drags on a given picture, which are sampled as they were inverted
    sampling: tuple[int, str, str] | None = None  # steps, sampler and scheduler, where not the demo's
    more: str = ""            # that its notes say
    called: str = ""          # that its titles say
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


def sockets(outputs: dict[str, str]) -> list[dict]:
    """Outputs, of types by name, that nothing takes yet."""
    return [{"localized_name": name, "name": name, "type": kind, "slot_index": slot, "links": []}
            for slot, (name, kind) in enumerate(outputs.items())]


def add(workflow: dict, kind: str, widgets: list, place: tuple[int, int], size: tuple[int, int], inputs: dict[str, tuple[dict, int]],
        outputs: dict[str, str], *files: dict) -> dict:
    """A new node. `inputs` says by name where each comes from: a node, and the number of its output."""
    workflow["last_node_id"] += 1
    node = {"id": workflow["last_node_id"], "flags": {}, "order": 0, "mode": 0, "size": [*size], "pos": [*place]}
    loading(node, kind, widgets, *files)
    node |= {"outputs": sockets(outputs), "inputs": []}
    workflow["nodes"].append(node)
    for name, (origin, slot) in inputs.items():
        workflow["last_link_id"] += 1
        link, out = workflow["last_link_id"], origin["outputs"][slot]
        workflow["links"].append([link, origin["id"], slot, node["id"], len(node["inputs"]), out["type"]])
        out["links"].append(link)
        node["inputs"].append({"localized_name": name, "name": name, "type": out["type"], "link": link})
    return node


def below(workflow: dict, above: dict, height: int, kind: str, widgets: list, inputs: dict, outputs: dict, *files: dict) -> dict:
    """A new node under `above`, with room made for it."""
    (left, top), (wide, high) = above["pos"], above["size"]
    make_room(workflow, above, high + 60 + height)
    return add(workflow, kind, widgets, (left, top + high + 60), (wide, height), inputs, outputs, *files)


def hand_over(workflow: dict, links: list[int], origin: dict, slot: int = 0) -> None:
    """From now on these links begin at an output of `origin`, the first one if no other is said."""
    for link in workflow["links"]:
        if link[0] in links:
            link[1:3] = origin["id"], slot
    origin["outputs"][slot]["links"] += links


def lcm(workflow: dict, node: dict) -> None:
    """A checkpoint of Stable Diffusion 1.5, and a LoRA with which it needs few steps."""
    checkpoint(CHECKPOINT)(workflow, node)
    links, node["outputs"][0]["links"] = node["outputs"][0]["links"], []
    lora = below(workflow, node, 110, "LoraLoaderModelOnly", [LCM["name"], 1.0], {"model": (node, 0)}, {"MODEL": "MODEL"}, LCM)
    hand_over(workflow, links, lora)


def controlnet(workflow: dict, node: dict) -> None:
    """A checkpoint of Stable Diffusion 1.5, and a ControlNet that both samplers use, on the target's image."""
    checkpoint(CHECKPOINT)(workflow, node)
    prompt, negative = (next(n for n in workflow["nodes"] if n.get("title") == title) for title in ("Prompt", "Negative prompt"))
    taken = [n["outputs"][0]["links"] for n in (prompt, negative)]
    for n in (prompt, negative):
        n["outputs"][0]["links"] = []
    net = below(workflow, node, 60, "ControlNetLoader", [CONTROLNET["name"]], {}, {"CONTROL_NET": "CONTROL_NET"}, CONTROLNET)
    scene = next(n for n in workflow["nodes"] if n["type"] == "ReadoutDemoScene")
    applied = below(workflow, negative, 190, "ControlNetApplyAdvanced", [1.0, 0.0, 1.0],
                    {"positive": (prompt, 0), "negative": (negative, 0), "control_net": (net, 0), "image": (scene, POSE)},
                    {"positive": "CONDITIONING", "negative": "CONDITIONING"})
    for slot, links in enumerate(taken):
        hand_over(workflow, links, applied, slot)
    next(n for n in workflow["nodes"] if n["type"] == "KSampler")["title"] = "KSampler, the ControlNet alone for comparison"


def z_image(workflow: dict, node: dict) -> dict:
    """Its files are three, and its noise levels are set by a node. Returns the last node that loads a file."""
    links, (left, top), groups = [output["links"] for output in node["outputs"]], node["pos"], workflow["groups"]
    (model, words, ae), edge = Z_IMAGE, groups[0]["bounding"][1]
    loading(node, "UNETLoader", [model["name"], "default"], model)
    node["outputs"] = sockets({"MODEL": "MODEL"})
    sampling = add(workflow, "ModelSamplingAuraFlow", [3.0], (left, top), node["size"], {"model": (node, 0)}, {"MODEL": "MODEL"})
    node["pos"] = [left - 420, top]
    files = {"id": 1 + max(group["id"] for group in groups), "title": "Files", "bounding": [left - 440, edge, 400, top + 130 - edge]}
    groups.append(groups[0] | files)
    clip = below(workflow, node, 110, "CLIPLoader", [words["name"], "lumina2", "default"], {}, {"CLIP": "CLIP"}, words)
    vae = below(workflow, clip, 110, "VAELoader", [ae["name"]], {}, {"VAE": "VAE"}, ae)
    for taken, origin in zip(links, (sampling, clip, vae)):
        hand_over(workflow, taken, origin)
    return vae


def z_image_turbo(workflow: dict, node: dict) -> None:
    """The same with what finds poses, and, as in the host's own template, nothing of the prompt for the negative one."""
    below(workflow, z_image(workflow, node), 130, "CheckpointLoaderSimple", [SDPOSE["name"]], {},
          {"MODEL": "MODEL", "CLIP": "CLIP", "VAE": "VAE"}, SDPOSE)
    prompt, empty = (next(n for n in workflow["nodes"] if n.get("title") == title) for title in ("Prompt", "Empty prompt"))
    negative = [entry["link"] for n in workflow["nodes"] for entry in n["inputs"] if entry["name"] == "negative"]
    empty["outputs"][0]["links"] = [link for link in empty["outputs"][0]["links"] if link not in negative]
    zero = below(workflow, prompt, 40, "ConditioningZeroOut", [], {"conditioning": (prompt, 0)}, {"CONDITIONING": "CONDITIONING"})
    hand_over(workflow, negative, zero)


def published(directory: str, name: str, place: str) -> dict:
    return file(directory, name, f"https://huggingface.co/{place}/{name}")


POSE = 1  # the output of a demo scene
LCM = published("loras", "pytorch_lora_weights.safetensors", "latent-consistency/lcm-lora-sdv1-5/resolve/main")
CONTROLNET = published("controlnet", "control_v11p_sd15_openpose_fp16.safetensors", "comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main")
Z_IMAGE = [published(directory, name, f"Comfy-Org/z_image_turbo/resolve/main/split_files/{directory}") for directory, name in (
    ("diffusion_models", "z_image_turbo_bf16.safetensors"), ("text_encoders", "qwen_3_4b.safetensors"), ("vae", "ae.safetensors"))]
SDPOSE = published("checkpoints", "sdpose_wholebody_fp16.safetensors", "Comfy-Org/SDPose/resolve/main/checkpoints")
SDXL = published("checkpoints", "sd_xl_base_1.0.safetensors", "stabilityai/stable-diffusion-xl-base-1.0/resolve/main")
MODELS = [
    Model("SD 1.5", "a checkpoint of Stable Diffusion 1.5", 512, checkpoint(CHECKPOINT), 7.0, "sdv15"),
    Model("SDXL", "a checkpoint of Stable Diffusion XL", 1024, checkpoint(SDXL), 6.0, "sdxl"),
    Model("SD 1.5, LCM", "a checkpoint of Stable Diffusion 1.5, the LCM LoRA for it", 512, lcm, 1.0, "sdv15", sampling=(6, "lcm", "sgm_uniform"),
          more="The LoRA's file has a name that others have too: give it one of its own if you like, and choose that in *Load LoRA*.\n\n"
          "**With another LoRA for few steps** set both samplers: for Lightning and Hyper *euler*, for DMD *lcm*; for each *sgm_uniform*, and as "
          "many steps as its file's name says, 4 or 8. At cfg 1 the negative prompt is not used.", controls=("pose_and_depth",)),
    Model("SD 1.5", "a checkpoint of Stable Diffusion 1.5, a ControlNet for OpenPose", 512, controlnet, 7.0, "sdv15",
          more="\n\n**Apply ControlNet** and **Pose Target** follow the same skeleton; the picture for comparison has the ControlNet alone.",
          controls=("pose",), called="ControlNet and readouts"),
    Model("Z-Image", "Z-Image Turbo, its text encoder and its VAE", 1024, z_image, 1.0, scheduler="simple",
          controls=("transformer_drag", "drag_given")),
    Model("Z-Image Turbo", "Z-Image Turbo, its text encoder and its VAE, and SDPose", 1024, z_image_turbo, 1.0, sampling=(8, "euler", "simple"),
          controls=("transformer_pose",))]
HEADS_OF = {"demo_pose": "spatial_pose", "demo_depth": "spatial_depth", "demo_edge": "spatial_edge", "demo_correspondence": "drag_correspondence",
            "demo_appearance": "drag_appearance"}


def for_model(control: str, model: Model) -> dict:
    """The demo's template, made to load `model` and its published heads."""
    workflow = json.loads(path(control).read_text(encoding="utf-8"))
    prompts = {"Prompt": PROMPTS.get(control, PROMPT), "Negative prompt": NEGATIVE, "Empty prompt": ""}
    heads = sum(n["type"] == "LoadReadoutHead" for n in workflow["nodes"])
    workflow["last_node_id"] = max(node["id"] for node in workflow["nodes"])
    workflow["last_link_id"] = max(link[0] for link in workflow["links"])
    for node in list(workflow["nodes"]):
        kind, widgets = node["type"], node.get("widgets_values")
        if kind == "MarkdownNote":
            widgets[0] = note(NOTES.get(control) or widgets[0], model, heads)
        elif kind == "LoadReadoutDemoModel":
            model.load(workflow, node)
        elif kind == "LoadReadoutHead":
            head = HEADS[f"readout_{model.heads}_{HEADS_OF[widgets[0].removesuffix('.safetensors')]}"]
            loading(node, kind, [head.file], file("readout_heads", head.file, head.url))
        elif kind == "ReadoutDemoScene":
            own(workflow, node, model.side) if node.get("title") in OWN else example(node)
        elif kind == "SaveReadoutHead":
            node["mode"] = 0
        elif kind == "EmptyLatentImage":
            node["widgets_values"] = [model.side, model.side, 1]
        elif kind == "CLIPTextEncode":
            node["widgets_values"] = [prompts[node["title"]]]
        elif kind == "KSamplerAdvanced":
            widgets[4], widgets[6] = min(model.cfg, CFG_GIVEN), model.scheduler
        elif kind == "ReadoutInvert":
            widgets[2] = model.scheduler
        elif kind.startswith("KSampler"):
            steps, sampler, scheduler = model.sampling or (widgets[2], *widgets[4:6])
            widgets[2:6] = [steps, model.cfg, sampler, scheduler]
    return workflow


def own(workflow: dict, node: dict, side: int) -> None:
    """Pictures of one's own, cut to the model's size, in the place of a scene, and the poses in them."""
    title, kind, widgets, height, outputs = OWN[node["title"]]
    pictures, poses = (output["links"] for output in node["outputs"][:2])
    make_room(workflow, node, height)
    loading(node, kind, widgets)
    node |= {"title": title, "inputs": [], "size": [340, height], "outputs": sockets(outputs)}
    cut = below(workflow, node, 130, "ImageScale", ["lanczos", side, side, "center"], {"image": (node, 0)}, {"IMAGE": "IMAGE"})
    hand_over(workflow, pictures, cut)
    if poses:
        hand_over(workflow, poses, skeletons(workflow, cut))


def skeletons(workflow: dict, pictures: dict) -> dict:
    """What draws those that SDPose finds in them, as thick as this pack draws its own."""
    sdpose = next(node for node in workflow["nodes"] if node["type"] == "CheckpointLoaderSimple")
    inputs = {"model": (sdpose, 0), "vae": (sdpose, 2), "image": (pictures, 0)}
    found = below(workflow, pictures, 130, "SDPoseKeypointExtractor", [16], inputs, {"keypoints": "POSE_KEYPOINT"})
    shown = [True, False, False, False, 8, 3, 0.3, True]  # body and head, no hands, face and feet
    return below(workflow, found, 270, "SDPoseDrawKeypoints", shown, {"keypoints": (found, 0)}, {"IMAGE": "IMAGE"})


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
    of_heads = f", and {'a head' if heads == 1 else 'heads'} that the method's authors published, in `models/readout_heads`" if heads else ""
    return (f"{text.partition('**For your own model**')[0]}**Files**: {model.files}{of_heads}. ComfyUI says what is missing when this opens, and "
            "offers to fetch it; a browser puts it among its downloads, from where it must be moved. Any fine-tune of the same family does as well."
            f"{model.more and ' '}{model.more}")


def title(control: str, model: Model) -> str:
    found = DEMO[control].replace(" on a transformer", "").replace("demo", model.name)
    return found.replace(" (", f", {model.called} (") if model.called else found


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
