"""A new user's way, with what the registry would install: templates, a guided run that shows what is read, help, another language, saving, and
giving the workflow away; in both of the frontend's renderings."""
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from page import READY, SAVED, empty, opened, search
from tools import ROOT, release
from tools.assets import templates
from tools.host.server import Server

DEMO = [*templates.DEMO]
RENDERINGS = ["classic", "vue"]
FOLDER = "Readout Guidance 1.0"
GUIDED = "KSamplerReadoutGuidance"
SAID = "(type) => app.graph.findNodesByType(type)[0].widgets.map((widget) => String(widget.value)).join()"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A host with nothing but the archive's files, in a folder with spaces and a dot in its name that nothing is written to."""
    home, pack = tmp_path_factory.mktemp("home"), release.unpack(tmp_path_factory.mktemp("unpacked") / FOLDER)
    before = sorted(path for path in pack.rglob("*") if "__pycache__" not in path.parts)
    with Server(home / "output", home=home, pack=pack, folder=FOLDER) as running:
        yield running
    assert sorted(path for path in pack.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.fixture(scope="module", params=RENDERINGS)
def page(request, browser, server):
    with opened(server, browser, request.param) as page:
        yield page


def open_template(page, name):
    page.get_by_role("button", name="Templates").first.click()
    page.get_by_role("button", name=FOLDER, exact=True).click()
    page.get_by_placeholder("Search").last.fill(name)  # what is out of sight is not on the page
    page.wait_for_timeout(700)  # newer pages sort what they found a moment later
    page.get_by_test_id(f"template-workflow-{name}").click()
    types = sorted(node["type"] for node in json.loads((templates.FOLDER / f"{name}.json").read_text())["nodes"])
    page.wait_for_function("(types) => !app.configuringGraph && JSON.stringify(app.graph.nodes.map((node) => node.type).sort()) === types",
                           arg=json.dumps(types, separators=(",", ":")))
    page.wait_for_function("(name) => app.extensionManager.workflow.activeWorkflow.filename.startsWith(name)", arg=name)  # comes later


def set_steps(page, steps):
    """With one move each, for the test's time."""
    page.evaluate("""(values) => {
        for (const node of app.graph.nodes) for (const widget of node.widgets ?? []) if (widget.name in values) widget.value = values[widget.name];
    }""", {"steps": steps, "moves": 1})


def run(page):
    page.evaluate("app.nodeOutputs = {}")
    with page.expect_request("**/prompt") as sent:
        page.get_by_test_id("queue-button").click()
    return sent.value.post_data_json["prompt"]


def finish(page):
    page.wait_for_function(SAVED, timeout=240_000)
    assert not page.evaluate("app.lastExecutionError ?? app.lastNodeErrors")


@pytest.mark.parametrize("control", DEMO)
def test_every_template_opens_and_runs(page, request, control):
    open_template(page, templates.DEMO[control])
    if RENDERINGS[DEMO.index(control) % 2] in request.node.name:  # the others run in the other rendering
        set_steps(page, 3)
        run(page)
        finish(page)
        if control == "fit":
            assert "A head that reads depth" in page.evaluate(SAID, "PreviewAny")  # newer pages clear FitReadoutHead itself


def test_a_template_for_a_published_model_opens_and_says_which_files_it_wants(page):
    open_template(page, "Pose (SD 1.5)")
    details = page.get_by_role("button", name="View details")
    details.or_(page.get_by_role("dialog")).first.wait_for()
    if details.count():  # older pages show them at once
        details.click()
    for name in ("v1-5-pruned-emaonly-fp16.safetensors", "readout_sdv15_spatial_pose.pt"):
        page.get_by_text(name).last.wait_for()
    page.keyboard.press("Escape")


def test_readouts_are_seen_while_it_samples(page):
    open_template(page, templates.DEMO["pose"])
    set_steps(page, 12)
    page.evaluate("""(type) => {
        const node = app.graph.findNodesByType(type)[0];
        app.canvas.centerOnNode(node);
        window.seen = new Set();
        app.api.addEventListener("b_preview_with_metadata", async ({ detail }) => {
            if (String(detail.nodeId) !== String(node.id)) return;
            const bytes = new Uint8Array(await detail.blob.arrayBuffer());
            const bitmap = await createImageBitmap(detail.blob);
            seen.add(JSON.stringify([bitmap.width, bitmap.height, bytes.reduce((sum, byte) => (sum * 31 + byte) % 1000003, 7)]));
        });
    }""", GUIDED)
    run(page)
    page.wait_for_function("seen.size >= 5", timeout=120_000)
    shown = page.evaluate("""(type) => {
        const node = app.graph.findNodesByType(type)[0];
        const element = document.querySelector(`[data-node-id="${node.id}"] img[src^="blob:"]`);
        return element?.naturalWidth ?? node.imgs?.[0]?.naturalWidth ?? app.nodePreviewImages[node.id]?.length;
    }""", GUIDED)
    assert shown
    finish(page)
    sizes = {tuple(json.loads(text)[:2]) for text in page.evaluate("[...seen]")}
    assert len(page.evaluate("[...seen]")) >= 5 and len(sizes) == 1 and next(iter(sizes))[0] > 300  # as wide as what is read needs, not a stamp


def test_a_help_page_opens_and_its_picture_is_a_workflow(page):
    open_template(page, templates.DEMO["pose"])
    page.evaluate("""() => {
        const node = app.graph.findNodesByType("ReadoutPoseTarget")[0];
        app.canvas.centerOnNode(node);
        app.canvas.selectNode(node);
    }""")
    page.get_by_test_id("info-button").click()
    page.get_by_text("end_percent").first.wait_for()
    assert page.get_by_text("OpenPose").count()
    page.locator("img[src*='pictures/pose']").drag_to(page.locator("#graph-canvas"), target_position={"x": 300, "y": 500})
    page.wait_for_function("app.graph.nodes.length && !app.graph.findNodesByType('SaveImage').length")  # as the template has
    assert page.evaluate("app.graph.findNodesByType('ReadoutPoseTarget').length") == 1


def test_the_page_speaks_another_language(page, server):
    open_template(page, templates.DEMO["drag"])
    words = json.loads((ROOT / "locales" / "ja" / "nodeDefs.json").read_text())
    server.post("/settings/Comfy.Locale", "ja")
    try:
        page.reload()
        page.wait_for_function(READY, timeout=90_000)
        title = page.evaluate("LiteGraph.createNode('ReadoutDragTarget').title")
        assert title == words["ReadoutDragTarget"]["display_name"]
    finally:
        server.post("/settings/Comfy.Locale", "en")
        page.reload()
        page.wait_for_function(READY, timeout=90_000)


def test_what_is_saved_is_there_again_and_what_is_given_away_makes_the_same_picture(page, server, request):
    open_template(page, templates.DEMO["pose"])
    set_steps(page, 3)
    name = f"mine {request.node.callspec.params['page']}"
    page.keyboard.press("Control+s")
    page.get_by_role("dialog").get_by_role("textbox").fill(name)
    with page.expect_response(lambda answer: "/userdata/" in answer.url and answer.request.method == "POST"):
        page.keyboard.press("Enter")
    saved = json.loads((server.home / "user" / "default" / "workflows" / f"{name}.json").read_text())
    page.reload()
    page.wait_for_function(READY, timeout=90_000)
    assert {node["type"] for node in page.evaluate("app.graph.serialize().nodes")} == {node["type"] for node in saved["nodes"]}

    prompt = run(page)
    finish(page)
    page_made = page.evaluate("Object.fromEntries(app.graph.findNodesByType('SaveImage').map((node) => [node.id, app.nodeOutputs[node.id].images]))")
    for node in prompt.values():
        if node["class_type"] == "SaveImage":
            node["inputs"]["filename_prefix"] = "given away"
    with ThreadPoolExecutor(1) as elsewhere:  # Playwright's event loop is in this thread
        files = server.files(elsewhere.submit(server.run, prompt).result())
    for node, (image, *_) in page_made.items():
        assert pixels(server.output / image["subfolder"] / image["filename"]) == pixels(files[node][0])


@pytest.mark.parametrize("words, title", [("openpose", "Pose Target"), ("picture from a pose", "Picture from a pose (Readout Guidance)")])
def test_a_search_finds_the_node_or_the_blueprint(page, words, title):
    empty(page)
    search(page, 600, 650, words, title)
    page.wait_for_function("(title) => app.graph.nodes.map((node) => node.title).join() === title", arg=title)
    page.mouse.click(400, 400)  # where it is put down


def pixels(path):
    from PIL import Image
    return Image.open(path).tobytes()
