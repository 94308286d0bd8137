"""The frontend's page with the drag editor on it, and the hands to work it."""
import json
from contextlib import contextmanager

import pytest

READY = "window.app?.graph && app.extensionManager?.workflow?.activeWorkflow && !app.configuringGraph"
ADD_DRAG_TARGET = """() => {
    const node = LiteGraph.createNode("ReadoutDragTarget");
    node.pos = [450, 150];
    app.graph.add(node);
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [0, 0];
    app.canvas.setDirty(true, true);
}"""
SAVED = """() => app.graph.findNodesByType("SaveImage").every((node) => app.nodeOutputs[node.id]?.images?.length)"""


@contextmanager
def opened(server, browser, rendering, prepare=lambda page: None):
    """A page of the frontend, as on a first visit, that draws nodes in one of its two ways. `prepare` gets it before it is loaded."""
    server.post("/settings/Comfy.TutorialCompleted", True)  # no template browser at first
    server.post("/settings/Comfy.VueNodes.Enabled", rendering == "vue")
    server.post("/settings/Comfy.VersionCompatibility.DisableWarnings", True)  # the page may be another than the host asks for
    context = browser.new_context(viewport={"width": 1200, "height": 850}, has_touch=True)
    page = context.new_page()
    prepare(page)
    page.goto(server.address)
    page.wait_for_function(READY, timeout=90_000)
    yield page
    context.close()


def version(page):
    return page.evaluate("window.__COMFYUI_FRONTEND_VERSION__")


def empty(page):
    """A page that was just loaded, with nothing on the graph."""
    page.reload()
    page.wait_for_function(READY, timeout=90_000)
    page.evaluate("app.loadGraphData({nodes: [], links: [], version: 0.4}, true, false)")
    page.wait_for_function("app.graph.nodes.length === 0 && !app.configuringGraph")


def search(page, x, y, words, title):
    """A double click at an empty place and `words`; takes the first that is found, once `title` is among them."""
    for _ in range(20):  # a page that was just loaded misses a double click, and takes letters outside the search box for shortcuts
        page.mouse.dblclick(x, y)
        page.wait_for_timeout(500)
        if page.evaluate("document.activeElement.matches('input')"):
            break
    page.keyboard.type(words)
    page.wait_for_function("(title) => document.body.innerText.includes(title)", arg=title)  # in pieces, where words are marked
    page.keyboard.press("Enter")


ON_SCREEN = """(editor) => {
    const frame = editor.querySelector(".frame");
    const [x, y, width, height] = ["x", "y", "width", "height"].map((name) => Number(frame.getAttribute(name)));
    const rounded = (share) => Math.round(share * 1e4) / 1e4;  // as the editor keeps it
    const place = ([left, top]) => [rounded((left - x) / width), rounded((top - y) / height)];
    return [...editor.querySelectorAll(".arrow")].map((arrow) => {
        const dot = arrow.querySelector(".dot");
        const tip = arrow.querySelector(".head").getAttribute("points").split(" ")[0];
        return [place([dot.getAttribute("cx"), dot.getAttribute("cy")]), place(tip.split(","))];
    });
}"""


def drags_in(prompt):
    return [node["inputs"]["drags"] for node in prompt.values() if node["class_type"] == "ReadoutDragTarget"]


def built(page):
    """The drags of each Drag Target in the prompt that Run would send now."""
    return drags_in(page.evaluate("app.graphToPrompt().then(({ output }) => output)"))


def queued(page):
    """The drags of each Drag Target in the prompt that a press of Run sends. The server does not get it."""
    def answer(route):
        route.fulfill(json={"prompt_id": "none", "number": 1, "node_errors": {}}) if route.request.method == "POST" else route.continue_()

    page.route("**/prompt", answer)
    with page.expect_request(lambda request: request.url.endswith("/prompt") and request.method == "POST") as sent:
        page.get_by_test_id("queue-button").click()
    sent.value.response()
    page.unroute("**/prompt")
    return drags_in(sent.value.post_data_json["prompt"])


class Editor:
    """An editor on a page, the first one if nothing else is said, and the hands to work it. What asks for its node's value or
    feeds it is for the first Drag Target of the root graph."""

    def __init__(self, page, index=0):
        self.page = page
        self.element = page.locator(".readout-drags:visible").nth(index)
        self.settle()

    def settle(self):
        """Waits until the editor is on the page and stays where it is."""
        self.element.wait_for()
        before = None
        for _ in range(100):
            now = self.frame.bounding_box()
            if now and before == now and now["width"] >= 20:
                return
            before = now
            self.page.wait_for_timeout(120)
        raise AssertionError(f"the editor does not come to rest: {now}")

    @property
    def frame(self):
        return self.element.locator(".frame")

    @property
    def drags(self):
        return json.loads(self.value)

    @property
    def value(self):
        return self.node("node.widgets.find((w) => w.name === 'drags').value")

    @property
    def shown(self):
        """The drags as they are on the screen, each from its start to its tip, in the order of their coordinates."""
        return sorted(self.element.evaluate(ON_SCREEN))

    def expect_shown(self, drags):
        """Waits until these drags, and no others, are on the screen."""
        for _ in range(50):
            if self.element.is_visible() and self.shown == drags:
                return
            self.page.wait_for_timeout(100)
        assert self.shown == drags

    @property
    def status(self):
        return self.element.locator(".status").inner_text()

    def node(self, expression: str):
        return self.page.evaluate(f"() => {{ const node = app.graph.findNodesByType('ReadoutDragTarget')[0]; return {expression}; }}")

    def at(self, x, y):
        box = self.frame.bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def drag(self, start, end):
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=4)
        self.page.mouse.up()

    def click(self, x, y):
        self.page.mouse.click(*self.at(x, y))

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def button(self, name):
        return self.element.get_by_role("button", name=name)

    def load(self, value):
        """Loads the workflow again with another saved value for the drags."""
        self.page.evaluate("""async (value) => {
            const graph = app.graph.serialize();
            const index = app.graph.findNodesByType("ReadoutDragTarget")[0].widgets.findIndex((w) => w.name === "drags");
            graph.nodes.find((node) => node.type === "ReadoutDragTarget").widgets_values[index] = value;
            await app.loadGraphData(graph, true, false, app.extensionManager.workflow.activeWorkflow);
        }""", value)
        self.settle()

    def feed(self, name, through_reroute=False):
        """Connects a Load Image that holds a file."""
        self.page.evaluate("""([name, reroute]) => {
            const load = LiteGraph.createNode("LoadImage");
            load.pos = [80, 150];
            app.graph.add(load);
            load.widgets.find((w) => w.name === "image").value = name;
            let last = load;
            if (reroute) {
                last = LiteGraph.createNode("Reroute");
                last.pos = [380, 80];
                app.graph.add(last);
                load.connect(0, last, 0);
            }
            const node = app.graph.findNodesByType("ReadoutDragTarget")[0];
            last.connect(0, node, node.findInputSlot("image"));
        }""", [name, through_reroute])

    def feed_from_a_run(self, kind="EmptyImage"):
        """Connects a node, of a kind whose picture is known only once it has run."""
        self.page.evaluate("""(kind) => {
            const source = LiteGraph.createNode(kind);
            app.graph.add(source);
            const node = app.graph.findNodesByType("ReadoutDragTarget")[0];
            source.connect(0, node, node.findInputSlot("image"));
        }""", kind)
        self.page.wait_for_function("document.querySelector('.readout-drags .message').textContent.startsWith('Run the workflow')")

    def expect_picture(self, name):
        self.element.locator(f"image[href*='{name}']").wait_for(timeout=5000)
        self.settle()
        box = self.frame.bounding_box()
        assert box["width"] / box["height"] == pytest.approx({"wide": 2, "tall": 0.5}[name], rel=0.02)


def close(found, wanted, tolerance=0.01):
    """Whether drags are where they should be, to about the pixels of the screen that they were drawn with."""
    assert [len(drag) for drag in found] == [len(drag) for drag in wanted], found
    assert all(point == pytest.approx(other, abs=tolerance) for a, b in zip(found, wanted) for point, other in zip(a, b)), found
    return True
