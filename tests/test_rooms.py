"""The rooms of the house: which folder may import which, and how large what is in them may be. docs/architecture.md has the map."""
import ast
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tools import ROOT

# From the ground up. A room imports its own files and those of lower floors.
FLOORS = [["heads.demo", "rg_core.images"], ["rg_core.features", "rg_core.readout"], ["heads", "rg_core.guidance"],
          ["rg_core.fitting", "rg_core.training"], ["nodes.common"],
          ["nodes.demo", "nodes.inputs", "nodes.startup",
           "nodes.engine.autograd", "nodes.engine.batches", "nodes.engine.calls", "nodes.engine.schedule"],
          ["nodes.engine", "nodes.targets"], ["nodes.references", "nodes.make_heads", "nodes.views"], ["nodes.samplers"], ["nodes"]]
CALLED_BY_COMFYUI = {"execute", "sample", "sampler_sample", "__call__"}
LONGEST_CLASS, LONGEST_FUNCTION, MOST_PARAMETERS = 165, 40, 8
FILES = [path for top in ("heads", "nodes", "rg_core") for path in sorted((ROOT / top).rglob("*.py"))]


def room(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parts[:-1])


def imported(path: Path) -> set[str]:
    """The rooms of the pack that a file imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for name in node.names:
                inner = folder / name.name
                found.add(inner if inner.is_dir() else folder if folder.is_dir() else folder.parent)
    return {".".join(folder.relative_to(ROOT).parts) for folder in found}


def test_every_room_is_on_a_floor():
    assert {room(path) for path in FILES if path.name != "__init__.py"} <= {name for floor in FLOORS for name in floor}


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_rooms_import_from_lower_floors_alone(floor):
    below = {name for lower in FLOORS[:floor] for name in lower}
    wrong = defaultdict(set)
    for path in FILES:
        if room(path) in FLOORS[floor]:
            wrong[path.name] |= imported(path) - below - {room(path)}
    assert not {name: rooms for name, rooms in wrong.items() if rooms}


def test_the_mathematics_and_the_files_of_heads_know_no_comfyui():
    def outside(path):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module
    allowed = {"torch", "safetensors", *sys.stdlib_module_names}
    for path in FILES:
        if not room(path).startswith("nodes"):
            assert {name.split(".")[0] for name in outside(path)} <= allowed, path


def test_nothing_scrolls():
    """Where ComfyUI calls, it says what the parameters are; heads are made from as many fields as their files hold."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            length = node.end_lineno - node.lineno + 1 if isinstance(node, ast.stmt) else 0
            if isinstance(node, ast.ClassDef):
                assert length <= LONGEST_CLASS, (path, node.name, length)
            elif isinstance(node, ast.FunctionDef):
                count = len([a for a in (*node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")])
                free = node.name in CALLED_BY_COMFYUI or path.parent.name == "readout" and node.name == "__init__"
                assert length <= LONGEST_FUNCTION and (count <= MOST_PARAMETERS or free), (path, node.name, length, count)
