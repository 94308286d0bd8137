"""The frontend's page with the drag editor on it, and the hands to work it."""
import json
from contextlib import contextmanager

import pytest

READY = "window.app?.graph && app.extensionManager?.workflow?.activeWorkflow && !app.configuringGraph"


@contextmanager
def opened(server, browser, rendering):
    """A page of the frontend, as on a first visit, that draws nodes in one of its two ways."""
    server.post("/settings/Comfy.TutorialCompleted", True)  # no template browser at first
    server.post("/settings/Comfy.VueNodes.Enabled", rendering == "vue")
    context = browser.new_context(viewport={"width": 1200, "height": 850}, has_touch=True)
    page = context.new_page()
    page.goto(server.address)
    page.wait_for_function(READY, timeout=90_000)
    yield page
    context.close()


class Editor:
    """The editor of the first Drag Target on a page, and the hands to work it."""

    def __init__(self, page):
        self.page = page
        self.element = page.locator(".readout-drags").first
        self.settle()

    def settle(self):
        """Waits until the editor is on the page and stays where it is."""
        self.element.wait_for()
        before = None
        while before != (now := self.frame.bounding_box()) or now["width"] < 20:
            before = now
            self.page.wait_for_timeout(120)

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

    def feed_from_a_run(self):
        """Connects a node whose picture is known only once it has run."""
        self.page.evaluate("""() => {
            const source = LiteGraph.createNode("EmptyImage");
            app.graph.add(source);
            const node = app.graph.findNodesByType("ReadoutDragTarget")[0];
            source.connect(0, node, node.findInputSlot("image"));
        }""")
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
