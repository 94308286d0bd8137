"""The drag editor in a real browser on a real ComfyUI, in both of the frontend's ways to draw a node."""
import json

import pytest

from page import READY, built, close

RENDERINGS = pytest.mark.parametrize("rendering", ["classic", "vue"], indirect=True, scope="module")
ONE = [[0.25, 0.3], [0.6, 0.5]]
TWO = [[0.2, 0.8], [0.9, 0.75]]


@RENDERINGS
def test_pressing_and_dragging_draws_within_the_picture_and_a_click_draws_nothing(editor):
    editor.click(0.5, 0.5)
    assert editor.value == "[]"
    before = editor.node("[...node.pos, ...app.canvas.ds.offset]")
    editor.drag(*ONE)
    assert close(editor.drags, [ONE])
    assert editor.value == json.dumps(editor.drags, separators=(",", ":")) == editor.value.replace(" ", "")
    assert all(round(number, 4) == number for point in editor.drags[0] for number in point)
    editor.drag((0.5, 0.7), (1.6, 1.4))
    assert close(editor.drags, [ONE, [[0.5, 0.7], [1, 1]]])
    assert editor.node("[...node.pos, ...app.canvas.ds.offset]") == before


@RENDERINGS
def test_a_drag_moves_as_a_whole_or_by_either_end_and_stays_in_the_picture(editor):
    editor.drag(*ONE)
    editor.drag((0.425, 0.4), (0.525, 0.6))
    assert close(editor.drags, [[[0.35, 0.5], [0.7, 0.7]]])
    editor.drag((0.7, 0.7), (0.8, 0.3))
    assert close(editor.drags, [[[0.35, 0.5], [0.8, 0.3]]])
    editor.drag((0.35, 0.5), (0.1, 0.9))
    assert close(editor.drags, [[[0.1, 0.9], [0.8, 0.3]]])
    editor.drag((0.45, 0.6), (0.45, 1.5))
    assert close(editor.drags, [[[0.1, 1], [0.8, 0.4]]])


@RENDERINGS
def test_points_between_the_ends_are_kept(editor):
    editor.load("[[[0.2,0.2],[0.5,0.2],[0.5,0.6]]]")
    editor.drag((0.5, 0.4), (0.6, 0.5))
    assert close(editor.drags, [[[0.3, 0.3], [0.6, 0.3], [0.6, 0.7]]])
    editor.drag((0.6, 0.7), (0.9, 0.9))
    assert close(editor.drags, [[[0.3, 0.3], [0.6, 0.3], [0.9, 0.9]]])


@RENDERINGS
def test_deleting_clearing_undoing_and_redoing_by_keys_and_buttons(editor):
    editor.drag(*ONE)
    editor.drag(*TWO)
    one, both = editor.drags[:1], editor.drags
    editor.press("Delete")
    assert editor.drags == one
    editor.press("Control+z")
    assert editor.drags == both
    editor.press("Control+z")
    assert editor.drags == one
    editor.press("Control+Shift+z")
    assert editor.drags == both
    editor.press("Control+y")
    assert editor.drags == one
    editor.press("Meta+z")
    assert editor.drags == both
    editor.button("Clear").click()
    assert editor.drags == [] and editor.button("Clear").is_disabled()
    editor.button("Undo").click()
    assert editor.drags == both
    editor.button("Redo").click()
    assert editor.drags == []
    editor.button("Undo").click()
    editor.click(0.55, 0.775)
    editor.button("Delete").click()
    assert editor.drags == one
    editor.drag(*TWO)
    assert close(editor.drags, [ONE, TWO]) and editor.button("Redo").is_disabled()


@RENDERINGS
def test_the_editors_keys_do_not_reach_the_graph_and_others_do(editor):
    editor.page.evaluate("""() => {
        const node = app.graph.findNodesByType("ReadoutDragTarget")[0];
        node.kept = true;
        app.canvas.selectNode(node);
        window.passed = [];
        window.addEventListener("keydown", (event) => window.passed.push(event.key));
    }""")
    editor.drag(*ONE)
    editor.press("Escape", "Delete", "Backspace", "Control+z", "Control+z", "Control+z", "Control+y", "Control+Shift+z", "Tab",
                 "ArrowLeft", "Alt+ArrowLeft", "Enter")
    editor.page.wait_for_timeout(200)  # the change tracker of the graph acts a frame later
    assert editor.node("node.kept") and editor.page.evaluate("app.graph.nodes.length") == 1
    assert set(editor.page.evaluate("window.passed")) <= {"Control", "Shift", "Alt"}
    editor.press("F8", "Escape", "Escape")
    assert [key for key in editor.page.evaluate("window.passed") if key in ("F8", "Escape")] == ["F8", "Escape"]
    assert editor.page.evaluate("document.activeElement.className").startswith("readout-drags")
    editor.page.mouse.click(150, 700)  # on the empty canvas: from here on the keys are the graph's again
    assert not editor.page.evaluate("document.activeElement.className").startswith("readout-drags")
    editor.page.evaluate("app.canvas.selectNode(app.graph.findNodesByType('ReadoutDragTarget')[0])")
    editor.press("Delete")
    editor.page.wait_for_function("app.graph.nodes.length === 0")


@RENDERINGS
def test_everything_can_be_done_by_keyboard(editor):
    editor.element.focus()
    editor.press("Enter")
    assert editor.drags == [[[0.4, 0.5], [0.6, 0.5]]]
    editor.press("ArrowUp", "Shift+ArrowLeft", "Alt+ArrowDown", "Alt+Shift+ArrowRight")
    first = [[0.35, 0.49], [0.6, 0.5]]
    assert editor.drags == [first]
    editor.press("Enter", "ArrowDown", "Tab")  # past the last drag Tab goes on to the buttons
    assert editor.page.evaluate("document.activeElement.textContent") == "Undo"
    editor.press("Shift+Tab", "Shift+Tab")
    assert "Drag 1 of 2" in editor.status
    editor.press("Delete", "Tab")
    assert editor.drags == [[[0.4, 0.51], [0.6, 0.51]]] and "Drag 1 of 1" in editor.status
    editor.press("Escape")
    assert "Drag 1" not in editor.status
    editor.press("Control+z", "Control+z", "Control+z")
    assert editor.drags == [first]
    editor.press("Tab")
    editor.page.keyboard.down("Shift")
    for _ in range(9):
        editor.page.keyboard.down("ArrowRight")  # held: one change, up to the border
    editor.page.keyboard.up("ArrowRight")
    editor.page.keyboard.up("Shift")
    assert editor.drags == [[[0.75, 0.49], [1, 0.5]]]
    editor.press("Control+z")
    assert editor.drags == [first]


@RENDERINGS
def test_touch(editor):
    touch = editor.page.context.new_cdp_session(editor.page)

    def send(kind, *points):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [dict(zip("xy", editor.at(*p))) for p in points]})

    send("touchStart", ONE[0])
    for step in (0.3, 0.6, 1):
        send("touchMove", [a + step * (b - a) for a, b in zip(*ONE)])
    send("touchEnd")
    assert close(editor.drags, [ONE])
    send("touchStart", (0.61, 0.52))
    send("touchMove", (0.7, 0.6))
    send("touchMove", (0.81, 0.72))
    send("touchEnd")
    assert close(editor.drags, [[ONE[0], [0.8, 0.7]]])
    send("touchStart", (0.2, 0.8))
    send("touchMove", (0.4, 0.9))
    send("touchCancel")
    assert close(editor.drags, [[ONE[0], [0.8, 0.7]]])
    touch.detach()


@RENDERINGS
def test_escape_in_the_middle_of_a_drag_takes_it_back(editor):
    editor.drag(*ONE)
    before = editor.drags
    for start in (0.1, 0.9), ONE[1]:
        editor.page.mouse.move(*editor.at(*start))
        editor.page.mouse.down()
        editor.page.mouse.move(*editor.at(0.8, 0.8), steps=3)
        assert editor.shown != before
        editor.press("Escape")
        editor.page.mouse.up()
        assert editor.drags == editor.shown == before


@RENDERINGS
def test_the_drags_are_saved_and_sent_and_the_change_is_noticed(editor):
    editor.page.evaluate("""() => {
        app.canvas.emitBeforeChange();  // frontends differ in what they call the tracker's look at the graph
        app.canvas.emitAfterChange();
        const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
        tracker.reset();
        tracker.updateModified();
    }""")
    modified = "app.extensionManager.workflow.activeWorkflow.isModified"
    assert not editor.page.evaluate(modified)
    editor.drag(*ONE)
    assert editor.page.evaluate(modified)
    assert editor.value in editor.node("app.graph.serialize().nodes[0].widgets_values")
    prompt = editor.page.evaluate("app.graphToPrompt()")
    assert [node["inputs"]["drags"] for node in prompt["output"].values()] == [editor.value]
    assert editor.value in prompt["workflow"]["nodes"][0]["widgets_values"]
    drawn = editor.value
    editor.press("Shift+ArrowUp")
    sent, = [node["inputs"]["drags"] for node in editor.page.evaluate("app.graphToPrompt()")["output"].values()]
    assert sent == editor.value != drawn and close(editor.drags, [[[0.25, 0.25], [0.6, 0.45]]])
    editor.page.mouse.click(150, 700)
    editor.press("Control+z")  # the graph's own undo, on the canvas
    editor.page.wait_for_timeout(500)
    editor.settle()
    assert editor.value == drawn


@RENDERINGS
def test_a_copy_has_drags_of_its_own(editor):
    editor.drag(*ONE)
    original = editor.value
    editor.page.mouse.click(150, 700)
    editor.page.evaluate("app.canvas.selectNode(app.graph.nodes[0])")
    editor.press("Control+c")
    editor.page.mouse.move(150, 300)
    editor.press("Control+v")
    editor.page.wait_for_function("app.graph.nodes.length === 2 && document.querySelectorAll('.readout-drags').length === 2")
    values = "app.graph.nodes.map((node) => node.widgets.find((w) => w.name === 'drags').value)"
    assert editor.page.evaluate(values) == [original, original]
    editor.settle()
    editor.element.focus()
    editor.press("Enter")
    assert sorted(map(len, map(json.loads, editor.page.evaluate(values)))) == [1, 2]
    assert original in editor.page.evaluate(values)


@RENDERINGS
@pytest.mark.parametrize("mode", [2, 4], ids=["muted", "bypassed"])
def test_what_is_drawn_stays_while_the_node_does_not_run(editor, mode):
    editor.drag(*ONE)
    before = editor.value
    for now, sent in ((mode, []), (0, [before])):
        editor.node(f"node.mode = {now}")
        editor.page.evaluate("(app.canvas.emitBeforeChange(), app.canvas.emitAfterChange())")
        assert built(editor.page) == sent and close(editor.shown, [ONE]) and editor.value == before


@RENDERINGS
def test_what_is_drawn_stays_while_another_workflow_is_open(editor):
    editor.drag(*ONE)
    before, kept = editor.value, editor.shown
    run = "(name) => app.extensionManager.command.execute(name)"
    editor.page.evaluate(run, "Comfy.NewBlankWorkflow")
    editor.page.wait_for_function("!app.graph.findNodesByType('ReadoutDragTarget').length && !app.configuringGraph")
    editor.page.locator(".readout-drags:visible").wait_for(state="detached")
    editor.page.evaluate(run, "Workspace.PreviousOpenedWorkflow")
    editor.page.wait_for_function("app.graph.findNodesByType('ReadoutDragTarget').length && !app.configuringGraph")
    editor.expect_shown(kept)
    assert editor.value == before and built(editor.page) == [before]


@RENDERINGS
def test_load_images_picture_shows_at_once_and_is_followed_and_the_drags_stay_in_place_on_it(editor):
    message = editor.element.locator(".message")
    message.filter(has_text="Connect an image to 'image'").wait_for()
    editor.drag(*ONE)
    before = editor.value
    editor.feed("wide.png")
    editor.expect_picture("wide")
    assert message.inner_text() == "" and editor.value == before
    shaft = editor.element.locator(".arrow .dot").first.bounding_box()
    assert (shaft["x"] + shaft["width"] / 2, shaft["y"] + shaft["height"] / 2) == pytest.approx(editor.at(*editor.drags[0][0]), abs=1.5)
    editor.page.evaluate("""() => {
        const choice = app.graph.findNodesByType("LoadImage")[0].widgets.find((w) => w.name === "image");
        choice.value = "tall.png";
        choice.callback(choice.value);
    }""")
    editor.expect_picture("tall")
    assert editor.value == before
    editor.drag(*TWO)
    assert close(editor.drags, [ONE, TWO], 0.02)
    editor.node("node.disconnectInput(node.findInputSlot('image'))")
    editor.page.wait_for_function("!document.querySelector('.readout-drags image').hasAttribute('href')")


@RENDERINGS
def test_a_picture_through_a_reroute(editor):
    editor.feed("tall.png", through_reroute=True)
    editor.expect_picture("tall")


@RENDERINGS
@pytest.mark.parametrize("kind", ["EmptyImage", "LoadImageDataSetFromFolder"])
def test_the_picture_of_the_last_run_shows_until_another_is_connected(editor, kind):
    editor.feed_from_a_run(kind)
    editor.page.evaluate("""async () => {
        const { api } = await import("/scripts/api.js");
        const node = String(app.graph.findNodesByType("ReadoutDragTarget")[0].id);
        const readout_picture = [{ filename: "wide.png", subfolder: "", type: "input" }];
        api.dispatchCustomEvent("executed", { node, display_node: node, prompt_id: "any", output: { readout_picture } });
    }""")
    editor.expect_picture("wide")
    editor.feed_from_a_run(kind)


@RENDERINGS
@pytest.mark.parametrize("zoom", [0.6, 1.7])
def test_at_any_zoom_and_node_size(editor, zoom):
    editor.node(f"""(node.setSize([420, 380]), node.pos = [{300 / zoom}, {120 / zoom}], app.canvas.ds.scale = {zoom},
                     app.canvas.ds.changeOffset?.(), app.canvas.setDirty(true, true))""")
    editor.page.wait_for_timeout(300)
    editor.settle()
    box = editor.element.bounding_box()
    assert box["height"] > 200 * zoom and box["width"] == pytest.approx(400 * zoom, abs=12 * zoom)
    editor.drag(*ONE)
    assert close(editor.drags, [ONE])
    editor.drag(ONE[1], (0.9, 0.9))
    assert close(editor.drags, [[ONE[0], [0.9, 0.9]]])


@RENDERINGS
def test_on_a_narrow_node_the_picture_stays_under_the_pointer_though_the_text_below_takes_another_line(editor):
    editor.node("(node.setSize([300, 600]), app.canvas.setDirty(true, true))")
    editor.page.wait_for_timeout(300)
    editor.settle()
    before = editor.frame.bounding_box()
    editor.drag(*ONE)
    assert close(editor.drags, [ONE])
    editor.settle()
    after, bar = editor.frame.bounding_box(), editor.element.locator(".bar").bounding_box()
    assert after != before and after["y"] + after["height"] < bar["y"]  # it fits in again
    editor.page.mouse.move(*editor.at(*ONE[1]))
    editor.page.mouse.down()
    editor.page.mouse.move(*editor.at(0.9, 0.9), steps=4)
    assert close(editor.shown, [[ONE[0], [0.9, 0.9]]])
    editor.press("Escape")
    editor.page.mouse.up()
    editor.settle()
    assert close(editor.drags, [ONE]) and editor.frame.bounding_box() == before


@RENDERINGS
def test_the_wheel_zooms_the_canvas(editor):
    editor.page.mouse.move(*editor.at(0.5, 0.5))
    editor.page.mouse.wheel(0, -200)
    editor.page.wait_for_function("app.canvas.ds.scale > 1.05")


@RENDERINGS
@pytest.mark.parametrize("value", ["nonsense", "[[[0.1,0.2]]]", '{"a":1}', "[[[0.1,null],[1,1]]]", "[[[64,20],[128,20]]]", 7])
def test_a_value_that_cannot_be_shown_is_sent_as_it_is_until_something_is_drawn(editor, value):
    editor.load(value)
    editor.element.locator(".status").filter(has_text="cannot be shown").wait_for()
    assert editor.shown == [] and str(editor.value) == str(value) and [str(sent) for sent in built(editor.page)] == [str(value)]
    editor.drag(*ONE)
    assert close(editor.drags, [ONE]) and "cannot be shown" not in editor.status
    assert built(editor.page) == [editor.value]


@RENDERINGS
def test_the_drags_can_be_read_and_typed_as_text(editor):
    editor.drag(*ONE)
    drawn = editor.value
    area = editor.page.locator("textarea:visible")
    assert area.count() == 0
    editor.button("Text").click()
    assert area.input_value() == drawn
    area.fill("[[[0.1, 0.2], [0.3, 0.4]]]")
    editor.page.wait_for_timeout(400)
    editor.button("Text").click()
    editor.expect_shown([[[0.1, 0.2], [0.3, 0.4]]])
    assert built(editor.page) == [editor.value] == ["[[[0.1, 0.2], [0.3, 0.4]]]"]
    editor.button("Text").click()
    area.fill("")
    editor.page.wait_for_timeout(400)
    editor.button("Text").click()
    editor.expect_shown([])


@RENDERINGS
def test_a_reload_of_the_page_keeps_the_drags(editor):
    editor.drag(*ONE)
    before = editor.value
    editor.page.wait_for_timeout(1000)  # the frontend saves half a second after a change
    editor.page.reload()
    editor.page.wait_for_function(READY, timeout=90_000)
    editor.settle()
    assert editor.value == before
    editor.click(0.425, 0.4)
    editor.press("Delete")
    assert editor.value == "[]"
