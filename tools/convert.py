"""Published .pt heads as safetensors beside them: `python run.py convert FILE.pt [FILE.pt ...]`.

It runs no code from the files, reads the same to the bit afterwards, and overwrites nothing. Exit status 1 if a file failed.
"""
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError

from readout_guidance_pack.heads import HeadFileError, load_head, save_head


def convert(path: Path) -> str:
    """Converts one file and says what it is. Raises HeadFileError, OSError or SafetensorError."""
    target = path.with_suffix(".safetensors")
    if target == path and path.exists():
        return f"{target} is converted already."
    if target.exists():
        raise FileExistsError(f"{target} is there already and is not overwritten. Delete or rename it first.")
    head = load_head(path)
    save_head(head, target, dtype=torch.float32)
    return f"{target}: reads {head.kind}, for {head.base_model or 'a model that it does not name'}, {len(head.channels)} taps"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="run.py convert", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.pt")
    failed = 0
    for path in parser.parse_args(arguments).files:
        try:
            print(convert(path), flush=True)
        except (HeadFileError, OSError, SafetensorError) as error:
            print(f"{path} was not converted: {error}", flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
