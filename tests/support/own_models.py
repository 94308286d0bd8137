"""What workflows with models of one's own must show in a real server."""
import re
import time
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image, to_tensor

from readout_guidance_pack.rg_core.images.control_images import draw_pose
from tools.host.server import Server

# The host's words where weights do not fit, and for anything that went wrong.
TROUBLE = re.compile(r"error|warning|exception|traceback|missing|unexpected|invalid|left over", re.IGNORECASE)
BODY = [(128, 40), (128, 70), (100, 72), (85, 105), (80, 140), (156, 72), (175, 100), (200, 80), (112, 140), (108, 185),
        (105, 230), (144, 140), (148, 185), (152, 230), (122, 35), (134, 35), (114, 38), (142, 38)]


def save_skeleton(path: Path, size: int) -> None:
    """An image of a standing body, as OpenPose draws it; BODY is on 256 by 256 pixels."""
    body = torch.tensor([[(x * size / 256, y * size / 256, 1.0) for x, y in BODY]])
    to_pil_image(draw_pose(body[None], (size, size))[0]).save(path)


def traced(workflow: dict) -> dict:
    """The same, its traces given as text in place of plots."""
    for node in workflow["nodes"]:
        if node["type"] == "ReadoutTrace":
            node["type"], node["inputs"][0]["name"] = "PreviewAny", "source"
    return workflow


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


def shown_images(server: Server, outputs: dict) -> dict[str, torch.Tensor]:
    """The saved images [B, 3, H, W] by the row that their names tell."""
    return {re.search(r"target|unguided|guided", files[0].stem)[0]: torch.stack([to_tensor(Image.open(f)) for f in files])
            for files in server.files(outputs).values()}


def is_image(image: torch.Tensor, size: int) -> bool:
    return image.shape[1:] == (3, size, size) and all(one.std() > 0.01 for one in image)
