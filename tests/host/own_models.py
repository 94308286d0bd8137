"""What workflows with models of one's own must show in a real server."""
import re
import time
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from tools.server import Server

# The host's words where weights do not fit, and for anything that went wrong.
TROUBLE = re.compile(r"error|warning|exception|traceback|missing|unexpected|invalid|left over", re.IGNORECASE)


def run(server: Server, workflow: dict, name: str, expected: str = "$^") -> dict:
    """The outputs; prints what the run took, and fails on anything wrong in the server's log that `expected` does not find."""
    start, log = time.monotonic(), server.home / "server.log"
    before = len(log.read_text(errors="replace"))
    outputs = server.run(workflow)
    seconds = time.monotonic() - start
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**20
    print(f"\n{name}: {seconds:.0f} s, the server's peak memory {peak:.1f} GiB")
    said = log.read_text(errors="replace")[before:]
    trouble = [line for line in said.splitlines() if TROUBLE.search(line) and not re.search(expected, line)]
    assert not trouble, trouble
    return outputs


def pictures(server: Server, outputs: dict) -> dict[str, torch.Tensor]:
    """The saved pictures [B, 3, H, W] by the row that their names tell."""
    return {re.search(r"target|unguided|guided", files[0].stem)[0]: torch.stack([to_tensor(Image.open(f)) for f in files])
            for files in server.files(outputs).values()}


def is_a_picture(image: torch.Tensor, size: int) -> bool:
    return image.shape[1:] == (3, size, size) and all(one.std() > 0.01 for one in image)
