"""The help pages' pictures: `python -m tools.assets.help_pictures [NAME ...]` with the environment of run.py writes web/docs/pictures/.

Each is a small workflow of the demo as it looks in ComfyUI's page after a run, and holds that workflow, so that dragging the picture onto the canvas
opens it.
"""
import argparse
import io
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page, sync_playwright

from tools import ROOT
from tools.assets.help_examples import EXAMPLES, TRACKS, Example
from tools.host.server import Server

FOLDER = ROOT / "web" / "docs" / "pictures"
FOLDED = {"LoadReadoutDemoModel", "CLIPTextEncode", "EmptyLatentImage", "VAEDecode", "VAEEncode", "ReadoutDemoScene", "KSampler", "ImageScale"}
TITLES = {"model": "Load Demo Model", "prompt": "Prompt", "negative": "Negative prompt", "latent": "Empty Latent", "scene": "Demo Scene",
          "pictures": "Sampled pictures", "many": "25 empty latents"}
SIZES = {"KSamplerReadoutGuidance": (460, 560), "ReadoutCompare": (520, 400), "ReadoutTrace": (520, 370), "PreviewImage": (420, 420),
         "PreviewAny": (420, 200), "KSamplerAdvanced": (400, 400), "ApplyReadoutGuidance": (460, 330), "ReadoutDragTarget": (380, 600),
         "FitReadoutHead": (380, 270), "FitReadoutAttribute": (380, 270), "FitComparingHead": (380, 350), "TrainReadoutHead": (380, 450)}
WIDTH, GAP, TITLE, LEFT, TOP = 320, 40, 30, 420, 160  # LEFT and TOP are clear of the page's bars
WIDEST = 1200  # pixels of a picture, which a help panel shows smaller still
READY = "window.app?.graph && app.extensionManager?.workflow?.activeWorkflow && !app.configuringGraph"
LISTEN = """for (const kind of ["execution_success", "execution_error", "execution_interrupted"])
    app.api.addEventListener(kind, () => { window.ended = kind; });"""
PICTURES = """app.graph.nodes.every((node) => !app.nodeOutputs[node.id]?.images?.length || node.imgs?.every((image) => image.complete))"""
BUILD = """async ([prompt, titles, columns, folded, sizes, width, gap, title]) => {
    app.loadApiJson(prompt, "example");
    await new Promise((done) => setTimeout(done, 300));
    let x = 0, height = 0;
    for (const column of columns) {
        let y = 0, widest = 0;
        for (const id of column) {
            const node = app.graph.getNodeById(id), least = node.computeSize();
            for (const widget of node.widgets ?? []) if (widget.name === "control_after_generate") widget.value = "fixed";
            node.title = titles[id] ?? LiteGraph.registered_node_types[node.type].title;
            if (folded.includes(node.type)) {
                node.setSize([width, least[1]]);
                node.flags.collapsed = true;
                node.pos = [x, y + title];
                y += title + 14;
                widest = Math.max(widest, 220);
                continue;
            }
            const [wide, high] = sizes[node.type] ?? [width, least[1]];
            node.setSize([wide, Math.max(high, least[1])]);
            node.pos = [x, y + title];
            y += node.size[1] + title + 24;
            widest = Math.max(widest, node.size[0]);
        }
        x += widest + gap;
        height = Math.max(height, y);
    }
    app.canvas.ds.scale = 1;
    app.canvas.setDirty(true, true);
    return [x - gap, height];
}"""


def prompt(example: Example) -> tuple[dict, dict[int, str], list[list[int]]]:
    """What the API takes, its nodes numbered; titles of folded ones by number; and the columns of those numbers."""
    numbers = {name: i + 1 for i, name in enumerate(example.nodes)}
    assert sorted(name for column in example.columns for name in column) == sorted(numbers)

    def given(value):
        return [str(numbers[value[0]]), value[1]] if isinstance(value, tuple) else value

    api, titles = {}, {}
    for name, (kind, inputs) in example.nodes.items():
        api[str(numbers[name])] = {"class_type": kind, "inputs": {key: given(value) for key, value in inputs.items()}}
        if kind in FOLDED and name in TITLES:
            titles[numbers[name]] = TITLES[name]
    return api, titles, [[numbers[name] for name in column] for column in example.columns]


def drawn(page: Page, example: Example) -> tuple[bytes, str]:
    """A screenshot of the workflow after a run, and the workflow."""
    page.reload()  # or widgets keep the values of the workflow before
    page.wait_for_function(READY, timeout=90_000)
    page.evaluate(LISTEN)
    api, titles, columns = prompt(example)
    wide, high = page.evaluate(BUILD, [api, titles, columns, sorted(FOLDED), SIZES, WIDTH, GAP, TITLE])
    page.set_viewport_size({"width": int(wide) + LEFT + 100, "height": max(700, int(high) + TOP + 100)})
    page.evaluate("([left, top]) => { app.canvas.ds.offset = [left, top]; app.nodeOutputs = {}; window.ended = null; }", [LEFT, TOP])
    with page.expect_response("**/prompt") as answer:
        page.get_by_test_id("queue-button").click()
    assert answer.value.ok, answer.value.text()
    page.wait_for_function("window.ended", timeout=900_000)
    assert page.evaluate("window.ended") == "execution_success", page.evaluate("JSON.stringify(app.lastExecutionError)")
    page.wait_for_function(PICTURES)
    page.wait_for_timeout(2500)  # the page's messages go
    page.evaluate("([left, top]) => { app.canvas.ds.offset = [left, top]; app.canvas.setDirty(true, true); }", [LEFT, TOP])
    page.add_style_tag(content=".p-toast, [data-testid*=toast], [data-testid*=queue-notification] { display: none !important; }")
    page.wait_for_timeout(500)
    picture = page.screenshot(clip={"x": LEFT - 20, "y": TOP - 20, "width": wide + 40, "height": high + 20})
    return picture, json.dumps(page.evaluate("app.graph.serialize()"))


def save(picture: bytes, workflow: str, path: Path) -> None:
    """As PNG, which servers give the right type everywhere, with the workflow as the host's Save Image writes it."""
    about = PngInfo()
    about.add_text("workflow", workflow)
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    image.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True, pnginfo=about)  # a third of its size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(EXAMPLES))
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home, Server(Path(home) / "output", home=Path(home)) as server, sync_playwright() as playwright:
        np.save(Path(home) / "input" / TRACKS, np.array([[[16.0, 21.0]], [[13.0, 32.0]]], dtype=np.float32))
        for setting, value in {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False, "Comfy.Minimap.Visible": False,
                               "Comfy.NodeBadge.NodeSourceBadgeMode": "None"}.items():
            server.post(f"/settings/{setting}", value)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(server.address)
        for name in parser.parse_args().names:
            save(*drawn(page, EXAMPLES[name]), FOLDER / f"{name}.png")
            print(name, (FOLDER / f"{name}.png").stat().st_size, flush=True)


if __name__ == "__main__":
    main()
