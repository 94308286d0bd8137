"""What ruff finds, with the settings in pyproject.toml: a test, so that the test command and CI fail of it."""
import subprocess
import sys

from tools import ROOT


def test_ruff_finds_nothing():
    found = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", ROOT], capture_output=True,
                           text=True)
    assert found.returncode == 0, found.stdout + found.stderr
