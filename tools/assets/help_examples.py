"""Small workflows for the nodes' help pages, as the API takes them, and where their nodes stand: tools/assets/help_pictures.py draws them."""
from dataclasses import dataclass

from tools.tables.relations import FEATURES

SAID = "a figure in a red shirt and blue trousers, meadow"
DRAG, TRACKS = "[[[0.25, 0.33], [0.2, 0.5]]]", "tracks.npy"


@dataclass(frozen=True)
class Example:
    """`nodes` are by name (class, {input: value, or (name, slot)}); each is in one of the `columns`, from left to right."""
    nodes: dict[str, tuple[str, dict]]
    columns: list[list[str]]


def base(said: str = SAID, batch: int = 1) -> dict:
    """The model and what is said to it."""
    return {"model": ("LoadReadoutDemoModel", {"model": "UNet"}),
            "prompt": ("CLIPTextEncode", {"clip": ("model", 1), "text": said}),
            "negative": ("CLIPTextEncode", {"clip": ("model", 1), "text": ""}),
            "latent": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": batch})}


def sampler(kind: str, seed: int = 7, name: str = "dpmpp_2m", **more) -> tuple[str, dict]:
    """A node with the stock KSampler's inputs."""
    return kind, {"model": ("model", 0), "positive": ("prompt", 0), "negative": ("negative", 0), "latent_image": ("latent", 0), "seed": seed,
                  "steps": 20, "cfg": 3.0, "sampler_name": name, "scheduler": "karras", "denoise": 1.0} | more


def head(name: str) -> tuple[str, dict]:
    return "LoadReadoutHead", {"head_name": f"demo_{name}.safetensors"}


def scene(seed: int, batch: int = 1) -> tuple[str, dict]:
    return "ReadoutDemoScene", {"seed": seed, "width": 64, "height": 64, "batch_size": batch}


def guided(target: str, seed: int = 7, name: str = "dpmpp_2m", **more) -> dict:
    return {"sampler": sampler("KSamplerReadoutGuidance", seed, name, guidance=(target, 0), strength=0.1, **more), "decode": decode("sampler")}


def decode(samples: str) -> tuple[str, dict]:
    return "VAEDecode", {"samples": (samples, 0), "vae": ("model", 2)}


def encode(pixels: str) -> tuple[str, dict]:
    return "VAEEncode", {"pixels": (pixels, 0), "vae": ("model", 2)}


def shown(picture: str) -> dict:
    """Pictures of the demo model, large enough to be seen."""
    return {f"enlarge {picture}": ("ImageScale", {"image": (picture, 0), "upscale_method": "nearest-exact", "width": 384, "height": 384,
                                                  "crop": "disabled"}),
            f"show {picture}": ("PreviewImage", {"images": (f"enlarge {picture}", 0)})}


def compare(target: tuple[str, int]) -> tuple[str, dict]:
    return "ReadoutCompare", {"target": target, "guided": ("decode", 0)}


def spatial(kind: str, node: str, slot: int, seed: int, more: dict, last: list[str]) -> Example:
    """Something drawn that the picture should show."""
    nodes = base() | {"scene": scene(seed), "head": head(kind), "target": (node, {"head": ("head", 0), "image": ("scene", slot)})}
    return Example(nodes | guided("target") | {"compare": compare(("scene", slot))} | more,
                   [["model", "prompt", "negative", "latent", "head", "scene"], ["target"], ["sampler"], ["decode", "compare", *last]])


def related(node: str, reference: dict, last: list[str], inputs: dict, seen: tuple[str, int], said: str = SAID) -> Example:
    """Something that the picture has from a reference."""
    nodes = base(said) | reference | {"target": (node, {"reference": ("reference", 0)} | inputs)}
    return Example(nodes | guided("target") | {"compare": compare(seen)},
                   [["model", "prompt", "negative", "latent", *last], ["reference", "target"], ["sampler"], ["decode", "compare"]])


def made_noisy(seed: int) -> dict:
    return {"scene": scene(seed), "encode": encode("scene"),
            "reference": ("ReadoutReference", {"model": ("model", 0), "positive": ("negative", 0), "latent": ("encode", 0), "seed": 1})}


def fitted(node: str, inputs: dict, report: int, count: int = 25) -> tuple[dict, list[str]]:
    """A head from pictures that the model samples for it, and what was found."""
    nodes = base("", count) | {"pictures": sampler("KSampler", 3, cfg=1.0),
                               "fit": (node, {"model": ("model", 0), "latents": ("pictures", 0), "positive": ("negative", 0), "seed": 0} | inputs),
                               "report": ("PreviewAny", {"source": ("fit", report)})}
    return nodes, ["model", "prompt", "negative", "latent", "pictures"]


def reader() -> dict:
    return {"decode": decode("pictures"), "reader": ("ReadoutDemoReader", {"image": ("decode", 0)})}


def looks(reference: str) -> tuple[str, dict]:
    """What is not dragged should stay."""
    return "ReadoutAppearanceTarget", {"reference": (reference, 1), "guidance": ("target", 0), "weight": FEATURES}


def drag() -> Example:
    nodes = base() | {"reference": sampler("KSamplerReadoutReference", 4, "euler"), "picture": decode("reference")}
    nodes |= {"target": ("ReadoutDragTarget", {"reference": ("reference", 1), "image": ("picture", 0), "drags": DRAG}), "looks": looks("reference")}
    return Example(nodes | guided("looks", 4, "euler") | {"compare": compare(("picture", 0))},
                   [["model", "prompt", "negative", "latent", "reference"], ["picture", "target"], ["looks", "sampler"], ["decode", "compare"]])


def drag_path() -> Example:
    example = drag()
    nodes = example.nodes | {"path": ("ReadoutDragPath", {"guidance": ("looks", 0), "latent": ("latent", 0), "frames": 4})}
    nodes |= guided("path", 4, "euler", latent_image=("path", 1)) | shown("decode")
    del nodes["compare"]
    return Example(nodes, [*example.columns[:2], ["looks", "path", "sampler"], ["decode", "enlarge decode", "show decode"]])


def tracks() -> Example:
    example = drag()
    kind, inputs = example.nodes["target"]
    nodes = example.nodes | {"tracks": ("LoadReadoutTracks", {"file": TRACKS}),
                             "target": (kind, inputs | {"tracks": ("tracks", 0), "drags": "[]"})}
    return Example(nodes, [example.columns[0], ["picture", "tracks", "target"], *example.columns[2:]])


def inverted() -> Example:
    nodes = base("a figure in a blue shirt and red trousers, meadow") | {"scene": scene(8), "encode": encode("scene"),
             "invert": ("ReadoutInvert", {"model": ("model", 0), "positive": ("prompt", 0), "negative": ("negative", 0), "latent": ("encode", 0),
                                          "steps": 50, "cfg": 1.0, "scheduler": "karras"}),
             "target": ("ReadoutDragTarget", {"reference": ("invert", 1), "image": ("scene", 0), "drags": "[[[0.29, 0.42], [0.4, 0.16]]]"}),
             "looks": looks("invert"), "guide": ("ApplyReadoutGuidance", {"model": ("model", 0), "guidance": ("looks", 0), "strength": 0.1}),
             "sampler": ("KSamplerAdvanced", {"model": ("guide", 0), "add_noise": "disable", "noise_seed": 0, "steps": 20, "cfg": 3.0,
                                              "sampler_name": "euler", "scheduler": "karras", "positive": ("prompt", 0), "negative": ("negative", 0),
                                              "latent_image": ("invert", 0), "start_at_step": 0, "end_at_step": 10000,
                                              "return_with_leftover_noise": "disable"}),
             "decode": decode("sampler"), "compare": compare(("scene", 0))}
    del nodes["latent"]
    return Example(nodes, [["model", "prompt", "negative", "scene", "encode", "invert"], ["target"], ["looks", "guide"], ["sampler"],
                           ["decode", "compare"]])


def applied() -> Example:
    nodes = base("a figure in a yellow shirt and green trousers, sea") | {
        "scene": scene(14), "pose": head("pose"), "depth": head("depth"),
        "pose target": ("ReadoutPoseTarget", {"head": ("pose", 0), "image": ("scene", 1)}),
        "depth target": ("ReadoutDepthTarget", {"head": ("depth", 0), "image": ("scene", 2), "guidance": ("pose target", 0)}),
        "guide": ("ApplyReadoutGuidance", {"model": ("model", 0), "guidance": ("depth target", 0), "strength": 0.1}),
        "sampler": sampler("KSampler", model=("guide", 0)), "decode": decode("sampler"), "compare": compare(("scene", 2))}
    return Example(nodes, [["model", "prompt", "negative", "latent", "pose", "depth", "scene"], ["pose target", "depth target"],
                           ["guide", "sampler"], ["decode", "compare"]])


def attribute() -> Example:
    nodes = base("a figure in a green shirt and blue trousers") | {
        "dusk": ("CLIPTextEncode", {"clip": ("model", 1), "text": "a figure, dusk"}),
        "figure": ("CLIPTextEncode", {"clip": ("model", 1), "text": "a figure"}),
        "many": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 25}),
        "with it": sampler("KSampler", 3, positive=("dusk", 0), latent_image=("many", 0), steps=12),
        "without it": sampler("KSampler", 3, positive=("figure", 0), negative=("dusk", 0), latent_image=("many", 0), steps=12),
        "fit": ("FitReadoutAttribute", {"model": ("model", 0), "pictures_with": ("with it", 0), "pictures_without": ("without it", 0),
                                        "positive": ("negative", 0), "name": "dusk", "seed": 0}),
        "report": ("PreviewAny", {"source": ("fit", 1)}), "target": ("ReadoutAttributeTarget", {"head": ("fit", 0), "amount": 1.0})}
    nodes |= guided("target", 8) | shown("decode")
    return Example(nodes, [["model", "prompt", "negative", "latent", "dusk", "figure", "many", "with it", "without it"], ["fit", "report", "target"],
                           ["sampler"], ["decode", "enlarge decode", "show decode"]])


def estimate() -> Example:
    nodes = base() | {"scene": scene(11), "head": head("pose"),
                      "estimate": ("ReadoutEstimate", {"model": ("model", 0), "head": ("head", 0), "positive": ("negative", 0), "percent": 0.9,
                                                       "seed": 0, "image": ("scene", 0), "vae": ("model", 2)}),
                      **shown("scene"), **shown("estimate")}
    del nodes["latent"], nodes["prompt"]
    return Example(nodes, [["model", "negative", "head", "scene"], ["estimate", "enlarge scene", "enlarge estimate"], ["show scene"],
                           ["show estimate"]])


def fit() -> Example:
    nodes, first = fitted("FitReadoutHead", {"image": ("reader", 0), "kind": "depth"}, 1)
    nodes |= reader() | {"held out": ("PreviewImage", {"images": ("fit", 2)}),
                         "save": ("SaveReadoutHead", {"head": ("fit", 0), "filename_prefix": "readout_heads/my_depth"})}
    return Example(nodes, [first, ["decode", "reader", "fit"], ["report", "save"], ["held out"]])


def own_map() -> Example:
    """A head for something that only this world has: the shirt."""
    nodes, first = fitted("FitReadoutHead", {"image": ("reader", 2), "kind": "shirt"}, 1)
    nodes |= reader() | {"scene": scene(12), "wanted": ("ReadoutDemoReader", {"image": ("scene", 0)}),
                         "one": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
                         "target": ("ReadoutMapTarget", {"head": ("fit", 0), "image": ("wanted", 2)}),
                         "said": ("CLIPTextEncode", {"clip": ("model", 1), "text": SAID})}
    nodes |= {"sampler": sampler("KSamplerReadoutGuidance", positive=("said", 0), latent_image=("one", 0), guidance=("target", 0), strength=0.1),
              "picture": decode("sampler"), "compare": ("ReadoutCompare", {"target": ("wanted", 2), "guided": ("picture", 0)})}
    del nodes["report"]
    return Example(nodes, [first, ["decode", "reader", "fit", "scene", "wanted"], ["target", "said", "one", "sampler"], ["picture", "compare"]])


def trained() -> Example:
    nodes, first = fitted("TrainReadoutHead", {"image": ("reader", 0), "kind": "depth", "preset": "small", "steps": 100,
                                               "filename_prefix": "readout_heads/trained_depth", "resume": False}, 2)
    nodes |= reader() | {"held out": ("PreviewImage", {"images": ("fit", 3)})}
    return Example(nodes, [first, ["decode", "reader", "fit"], ["report"], ["held out"]])


def comparing() -> Example:
    nodes = base() | {"pictures": scene(1, 24),
                      "fit": ("FitComparingHead", {"model": ("model", 0), "vae": ("model", 2), "images": ("pictures", 0), "positive": ("negative", 0),
                                                   "kind": "correspondence", "seed": 0}),
                      "report": ("PreviewAny", {"source": ("fit", 1)}), "held out": ("PreviewImage", {"images": ("fit", 2)}),
                      "save": ("SaveReadoutHead", {"head": ("fit", 0), "filename_prefix": "readout_heads/my_correspondence"})}
    del nodes["latent"], nodes["prompt"]
    return Example(nodes, [["model", "negative", "pictures"], ["fit", "save"], ["report"], ["held out"]])


def published() -> Example:
    nodes = base() | {"scene": scene(11), "head": head("pose"), "target": ("ReadoutPoseTarget", {"head": ("head", 0), "image": ("scene", 1)}),
                      "sampler": ("KSamplerReadoutGuidancePublished", {
                          "model": ("model", 0), "seed": 7, "steps": 100, "cfg": 3.0, "eta": 1.0, "add_noise": True, "positive": ("prompt", 0),
                          "negative": ("negative", 0), "latent_image": ("latent", 0), "strength": 0.02, "guidance": ("target", 0)}),
                      "decode": decode("sampler"), "compare": compare(("scene", 1))}
    return Example(nodes, [["model", "prompt", "negative", "latent", "head", "scene"], ["target"], ["sampler"], ["decode", "compare"]])


EXAMPLES = {
    "pose": spatial("pose", "ReadoutPoseTarget", 1, 11, {}, []),
    "depth": spatial("depth", "ReadoutDepthTarget", 2, 12, {"trace": ("ReadoutTrace", {"trace": ("sampler", 1)})}, ["trace"]),
    "edges": spatial("edge", "ReadoutEdgeTarget", 3, 13, {}, []),
    "apply": applied(), "drag": drag(), "drag_path": drag_path(), "tracks": tracks(), "invert": inverted(),
    "appearance": related("ReadoutAppearanceTarget", made_noisy(1) | {"head": head("appearance")}, ["head", "scene", "encode"],
                          {"head": ("head", 0)}, ("scene", 0), "a figure"),
    "identity": related("ReadoutIdentityTarget", made_noisy(9) | {"head": head("identity")}, ["head", "scene", "encode"],
                        {"head": ("head", 0)}, ("scene", 0), "a figure, meadow"),
    "structure": related("ReadoutStructureTarget", made_noisy(9), ["scene", "encode"], {}, ("scene", 0),
                         "a figure in a red shirt and blue trousers, room"),
    "color": Example(base() | {"scene": scene(9), "target": ("ReadoutColourTarget", {"image": ("scene", 0), "vae": ("model", 2)})}
                      | guided("target") | {"compare": compare(("scene", 0))},
                      [["model", "prompt", "negative", "latent", "scene"], ["target"], ["sampler"], ["decode", "compare"]]),
    "attribute": attribute(), "estimate": estimate(), "fit": fit(), "map": own_map(), "train": trained(), "comparing": comparing(),
    "published": published()}
PAGES = {"LoadReadoutHead": "pose", "ReadoutPoseTarget": "pose", "KSamplerReadoutGuidance": "pose", "ReadoutDemoScene": "pose",
         "LoadReadoutDemoModel": "pose", "ReadoutCompare": "pose", "ReadoutDepthTarget": "depth", "ReadoutTrace": "depth",
         "ReadoutEdgeTarget": "edges", "ApplyReadoutGuidance": "apply", "ReadoutDragTarget": "drag", "KSamplerReadoutReference": "drag",
         "ReadoutDragPath": "drag_path", "LoadReadoutTracks": "tracks", "ReadoutInvert": "invert", "ReadoutAppearanceTarget": "appearance",
         "ReadoutReference": "appearance", "ReadoutIdentityTarget": "identity", "ReadoutStructureTarget": "structure",
         "ReadoutColourTarget": "color", "FitReadoutAttribute": "attribute", "ReadoutAttributeTarget": "attribute",
         "ReadoutEstimate": "estimate", "FitReadoutHead": "fit", "SaveReadoutHead": "fit", "ReadoutDemoReader": "fit", "ReadoutMapTarget": "map",
         "TrainReadoutHead": "train", "FitComparingHead": "comparing", "KSamplerReadoutGuidancePublished": "published"}
