"""Drag Targets in subgraphs, promoted, copied, undone and reloaded: the prompt that is sent holds what the editors show."""
import json

import pytest

from page import READY, Editor, built, close, queued, version

RENDERINGS = pytest.mark.parametrize("rendering", ["classic", "vue"], indirect=True, scope="module")
ONE = [[0.2, 0.2], [0.6, 0.5]]
TWO = [[0.1, 0.8], [0.5, 0.9]]
THREE = [[0.9, 0.1], [0.9, 0.6]]


def wrap(page):
    """Puts the Drag Target, or the subgraph node that it is in, into a subgraph."""
    page.evaluate("""() => {
        const node = app.graph.nodes.find((node) => node.type === "ReadoutDragTarget" || node.subgraph);
        app.canvas.emitBeforeChange();
        const { node: host } = app.graph.convertToSubgraph(new Set([node]));
        host.pos = [450, 120];
        app.canvas.emitAfterChange();
        app.canvas.setDirty(true, true);
    }""")


def needs_nesting(page):
    if version(page) == "1.53.6":
        pytest.skip("this page shows no node of a subgraph in a subgraph that was just made, stock ones neither: its own "
                    "'graph_serialization_state_mismatch'")


def enter(page):
    """Opens the first subgraph of the graph that is open."""
    page.evaluate("""() => {
        const host = app.canvas.graph.nodes.find((node) => node.subgraph);
        app.canvas.openSubgraph(host.subgraph, host);
        app.canvas.ds.scale = 1;
        app.canvas.ds.offset = [0, 0];
    }""")


def leave(page):
    """Opens the root graph."""
    page.evaluate("() => { app.canvas.setGraph(app.graph); app.canvas.ds.scale = 1; app.canvas.ds.offset = [0, 0]; }")


def promote(page):
    """Connects the drags of what is in the subgraph with its border, as the frontend does to promote a widget."""
    page.evaluate("""() => {
        const { subgraph } = app.graph.nodes.find((node) => node.subgraph);
        const inner = subgraph.nodes.find((node) => node.type === "ReadoutDragTarget" || node.subgraph);
        app.canvas.emitBeforeChange();
        subgraph.addInput("drags", "READOUT_DRAGS").connect(inner.inputs.find((input) => input.name === "drags"), inner);
        app.canvas.emitAfterChange();
    }""")


def unpack(page):
    """Unpacks the first subgraph node of the root graph."""
    page.evaluate("""() => {
        app.graph.unpackSubgraph(app.graph.nodes.find((node) => node.subgraph));
        app.graph.nodes.at(-1).pos = [450, 150];
        app.canvas.setDirty(true, true);
    }""")


def copy(page, place):
    """Copies what is in the open graph, but for a Load Image, by the keyboard, and moves the copy to its place."""
    before = page.evaluate("app.canvas.graph.nodes.length")
    page.mouse.click(150, 700)
    page.evaluate("app.canvas.selectNode(app.canvas.graph.nodes.find((node) => node.type !== 'LoadImage'))")
    page.keyboard.press("Control+c")
    page.mouse.move(150, 650)
    page.keyboard.press("Control+v")
    page.wait_for_function(f"app.canvas.graph.nodes.length === {before + 1}")
    page.evaluate("""(place) => {
        app.canvas.graph.nodes.at(-1).pos = place;
        app.canvas.setDirty(true, true);
    }""", place)


def expect_queued(page, *drags, how=queued):
    """Each editor on the screen shows these drags, and they are what is sent, in any order of nodes."""
    editors = [Editor(page, index) for index in range(len(drags))]
    assert page.locator(".readout-drags:visible").count() == len(drags)
    for editor, wanted in zip(editors, drags):
        editor.expect_shown(wanted)
    assert sorted(sorted(json.loads(text)) for text in how(page)) == sorted(drags)
    for editor, wanted in zip(editors, drags):
        editor.expect_shown(wanted)


def expect_undo_and_redo(page, before, after):
    """The graph's undo and redo lead from what the editors show now to what they showed before and back. Ends undone."""
    def choose(command):  # from the menu: where a key or a press of Run follows an undo, the frontend may count its own repairs as a change
        page.evaluate("(command) => app.extensionManager.command.execute(command)", command)

    expect_queued(page, *after)
    choose("Comfy.Undo")
    expect_queued(page, *before, how=built)
    choose("Comfy.Redo")
    expect_queued(page, *after, how=built)
    choose("Comfy.Undo")
    expect_queued(page, *before)


def drawn(editor, drag):
    """Draws on an editor; what it shows then."""
    editor.drag(*drag)
    return editor.shown


@RENDERINGS
def test_an_undo_of_the_graph_is_shown(editor):
    first = drawn(editor, ONE)
    drawn(editor, TWO)
    editor.page.mouse.click(150, 700)  # on the empty canvas, so that the graph gets the key and the editor does not
    editor.press("Control+z")
    expect_queued(editor.page, first)


@RENDERINGS
def test_drawn_two_subgraphs_deep_on_the_picture_from_outside(editor):
    page = editor.page
    needs_nesting(page)
    editor.feed("wide.png")
    editor.expect_picture("wide")
    first = drawn(editor, ONE)
    wrap(page)
    wrap(page)
    enter(page)
    enter(page)
    inside = Editor(page)
    inside.expect_picture("wide")
    both = drawn(inside, TWO)
    assert close(both, [TWO, ONE], 0.02)
    expect_undo_and_redo(page, [first], [both])
    Editor(page).expect_picture("wide")
    both = drawn(Editor(page), TWO)
    leave(page)
    page.locator(".readout-drags:visible").first.wait_for(state="detached")
    for _ in range(2):
        unpack(page)
    expect_queued(page, both)


@RENDERINGS
def test_a_copy_in_a_subgraph_has_drags_of_its_own(editor):
    page = editor.page
    page.evaluate("app.graph.nodes[0].pos = [300, 120]")
    first = drawn(editor, ONE)
    wrap(page)
    enter(page)
    copy(page, [700, 120])
    expect_queued(page, first, first)
    expect_undo_and_redo(page, [first, first], [first, drawn(Editor(page, 1), TWO)])


@RENDERINGS
def test_promoted_drawn_on_the_subgraph_node_reloaded_copied_and_unpacked(editor):
    page = editor.page
    editor.feed("wide.png")
    editor.expect_picture("wide")
    first = drawn(editor, ONE)
    wrap(page)
    promote(page)
    outside = Editor(page)
    outside.expect_picture("wide")
    expect_queued(page, first)
    expect_undo_and_redo(page, [first], [drawn(outside, TWO)])

    both = drawn(Editor(page), TWO)
    page.wait_for_timeout(1000)  # the frontend saves half a second after a change
    page.reload()
    page.wait_for_function(READY, timeout=90_000)
    expect_queued(page, both)
    Editor(page).expect_picture("wide")

    copy(page, [450, 460])
    expect_queued(page, both, both)
    expect_undo_and_redo(page, [both, both], [both, drawn(Editor(page, 1), THREE)])

    three = drawn(Editor(page, 1), THREE)
    page.evaluate("app.graph.remove(app.graph.nodes.find((node) => node.subgraph))")
    expect_queued(page, three)
    unpack(page)
    expect_queued(page, three)


@RENDERINGS
def test_promoted_twice_drawn_outermost_and_reloaded(editor):
    page = editor.page
    needs_nesting(page)
    editor.feed("tall.png")
    editor.expect_picture("tall")
    drawn(editor, ONE)
    for _ in range(2):
        wrap(page)
        promote(page)
    outermost = Editor(page)
    outermost.expect_picture("tall")
    both = drawn(outermost, TWO)
    expect_queued(page, both)
    page.wait_for_timeout(1000)  # the frontend saves half a second after a change
    page.reload()
    page.wait_for_function(READY, timeout=90_000)
    expect_queued(page, both)


@RENDERINGS
def test_what_was_drawn_on_the_subgraph_node_stays_when_it_is_promoted_no_longer(editor):
    page = editor.page
    drawn(editor, ONE)
    wrap(page)
    promote(page)
    both = drawn(Editor(page), TWO)
    page.evaluate("""() => {
        const { subgraph } = app.graph.nodes.find((node) => node.subgraph);
        app.canvas.emitBeforeChange();
        subgraph.removeInput(subgraph.inputs.find(({ name }) => name === "drags"));
        app.canvas.emitAfterChange();
    }""")
    page.locator(".readout-drags:visible").wait_for(state="detached")
    assert [sorted(json.loads(text)) for text in built(page)] == [both]
    page.evaluate("app.loadGraphData(app.graph.serialize(), true, false, app.extensionManager.workflow.activeWorkflow)")
    page.wait_for_timeout(500)  # until then the classic page shows no text field there, for prompts as well
    enter(page)
    expect_queued(page, both, how=built)


@RENDERINGS
def test_promoted_nothing_can_be_drawn_inside_where_it_would_not_count(editor):
    page = editor.page
    drawn(editor, ONE)
    wrap(page)
    promote(page)
    wanted = drawn(Editor(page), TWO)
    enter(page)
    page.wait_for_timeout(700)
    if page.locator(".readout-drags:visible").count():  # newer pages show the socket alone
        inside = Editor(page)
        inside.element.locator(".message").filter(has_text="draw on the subgraph node").wait_for()
        assert drawn(inside, THREE) == []
    leave(page)
    expect_queued(page, wanted)
