"""One server and one browser for a module, and a Drag Target alone on the graph for each test."""
import shutil

import pytest
from PIL import Image

from page import ADD_DRAG_TARGET, Editor, opened
from tools.host.server import Server

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("server")
    with Server(home / "output", home=home) as running:
        for name, size in {"wide.png": (200, 100), "tall.png": (100, 200)}.items():
            Image.new("RGB", size, "teal").save(home / "input" / name)
        yield running


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("the drag editor's tests need Chromium: install Debian's package 'chromium'")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def rendering(request, browser, server):
    with opened(server, browser, request.param) as page:
        yield page


@pytest.fixture
def editor(rendering):
    """The editor of a Drag Target that is alone on the graph."""
    rendering.evaluate("""async () => {
        await app.loadGraphData({nodes: [], links: [], version: 0.4}, true, false, app.extensionManager.workflow.activeWorkflow);
        app.nodeOutputs = {};  // or nodes would find those of the last test's nodes
    }""")
    rendering.evaluate(ADD_DRAG_TARGET)
    return Editor(rendering)
