"""Full-size models in a real server with its default settings: `python run.py gpu --only server`."""
import re
import subprocess
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from readout_guidance_pack.rg_core.images.control_images import draw_pose
from tools import ROOT
from tools.host.server import Server, WorkflowFailed

CASES = (("sd15", 512), ("sd15", 1024), ("sdxl", 1024))
STEPS = 8
BODY = [(128, 40), (128, 70), (100, 72), (85, 105), (80, 140), (156, 72), (175, 100), (200, 80), (112, 140), (108, 185),
        (105, 230), (144, 140), (148, 185), (152, 230), (122, 35), (134, 35), (114, 38), (142, 38)]
PROJECTION = {"sd15": ("input_blocks.1.1.transformer_blocks.0.attn1.to_q", 320), "sdxl": ("input_blocks.4.1.transformer_blocks.0.attn1.to_q", 640)}
TROUBLE = re.compile(r"error|warning|exception|traceback|missing|unexpected|invalid", re.IGNORECASE)


def inputs(home: Path) -> None:
    from torchvision.transforms.functional import to_pil_image
    for folder in ("input", "models/loras"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    to_pil_image(draw_pose(torch.tensor([[[(x, y, 1.0) for x, y in BODY]]]), (256, 256))[0]).save(home / "input" / "skeleton.png")
    rng = torch.Generator().manual_seed(0)
    for name, (key, width) in PROJECTION.items():
        save_file({f"diffusion_model.{key}.lora_up.weight": torch.randn(width, 4, generator=rng) * 0.1,
                   f"diffusion_model.{key}.lora_down.weight": torch.randn(4, width, generator=rng) * 0.1},
                  home / "models" / "loras" / f"{name}.safetensors")


def prompt(name: str, size: int, kind: str, number: int, lora: float | None = None) -> dict:
    """A graph; `number` makes the host run it again, by a denoise that it takes for 1."""
    base = {"sd15": "sdv15", "sdxl": "sdxl"}[name]
    model = ["model", 0] if lora is None else ["lora", 0]
    sampler = {"model": model, "seed": 0, "steps": STEPS, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal",
               "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0], "denoise": 1 - number * 1e-7}
    times = {"weight": 1.0, "start_percent": 0.0, "end_percent": 0.9}
    nodes = {"model": ("UNETLoader", {"unet_name": "sdxl.safetensors", "weight_dtype": "default"}) if name == "sdxl" else
                      ("CheckpointLoaderSimple", {"ckpt_name": "sd15.safetensors"}),
             "latent": ("EmptyLatentImage", {"width": size, "height": size, "batch_size": 1})}
    for i, which in enumerate(("positive", "negative")):
        nodes[which] = (("RandomConditioning", {"seed": i}) if name == "sdxl" else
                        ("CLIPTextEncode", {"clip": ["model", 1], "text": ("a figure in a red shirt", "")[i]}))
    if lora is not None:
        nodes["lora"] = ("LoraLoaderModelOnly", {"model": ["model", 0], "lora_name": f"{name}.safetensors", "strength_model": lora})
    if kind == "pose":
        nodes |= {"skeleton": ("LoadImage", {"image": "skeleton.png"}),
                  "head": ("LoadReadoutHead", {"head_name": f"readout_{base}_spatial_pose.pt"}),
                  "target": ("ReadoutPoseTarget", {"head": ["head", 0], "image": ["skeleton", 0], **times})}
    if kind == "drag":
        nodes |= {"head": ("LoadReadoutHead", {"head_name": f"readout_{base}_drag_correspondence.pt"}),
                  "reference": ("KSamplerReadoutReference", sampler | {"cache_mb": 1024}),
                  "target": ("ReadoutDragTarget", {"head": ["head", 0], "reference": ["reference", 1],
                                                   "drags": "[[[0.25,0.33],[0.3,0.62]]]", **times})}
    nodes["sampler"] = ("KSampler", sampler)
    if kind != "plain":
        nodes["sampler"] = ("KSamplerReadoutGuidance", sampler | {"guidance": ["target", 0], "strength": 0.1})
    nodes["save"] = ("SaveLatent", {"samples": ["sampler", 0], "filename_prefix": f"{name}_{size}_{kind}"})
    return {key: {"class_type": kind, "inputs": values} for key, (kind, values) in nodes.items()}


class Runs:
    """Runs in one server, what each took and what it left in memory."""

    def __init__(self, server: Server, home: Path):
        self.server, self.home, self.number, self.found = server, home, 0, []

    def run(self, label: str, *graph, stop: bool = False, **more) -> torch.Tensor | None:
        self.number += 1
        start, asked, latent, error = time.monotonic(), [], None, None

        def progress(node: str, step: int, _steps: int) -> None:
            if stop and not asked and node.startswith("KSampler") and step == 3:
                asked.append(self.server.post("/interrupt", {}))

        before = len(self.log())
        try:
            outputs = self.server.run(prompt(*graph, self.number, **more), progress)
            latent = load_file(self.home / "output" / outputs["save"]["latents"][0]["filename"])["latent_tensor"].float()
        except WorkflowFailed as failure:
            error = str(failure)[:300]
        row = {"label": label, "seconds": round(time.monotonic() - start, 2), **self.memory()}
        row |= {"error": error} if error else {"finite": bool(latent.isfinite().all()), "std": round(latent.std().item(), 3)}
        said = [line for line in self.log()[before:].splitlines() if TROUBLE.search(line)]
        row |= {"said": said[:5]} if said else {}
        self.found.append(row)
        print(" ", row, flush=True)
        return latent

    def log(self) -> str:
        return (self.server.home / "server.log").read_text(errors="replace")

    def memory(self) -> dict:
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        used = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True).stdout
        return {"main_gib": round(int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 2**20, 1),
                "anonymous_gib": round(int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) / 2**20, 1),
                "card_mib": int(used.split()[0]) if used.strip() else None}


def apart(label: str, a: torch.Tensor | None, b: torch.Tensor | None) -> dict:
    row = {"label": label, "largest_difference": (a - b).abs().max().item() if a is not None and b is not None else None}
    print(" ", row, flush=True)
    return row


def runs(home: Path) -> list[dict]:
    inputs(home)
    with Server(home / "output", home=home, extra_nodes=[ROOT / "tests" / "host" / "random_conditioning.py"]) as server:
        here = Runs(server, home)
        try:
            for name, size in CASES:
                case = f"{name} {size}"
                here.run(f"{case} plain", name, size, "plain")
                here.run(f"{case} plain again", name, size, "plain")
                first = here.run(f"{case} pose", name, size, "pose")
                here.found.append(apart(f"{case} pose, the same again", first, here.run(f"{case} pose again", name, size, "pose")))
                here.run(f"{case} drag", name, size, "drag")
                for strength in (0.5, 1.0, 0.2):
                    here.run(f"{case} pose, LoRA {strength}", name, size, "pose", lora=strength)
                here.run(f"{case} pose, interrupted", name, size, "pose", stop=True)
                here.found.append(apart(f"{case} pose after it", first, here.run(f"{case} pose after it", name, size, "pose")))
        finally:
            start = [line for line in here.log().splitlines() if re.search("VRAM|Device|Python|pytorch|attention|ComfyUI version", line)]
            here.found.append({"label": "the host", "said": start[:20]})
    return here.found
