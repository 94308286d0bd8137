"""Imported before anything else of this folder: makes ComfyUI's modules and the pack importable, in any order.

The pack is the package `readout_guidance_pack`, and known by that name alone: `from readout_guidance_pack.rg_core import taps`.
"""
import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent

# By hand, because the pack's folder may have any name, and its __init__.py wants ComfyUI, which heads and rg_core do without.
sys.modules["readout_guidance_pack"] = ModuleType("readout_guidance_pack")
sys.modules["readout_guidance_pack"].__path__ = [str(ROOT)]

if "COMFYUI_PATH" in os.environ:  # run.py sets it, but not for `convert`
    sys.path.insert(0, os.environ["COMFYUI_PATH"])  # first, because `nodes` must be ComfyUI's and not the folder here
    import torch
    import utils.extra_config  # noqa: F401  # before ComfyUI's nodes.py puts comfy/ on the path, where another `utils` is; so does its main.py
    from comfy.cli_args import args
    args.cpu = not torch.cuda.is_available()


def here(path: str) -> Path:
    """A path as it was meant where run.py was started, which goes to its own folder."""
    return Path(os.environ.get("RUN_FROM", "."), path).resolve()


def to_write(path: str) -> Path:
    """`here` for a file that is written when all is measured: what cannot be written is refused before that, which may be hours."""
    file = here(path)
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        why = "it is a folder" if file.is_dir() else f"{file.parent} is no folder that can be written to"
        raise argparse.ArgumentTypeError(f"{file} cannot be written: {why}")
    return file


def write_json(path: Path, report: dict) -> None:
    """Numbers that are none, as of images without what is measured, as null, which every reader of JSON takes."""
    def plain(x):
        if isinstance(x, dict):
            return {key: plain(value) for key, value in x.items()}
        if isinstance(x, (list, tuple)):
            return [plain(value) for value in x]
        return None if isinstance(x, float) and not math.isfinite(x) else x

    path.write_text(json.dumps(plain(report), indent=1, allow_nan=False), encoding="utf-8")


def end(name: str, main: Callable[[], int | None]) -> None:
    """Ends the process as `main` does; Ctrl-C in one sentence."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(f"{name}: stopped; what was not finished is not written.", file=sys.stderr)
        sys.exit(130)
