"""The shipped drag workflow as a person meets it: from the template browser to the picture, and back after a reload."""
import pytest

from page import READY, Editor, close, opened
from tools.assets import templates
from tools.host.server import PACK_FOLDER

WORKFLOW = templates.path("drag")


@pytest.mark.parametrize("kind", ["classic", "vue"])
def test_from_the_template_browser_to_the_edited_picture_and_back_after_a_reload(browser, server, kind):
    with opened(server, browser, kind) as page:
        page.get_by_role("button", name="Templates").first.click()
        page.get_by_text(PACK_FOLDER, exact=True).click()
        page.get_by_test_id(f"template-workflow-{WORKFLOW.stem}").click()
        page.wait_for_function("app.graph.findNodesByType('ReadoutDragTarget').length === 1")
        page.evaluate("""() => {
            for (const node of app.graph.nodes) {
                for (const widget of node.widgets ?? []) if (widget.name === "steps") widget.value = 3;  // for the test's time
            }
            app.canvas.ds.scale = 1;
            app.canvas.centerOnNode(app.graph.findNodesByType("ReadoutDragTarget")[0]);
        }""")
        editor = Editor(page)
        before = editor.drags
        editor.drag((0.15, 0.1), (0.3, 0.2))
        assert close(editor.drags, [*before, [[0.15, 0.1], [0.3, 0.2]]], 0.02)

        with page.expect_request("**/prompt") as sent:
            page.get_by_test_id("queue-button").click()
        prompt = sent.value.post_data_json["prompt"]
        assert [n["inputs"]["drags"] for n in prompt.values() if n["class_type"] == "ReadoutDragTarget"] == [editor.value]
        page.wait_for_function("""() => app.graph.findNodesByType("SaveImage").every(
            (node) => app.nodeOutputs[node.id]?.images.length)""", timeout=240_000)
        editor.element.locator("image[href]").wait_for()
        page.evaluate("app.canvas.centerOnNode(app.graph.findNodesByType('SaveImage')[0])")  # only what is seen is loaded
        page.wait_for_function("""() => {
            const node = app.graph.findNodesByType("SaveImage")[0];
            const shown = node.imgs?.[0] ?? document.querySelector(`[data-node-id="${node.id}"] img[src*="/view?"]`);
            return shown?.naturalWidth;
        }""")

        after = editor.value
        page.wait_for_timeout(1000)
        page.reload()
        page.wait_for_function(READY, timeout=90_000)
        assert Editor(page).value == after
