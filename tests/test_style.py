"""What ruff and the type checker find, with the settings in pyproject.toml: tests, so that the test command and CI fail of it."""
import subprocess
import sys

import yaml

from tools import ROOT


def test_ruff_finds_nothing():
    found = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", ROOT], capture_output=True,
                           text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_hook_before_a_commit_runs_the_same_ruff():
    hooks = [hook for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"] for hook in repo["hooks"]]
    pinned, = (hook["additional_dependencies"] for hook in hooks if hook["id"] == "ruff")
    assert set(pinned) <= set((ROOT / "requirements-dev.txt").read_text().split())


def test_the_type_checker_finds_nothing():
    """It takes torch's types from the Python that runs this."""
    found = subprocess.run([sys.executable, "-m", "basedpyright", "--project", ROOT, "--pythonpath", sys.executable], capture_output=True,
                           text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_lock_holds_what_is_asked_for_with_hashes():
    """pip, told to ask for hashes, refuses what has none."""
    def pins(text):
        return {line.split()[0].lower().replace("_", "-") for line in text.splitlines() if "==" in line and not line.startswith("#")}

    lock = (ROOT / "requirements-dev.lock").read_text()
    assert pins((ROOT / "requirements-dev.txt").read_text()) <= pins(lock)
    assert all("--hash=sha256:" in entry for entry in lock.replace("\\\n", "").splitlines() if "==" in entry)
