#!/usr/bin/env bash
# comfyui-manager 4.3 (PyPI), comfyui_manager/prestartup_script.py, execute_lazy_cnr_switch.
#
# When the Manager's page updates a pack of the registry, it only reserves the update, which is applied at the next start. The files that the new
# version no longer has are then looked for in custom_nodes and not in the pack's folder, so they stay: a workflow template or web script that a
# version removed is still served. .tracking no longer names them, so no later update deletes them. If custom_nodes itself holds a file of such a
# name, that one is deleted. An update that is applied at once (cm-cli install name@version, glob/manager_core.py) deletes the right files.
#
# Runs the Manager's two functions as installed, on a pack made here. Stand-ins: the download (copies a local file), aiohttp, ComfyUI's arguments.
# Prints the version, what was expected and what was seen. Exits with 0 if seen as described, 1 if that has changed, 2 if it could not be run.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env" || exit 2
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-deps comfyui-manager==4.3 || exit 2
found=$(cd "$folder" && env/bin/python -I - <<'PYTHON'
import ast
import contextlib
import importlib.metadata
import io
import os
import shutil
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

# The package without what its __init__ starts; its modules below that are the installed ones.
package = ModuleType("comfyui_manager")
package.__path__ = [str(importlib.metadata.distribution("comfyui-manager").locate_file("comfyui_manager"))]
sys.modules |= {"comfyui_manager": package, "aiohttp": MagicMock(), "comfy": MagicMock(),
                "comfy.cli_args": SimpleNamespace(args=SimpleNamespace(listen="127.0.0.1"))}
from comfyui_manager.common import manager_util


def download(address, to, name):
    shutil.copy(address, Path(to, name))


def installed(file, name, **more):
    """The function or class of this name in the installed file, with the names it needs."""
    tree = ast.parse(Path(package.__path__[0], file).read_text(encoding="utf-8"))
    tree.body = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name == name]
    names = {"__package__": "comfyui_manager", "os": os, "shutil": shutil, "manager_util": manager_util, "default_conf": {},
             "manager_downloader": SimpleNamespace(download_url=download, basic_download_url=download)} | more
    exec(compile(tree, file, "exec"), names)
    return names[name]


def archive(version, workflow):
    with zipfile.ZipFile(f"{version}.zip", "w") as z:
        z.writestr("pyproject.toml", f'[project]\nname = "pack"\nversion = "{version}"\n\n[tool.comfy]\nPublisherId = "someone"\n')
        z.writestr("__init__.py", "NODE_CLASS_MAPPINGS = {}\n")
        z.writestr(workflow, "{}")
    return f"{version}.zip"


def with_old_version(name):
    """A custom_nodes folder with the first version of the pack, and a file of the same name as one of the pack's beside it."""
    custom_nodes = Path(name, "custom_nodes").resolve()
    files = manager_util.extract_package_as_zip(first, custom_nodes / "pack")
    (custom_nodes / "pack/.tracking").write_text("\n".join(files), encoding="utf-8")
    (custom_nodes / "workflows").mkdir()
    (custom_nodes / "workflows/old.json").write_text("not the pack's")
    return custom_nodes


def state(custom_nodes):
    pack = custom_nodes / "pack"
    assert 'version = "1.1.0"' in (pack / "pyproject.toml").read_text()
    tracked = (pack / ".tracking").read_text(encoding="utf-8").split("\n")
    return "; ".join([f"{w} {'there' if (pack / w).exists() else 'gone'} and {'' if w in tracked else 'not '}tracked" for w in (old, new)]
                     + [f"custom_nodes/{old} {'there' if (custom_nodes / old).exists() else 'gone'}"])


old, new = "workflows/old.json", "workflows/new.json"
first, second = archive("1.0.0", old), archive("1.1.0", new)
reserved, at_once = with_old_version("reserved"), with_old_version("at_once")
with contextlib.redirect_stdout(io.StringIO()):
    switch = installed("prestartup_script.py", "execute_lazy_cnr_switch")
    pack = str(reserved / "pack")
    assert switch("pack", second, pack, pack, False, str(reserved), "NodeVersionStatusActive")

    core = "glob/manager_core.py"
    switch = installed(core, "_cnr_switch_version_instant", uuid=__import__("uuid"), ManagedResult=installed(core, "ManagedResult"),
                       get_default_custom_nodes_path=lambda: str(at_once))
    manager = SimpleNamespace(active_nodes={"pack": ("1.0.0", str(at_once / "pack"))})
    assert switch(manager, "pack", SimpleNamespace(version="1.1.0", download_url=second), return_postinstall=True).result
print(f"comfyui-manager {importlib.metadata.version('comfyui-manager')}\nreserved: {state(reserved)}\nat once:  {state(at_once)}")
PYTHON
) || exit 2
right="workflows/old.json gone and not tracked; workflows/new.json there and tracked; custom_nodes/workflows/old.json there"
wrong="workflows/old.json there and not tracked; workflows/new.json there and tracked; custom_nodes/workflows/old.json gone"
echo "$found"
echo "expected: $right"
test "$found" = "comfyui-manager 4.3
reserved: $wrong
at once:  $right"
