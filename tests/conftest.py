"""Before any test file is read: ComfyUI's modules and the pack become importable."""
import os

import torch

import tools  # noqa: F401

# Models as small as these gain little from a second thread, and beside anything else that runs they take six times as long with it.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the servers that tests start


def pytest_terminal_summary(terminalreporter):
    """Says in words what a machine without a browser did not try."""
    left = sum("browser/" in report.nodeid for report in terminalreporter.stats.get("skipped", ()))
    if left:
        terminalreporter.write_line(f"The {left} tests in a browser were left out. They need Chromium: a `chromium` on the PATH, such as "
                                    "Debian's package of that name.")
