"""How much longer ComfyUI takes to start with the pack: part of bench.py, `--start [--rounds N]`.

Servers with and without it start in turn, each in a process of its own, until they answer. What the pack's import takes is what the host writes into
its log.
"""
import re
import statistics
import tempfile
import time
from pathlib import Path

from tools import ROOT
from tools.host.server import PACK_FOLDER, Server


def started(pack: Path) -> tuple[float, str]:
    """Seconds until a server with `pack` among its custom nodes answers, and its log."""
    with tempfile.TemporaryDirectory() as home:
        begin = time.monotonic()
        with Server(Path(home) / "output", home=Path(home), pack=pack) as server:
            took = time.monotonic() - begin
            return took, (server.home / "server.log").read_text(errors="replace")


def starts(rounds: int) -> dict:
    times, imports = {"with": [], "without": []}, []
    with tempfile.TemporaryDirectory() as nothing:
        (Path(nothing) / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
        for _ in range(rounds):
            for label, pack in (("with", ROOT), ("without", Path(nothing))):
                took, log = started(pack)
                times[label].append(took)
                found = re.search(rf"([\d.]+) seconds(?: \(IMPORT FAILED\))?: .*{PACK_FOLDER}", log)
                if label == "with":
                    imports.append(float(found[1]))
    middle = {label: statistics.median(values) for label, values in times.items()}
    return {"start_s": {label: round(value, 1) for label, value in middle.items()},
            "start_ratio": round(middle["with"] / middle["without"], 3), "import_s": statistics.median(imports)}
