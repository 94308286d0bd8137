"""Other people's clients, each as its own pages say, on a real server: the same pixels as by POST /prompt.

Their versions are in requirements.txt and package.json; what each differs in, in docs/hosts.md.
"""
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from small import prompt, workflow
from tools.assets.workflow import is_widget

PROGRAMS = Path(__file__).parent / "programs"
CONTROLS = ["pose", "drag"]


def pixels(files) -> list[bytes]:
    """Of images in no order."""
    return sorted(Image.open(file).convert("RGB").tobytes() for file in files)


def forget(server) -> None:
    """Lets the server sample again what it has sampled: it empties its cache behind the next prompt."""
    server.post("/free", {"free_memory": True})
    server.run({"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
                "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}})


class Case:
    """A workflow as the page saves it and as a prompt, the pixels that it makes by POST /prompt, and a folder for a client's images."""

    def __init__(self, control: str, server, expected: dict, folder: Path):
        self.server, self.folder = server, folder / "pictures"
        self.folder.mkdir()
        content = workflow(control)
        self.saved, self.prompt = folder / "workflow.json", folder / "prompt.json"
        self.saved.write_text(json.dumps(content))
        self.content = prompt(content, server.get("/object_info"))
        self.prompt.write_text(json.dumps(self.content))
        self.titles = [node["_meta"]["title"] for node in self.content.values() if node["class_type"] == "SaveImage"]
        if control not in expected:
            files = server.files(server.run(self.content))
            expected[control] = pixels(file for group in files.values() for file in group)
        self.expected = expected[control]
        forget(server)

    def by(self, command: list, environment: dict, *more: str) -> str:
        """What the client prints."""
        run = subprocess.run([*map(str, command), *more], env=environment, cwd=self.folder, capture_output=True, text=True, timeout=240)
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
        print(run.stdout, run.stderr)  # shown where a test fails
        return run.stdout

    def agrees(self) -> None:
        """The client has the expected images, of a prompt in which it has filled in no link that was left out."""
        sent, = (entry["prompt"][2] for entry in self.server.get("/history?max_items=1").values())
        given = {(node["class_type"], name) for node in self.content.values() for name in node["inputs"]}
        added = {(node["class_type"], name) for node in sent.values() for name in node["inputs"]} - given
        inputs = {kind: self.server.get(f"/object_info/{kind}")[kind]["input"] for kind, _ in added}
        links = [(kind, name) for kind, name in added if not is_widget((inputs[kind].get("required", {}) | inputs[kind].get("optional", {}))[name])]
        assert not links
        assert pixels(self.folder.glob("*.png")) == self.expected


@pytest.fixture(scope="session")
def expected() -> dict:
    return {}


@pytest.fixture(params=CONTROLS)
def case(request, server, expected, tmp_path) -> Case:
    found = Case(request.param, server, expected, tmp_path)
    assert len(set(found.expected)) == len(found.titles) >= 2  # guided and unguided or the reference differ
    return found


def test_comfy_cli(case, environment):
    """Takes the workflow as the page saves it."""
    host, port = case.server.address.removeprefix("http://").split(":")
    said = case.by([sys.executable, "-m", "comfy_cli", "--skip-prompt", "--no-enable-telemetry", "run", "--workflow", case.saved, "--host", host,
                    "--port", port, "--wait"], environment)
    told = json.loads(said.splitlines()[-1])
    assert told["data"]["status"] == "completed"
    for place, address in enumerate(address for address in told["data"]["outputs"] if "type=output" in address):
        (case.folder / f"{place}.png").write_bytes(urllib.request.urlopen(address, timeout=30).read())
    case.agrees()


def test_comfy_api_simplified(case, environment):
    """Hands out all binary messages for the saved images where there are any."""
    case.by([sys.executable, PROGRAMS / "simplified.py", case.server.address, case.prompt, case.folder], environment, *case.titles)
    case.agrees()


def test_comfyui_autograph(case, environment):
    """Takes the workflow as the page saves it; every typed value must be where it was."""
    case.by([sys.executable, PROGRAMS / "graph.py", case.server.address, case.saved, case.folder], environment)
    sent = json.loads((case.folder / "prompt.json").read_text())
    for name, node in case.content.items():
        assert sent[name]["class_type"] == node["class_type"] and node["inputs"].items() <= sent[name]["inputs"].items()
    case.agrees()


def test_comfy_script(case, environment):
    said = case.by([sys.executable, PROGRAMS / "script.py", case.server.address, case.prompt, case.folder], environment)
    assert said.splitlines()[-1].endswith("<Node ReadoutReference>")
    case.agrees()


def test_stable_canvas_comfyui_client(case, environment, modules, node):
    """Hands out previews before the saved images."""
    program = modules / "canvas.mjs"
    program.write_bytes((PROGRAMS / "canvas.mjs").read_bytes())  # modules are looked for from where a program is
    case.by([node, program, case.server.address, case.prompt, case.folder], environment)
    case.agrees()
