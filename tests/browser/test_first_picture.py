"""From an empty page to the first guided picture with one's own Stable Diffusion 1.5 checkpoint and a picture of a pose: how many nodes and clicks it
takes by hand, by a template and by a blueprint. Weights are random and full-size, so the pictures are noise. `python run.py test -m slow`
"""
import shutil

import pytest

from own_models import save_skeleton
from page import SAVED, empty, opened, search
from tools.host.server import PACK_FOLDER, Server
from tools.random_weights import checkpoints

pytestmark = pytest.mark.slow
CHECKPOINT, POSE, HEAD = "my_own.safetensors", "skeleton.png", "readout_sdv15_spatial_pose.pt"
TITLES = {"CheckpointLoaderSimple": "Load Checkpoint", "CLIPTextEncode": "CLIP Text Encode", "EmptyLatentImage": "Empty Latent Image",
          "LoadImage": "Load Image", "LoadReadoutHead": "Load Readout Head", "ReadoutPoseTarget": "Pose Target",
          "KSamplerReadoutGuidance": "KSampler (Readout Guidance)", "VAEDecode": "VAE Decode", "SaveImage": "Save Image",
          "picture from a pose": "Picture from a pose (Readout Guidance)"}
PLACE = """([type, slot, out]) => {
    const node = app.graph.nodes.findLast((node) => node.type === type || node.title === type);
    const at = out ? node.getOutputPos(slot) : node.getInputPos(slot), [x, y] = app.canvas.ds.convertOffsetToCanvas(at);
    const box = app.canvas.canvas.getBoundingClientRect();
    return [x + box.left, y + box.top];
}"""
SLOT = """([type, name, side]) => app.graph.nodes.findLast((node) => node.type === type || node.title === type)[side]
    .findIndex((slot) => slot.name === name)"""
SET = """([type, name, value]) => {
    const widget = app.graph.nodes.findLast((node) => node.type === type || node.title === type).widgets.find((w) => w.name === name);
    if (widget.options?.values && !widget.options.values.includes(value)) throw new Error(`${name} has no ${value}`);
    widget.value = value;
}"""
LINKED = """([origin, type, name]) => {
    const node = app.graph.nodes.findLast((node) => node.type === type || node.title === type);
    const from = node.getInputNode(node.inputs.findIndex((slot) => slot.name === name));
    return from && (from.type === origin || from.title === origin);
}"""


class Hands:
    """A user's: each press of a mouse button is a click, a drag one too; typing and zooming are free. Choosing from a list is two clicks, a click
    into a text one; the value itself is set without the mouse."""

    def __init__(self, page):
        self.page, self.clicks, self.links = page, 0, 0
        empty(page)
        page.evaluate("app.canvas.ds.scale = 0.6")

    @property
    def nodes(self) -> int:
        return self.page.evaluate("app.graph.nodes.length")

    def add(self, words: str, x: int, y: int) -> None:
        """A double click for the search box, and one for where it is put down."""
        before = self.nodes
        search(self.page, 760, 860, words, TITLES[words])
        self.page.wait_for_function("(count) => app.graph.nodes.length === count", arg=before + 1)
        self.page.wait_for_function("!document.activeElement.matches('input')")
        self.page.wait_for_timeout(500)
        self.page.mouse.move(x, y, steps=10)  # it hangs at the pointer
        self.page.wait_for_timeout(200)
        self.page.mouse.click(x, y)
        self.clicks += 2

    def link(self, origin: str, out: str, target: str, into: str) -> None:
        ends = [self.page.evaluate(PLACE, [name, self.page.evaluate(SLOT, [name, slot, side]), side == "outputs"])
                for name, slot, side in ((origin, out, "outputs"), (target, into, "inputs"))]
        self.page.mouse.move(*ends[0])
        self.page.mouse.down()
        self.page.mouse.move(*ends[1], steps=8)
        self.page.mouse.up()
        self.page.wait_for_function(LINKED, arg=[origin, target, into])
        self.clicks, self.links = self.clicks + 1, self.links + 1

    def choose(self, node: str, widget: str, value, clicks: int = 2) -> None:
        self.page.evaluate(SET, [node, widget, value])
        self.clicks += clicks

    def run(self) -> None:
        """Small and short: what is not counted here is the same on every way."""
        self.page.evaluate("""for (const node of app.graph.nodes) for (const widget of node.widgets ?? []) {
            if (widget.name === "steps") widget.value = 2;
            if (["width", "height"].includes(widget.name)) widget.value = 256;
        }""")
        self.page.get_by_test_id("queue-button").click()
        self.clicks += 1
        self.page.wait_for_function(SAVED, timeout=600_000)
        assert not self.page.evaluate("app.lastExecutionError ?? app.lastNodeErrors")


@pytest.fixture(scope="module")
def hands(tmp_path_factory, browser):
    home = tmp_path_factory.mktemp("first")
    for folder in ("input", "models/checkpoints", "models/readout_heads"):
        (home / folder).mkdir(parents=True)
    save_skeleton(home / "input" / POSE, 256)
    checkpoints.save_checkpoint(checkpoints.sd15_weights(), home / "models" / "checkpoints" / CHECKPOINT)
    checkpoints.save_published_head(home / "models" / "readout_heads" / HEAD, "sdv15", spatial=True)
    with Server(home / "output", home=home) as server, opened(server, browser, "classic") as page:
        page.set_viewport_size({"width": 1920, "height": 1080})
        yield lambda: Hands(page)
    shutil.rmtree(home / "models")


def by_hand(hands):
    """As with version 0.1: every node is the user's own."""
    for words, x, y in (("CheckpointLoaderSimple", 350, 150), ("CLIPTextEncode", 650, 120), ("EmptyLatentImage", 350, 350), ("LoadImage", 350, 600),
                        ("LoadReadoutHead", 650, 600), ("ReadoutPoseTarget", 900, 600), ("KSamplerReadoutGuidance", 1200, 150),
                        ("VAEDecode", 1500, 150), ("SaveImage", 1500, 350)):
        hands.add(words, x, y)
    hands.page.evaluate("app.graph.findNodesByType('CLIPTextEncode')[0].title = 'positive'")
    hands.add("CLIPTextEncode", 650, 350)
    for link in (("CheckpointLoaderSimple", "CLIP", "positive", "clip"), ("CheckpointLoaderSimple", "CLIP", "CLIPTextEncode", "clip"),
                 ("CheckpointLoaderSimple", "MODEL", "KSamplerReadoutGuidance", "model"),
                 ("positive", "CONDITIONING", "KSamplerReadoutGuidance", "positive"),
                 ("CLIPTextEncode", "CONDITIONING", "KSamplerReadoutGuidance", "negative"),
                 ("EmptyLatentImage", "LATENT", "KSamplerReadoutGuidance", "latent_image"), ("LoadReadoutHead", "head", "ReadoutPoseTarget", "head"),
                 ("LoadImage", "IMAGE", "ReadoutPoseTarget", "image"), ("ReadoutPoseTarget", "guidance", "KSamplerReadoutGuidance", "guidance"),
                 ("KSamplerReadoutGuidance", "LATENT", "VAEDecode", "samples"), ("CheckpointLoaderSimple", "VAE", "VAEDecode", "vae"),
                 ("VAEDecode", "IMAGE", "SaveImage", "images")):
        hands.link(*link)
    hands.choose("CheckpointLoaderSimple", "ckpt_name", CHECKPOINT)
    hands.choose("LoadReadoutHead", "head_name", HEAD)
    hands.choose("LoadImage", "image", POSE)
    hands.choose("positive", "text", "a dancer", clicks=1)
    return hands.nodes


def by_template(hands):
    page = hands.page
    page.get_by_role("button", name="Templates").first.click()
    page.get_by_role("button", name=PACK_FOLDER, exact=True).click()
    page.get_by_placeholder("Search").last.fill("Pose (SD 1.5)")
    page.get_by_test_id("template-workflow-Pose (SD 1.5)").click()
    page.wait_for_function("!app.configuringGraph && app.graph.findNodesByType('ReadoutPoseTarget').length === 1")
    hands.clicks += 4  # the search field too
    hands.choose("CheckpointLoaderSimple", "ckpt_name", CHECKPOINT)
    before = hands.nodes
    hands.add("LoadImage", 700, 850)
    for target, slot in (("ReadoutPoseTarget", "image"), ("Target", "images"), ("ReadoutCompare", "target")):
        hands.link("LoadImage", "IMAGE", target, slot)
    hands.choose("LoadImage", "image", POSE)
    hands.choose("Prompt", "text", "a dancer", clicks=1)
    return hands.nodes - before


def by_blueprint(hands):
    name = "Picture from a pose (Readout Guidance)"
    for words, x, y in (("LoadImage", 400, 300), ("picture from a pose", 800, 300), ("SaveImage", 1300, 300)):
        hands.add(words, x, y)
    hands.link("LoadImage", "IMAGE", name, "pose")
    hands.link(name, "image", "SaveImage", "images")
    hands.choose("LoadImage", "image", POSE)
    hands.choose(name, "ckpt_name", CHECKPOINT)
    hands.choose(name, "prompt", "a dancer", clicks=1)
    return hands.nodes


@pytest.mark.parametrize("way, counted", [(by_hand, {"nodes": 10, "links": 12, "clicks": 40}), (by_template, {"nodes": 1, "links": 3, "clicks": 15}),
                                          (by_blueprint, {"nodes": 3, "links": 2, "clicks": 14})], ids=lambda value: getattr(value, "__name__", ""))
def test_nodes_and_clicks_to_the_first_guided_picture(hands, way, counted):
    user = hands()
    nodes = way(user)
    user.run()
    assert {"nodes": nodes, "links": user.links, "clicks": user.clicks} == counted
