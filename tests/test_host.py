"""Hosts that are too old."""
import os
import subprocess
import sys

import tomllib

from tools import ROOT


def imported(folder, version: str | None) -> str:
    """What is said of importing the pack where there is nothing of ComfyUI but this version."""
    (folder / "readout_guidance").symlink_to(ROOT)
    if version:
        (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"')
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run([sys.executable, "-c", "import readout_guidance"], cwd=folder, env=environment, capture_output=True, text=True).stderr


def test_a_host_that_is_too_old_says_so_in_one_sentence(tmp_path):
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["comfy"]["requires-comfyui"].lstrip(">=")
    for name, version, said in (("old", "0.3.40", "0.3.40"), ("silent", None, "much older")):
        (tmp_path / name).mkdir()
        assert imported(tmp_path / name, version).splitlines()[-1].startswith(
            f"ImportError: Readout Guidance needs ComfyUI {oldest} or newer, and this one is {said}.")
    (tmp_path / "new").mkdir()
    assert "needs ComfyUI" not in imported(tmp_path / "new", "99.0.0")  # whatever else is missing
