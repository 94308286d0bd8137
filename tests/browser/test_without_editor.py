"""The editor fails on purpose: the drags are kept and sent, and can be read and typed as text."""
import pytest

from page import ADD_DRAG_TARGET, Editor, built, opened

ONE = [[0.25, 0.3], [0.6, 0.5]]
TYPED = "[[[0.1, 0.2], [0.3, 0.4]]]"
SCRIPTS = "**/extensions/*/"
BROKEN = {
    "the script is not there": (SCRIPTS + "drag_editor.js", dict(status=404, body="")),
    "a part of it is not there": (SCRIPTS + "drag_view.js", dict(status=404, body="")),
    "it cannot be read": (SCRIPTS + "drag_fields.js", dict(content_type="text/javascript", body="export const = ;")),
    "the fields are not found": (SCRIPTS + "drag_fields.js", dict(content_type="text/javascript", body="""
        export const markDrags = () => {}, bringInside = () => {}, fieldsOnPage = () => { throw new Error("on purpose"); };""")),
    "the view throws": (SCRIPTS + "drag_view.js", dict(content_type="text/javascript", body="""
        export class DragView { constructor() { throw new Error("on purpose"); } }""")),
    "the view throws later": (SCRIPTS + "drag_view.js", dict(content_type="text/javascript", body="""
        export class DragView {
            element = Object.assign(document.createElement("div"), { className: "readout-drags" });
            show() { throw new Error("on purpose"); }
        }""")),
}
RELOAD = """async () => app.loadGraphData(app.graph.serialize(), true, false, app.extensionManager.workflow.activeWorkflow)"""


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("rendering", ["classic", "vue"])
def test_what_was_drawn_is_kept_sent_and_typed_as_text(server, browser, rendering, how):
    with opened(server, browser, rendering) as page:  # as drawn where the editor works
        page.evaluate("app.loadGraphData({nodes: [], links: [], version: 0.4}, true, false)")
        page.evaluate(ADD_DRAG_TARGET)
        editor = Editor(page)
        editor.drag(*ONE)
        drawn, graph = editor.value, page.evaluate("app.graph.serialize()")
    place, answer = BROKEN[how]
    with opened(server, browser, rendering, lambda page: page.route(place, lambda route: route.fulfill(**answer))) as page:
        page.evaluate("async (graph) => app.loadGraphData(graph, true, false)", graph)
        page.wait_for_function("app.graph.findNodesByType('ReadoutDragTarget').length === 1 && !app.configuringGraph")
        area = page.locator("textarea:visible")
        area.wait_for()
        page.wait_for_timeout(700)  # the editor looks about three times a second
        assert page.locator(".readout-drags:visible").count() == 0 and area.count() == 1
        assert area.input_value() == drawn and built(page) == [drawn]
        area.fill(TYPED)
        assert built(page) == [TYPED]
        page.evaluate(RELOAD)
        assert built(page) == [TYPED]
