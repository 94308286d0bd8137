"""The drag editor in app mode, where the page shows inputs without their nodes."""
from contextlib import contextmanager

import pytest

from page import built, close

RENDERINGS = pytest.mark.parametrize("rendering", ["classic", "vue"], indirect=True, scope="module")
ONE = [[0.25, 0.3], [0.6, 0.5]]


@contextmanager
def app_mode(editor, height):
    """The app mode of a workflow with the drags as its only input, on a page of this height."""
    page, toggle = editor.page, "app.extensionManager.command.execute('Comfy.ToggleLinear')"
    page.evaluate("""async () => {
        const shown = LiteGraph.createNode("SaveImage");
        app.graph.add(shown);
        const graph = app.graph.serialize();
        const target = app.graph.findNodesByType("ReadoutDragTarget")[0];
        graph.extra = { linearData: { inputs: [[target.id, "drags"]], outputs: [shown.id] } };
        for (const _time of [1, 2]) {  // older frontends take what the app shows from what was loaded before
            await app.loadGraphData(graph, true, false, app.extensionManager.workflow.activeWorkflow);
        }
    }""")
    before = page.viewport_size
    page.set_viewport_size({**before, "height": height})
    page.evaluate(toggle)
    page.wait_for_function("!app.canvas.canvas.checkVisibility()")
    page.wait_for_timeout(1000)
    tour = page.get_by_role("button", name="Skip", exact=True)  # of newer pages, on a first visit
    if tour.count():
        tour.click()
    try:
        editor.settle()
        yield
    finally:
        page.evaluate(toggle)
        page.set_viewport_size(before)
        page.wait_for_function("app.canvas.canvas.checkVisibility()")


@RENDERINGS
def test_in_app_mode_the_wheel_scrolls_the_page_and_leaves_the_canvas_behind_it(editor):
    with app_mode(editor, 400):
        scale, top = editor.page.evaluate("app.canvas.ds.scale"), editor.frame.bounding_box()["y"]
        editor.page.mouse.move(*editor.at(0.5, 0.2))
        editor.page.mouse.wheel(0, 60)
        editor.page.wait_for_timeout(300)
        assert editor.frame.bounding_box()["y"] < top
        assert editor.page.evaluate("app.canvas.ds.scale") == scale


@RENDERINGS
def test_what_is_drawn_in_app_mode_is_sent_and_is_on_the_node(editor):
    editor.feed("wide.png")
    editor.expect_picture("wide")
    with app_mode(editor, 850):
        assert editor.page.locator(".readout-drags:visible").count() == 1
        editor.expect_picture("wide")
        editor.drag(*ONE)
        assert close(editor.drags, [ONE], 0.02) and built(editor.page) == [editor.value]
        drawn = editor.shown
    editor.settle()
    editor.expect_shown(drawn)
