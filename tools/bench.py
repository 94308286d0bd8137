"""What a guided step costs: `python run.py bench [--json FILE] [--models demo sd15]`.

A plain step is one prediction with cfg (two branches); a guided one the same with guidance attached. Both are timed in
turn in one run and compared by their medians, so that a busy machine slows both. SD 1.5 is the real architecture with
random weights and a random head of the published shape.
"""
import argparse
import ctypes
import json
import statistics
import time

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models
import torch

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes import references
from readout_guidance_pack.nodes.demo_model import load_demo
from readout_guidance_pack.nodes.sampling import guided
from readout_guidance_pack.rg_core import taps
from readout_guidance_pack.rg_core.head import ReadoutHead
from readout_guidance_pack.rg_core.references import renoised
from readout_guidance_pack.rg_core.targets import Drag, Spatial
from readout_guidance_pack.rg_core.updates import PUBLISHED, Move
from tools.checkpoints import SD15_UNET
from tools.device import device_name

SIGMA, CFG = 5.0, 3.0


def random_sd15():
    """(MODEL, head, context) of the SD 1.5 architecture with random weights."""
    config = comfy.supported_models.SD15(SD15_UNET)
    device = comfy.model_management.get_torch_device()
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    config.set_inference_dtype(dtype, None)
    torch.manual_seed(0)
    model = config.get_model({}, "", device=device)
    for name, parameter in model.diffusion_model.named_parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 1
        parameter.data.copy_(torch.randn(parameter.shape) * fan**-0.5 if parameter.ndim > 1 else
                             torch.full(parameter.shape, float(name.endswith("weight"))))
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))
    with torch.inference_mode(False):
        head = ReadoutHead("pose", taps.channels(model.diffusion_model), base_model="SD 1.5").eval().requires_grad_(False)
    return patcher, head, torch.randn(1, 77, 768), (1, 4, 32, 32)


def demo():
    model, clip, _ = load_demo()
    head = load_head(HEADS_FOLDER / "demo_pose.safetensors")
    return model, head, clip.encode_from_tokens_scheduled(clip.tokenize("room"))[0][0], (4, 3, 64, 64)


MODELS = {"demo": demo, "sd15": random_sd15}


def settings(head, model, context: torch.Tensor, shape: tuple) -> dict:
    """The moves to compare, by the name of their preset."""
    with torch.inference_mode(False):
        target = Spatial(name="pose", head=head, image=torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), end=1.0)
    clean, noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1)).unbind()
    way = renoised(clean, clean + 14.6 * noise, 14.6)
    with torch.inference_mode(False):
        relative = ReadoutHead(
            "correspondence", head.channels, projection_dim=head.bottleneck_layers[0].conv3.out_channels,
            emb_channels=None, out_channels=None, stride=head.stride).eval().requires_grad_(False)

    def dragged(cache_mb: int) -> tuple:
        reference = references.wrap(model, way, [[context, {}]], cache_mb)
        return (Drag(name="drag", head=relative, reference=reference, paths=torch.tensor([[[0.3, 0.3], [0.6, 0.6]]]), end=1.0),)

    return {"plain": ((), None), "default": ((target,), Move()), "fresh forward": ((target,), Move(0.05, per_step=True, fresh=True)),
            "published": ((target,), PUBLISHED), "two targets": ((target, target), Move()),
            "drag, reference cached": (dragged(4096), Move()), "drag, reference carried along": (dragged(0), Move())}


def peak_bytes(reset: bool = False) -> int:
    """Highest memory since the last reset: of the GPU's allocator, or of the process (on Linux) where there is no GPU."""
    if torch.cuda.is_available():
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier steps freed would count as still in use
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


@torch.inference_mode()
def measure(name: str, rounds: int) -> dict:
    """The plain step's time, and the ratio and the peak memory of each setting."""
    model, head, context, shape = MODELS[name]()
    conds = [[context, {}]]
    chosen = settings(head, model, context, shape)
    times: dict[str, list[float]] = {label: [] for label in chosen}
    peaks: dict[str, int] = {}
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for turn in range(rounds + 1):
        for label, (targets, move) in chosen.items():
            patched = model if move is None else guided("bench", model, targets, move)
            guider = comfy.samplers.CFGGuider(patched)
            guider.set_conds(conds, conds)
            guider.set_cfg(CFG)
            sigmas = torch.tensor([SIGMA, SIGMA * 0.9, SIGMA * 0.8])
            peak_bytes(reset=True)
            start = time.monotonic()
            guider.sample(noise, torch.zeros(shape), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                times[label].append((time.monotonic() - start) / 2)
                peaks[label] = peak_bytes()
    plain = statistics.median(times["plain"])
    return {"plain_step_s": round(plain, 4), "shape": list(shape), "peak_bytes": peaks,
            "guided_step_ratio": {label: round(statistics.median(t) / plain, 2) for label, t in times.items() if label != "plain"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args()
    report = {"device": device_name(), "models": {}}
    for name in options.models:
        print(f"bench: {name}", flush=True)
        result = report["models"][name] = measure(name, options.rounds)
        print(f"  plain step {result['plain_step_s']:.3f} s, peak {result['peak_bytes']['plain'] / 2**20:.0f} MiB")
        for label, ratio in result["guided_step_ratio"].items():
            print(f"  {label}: {ratio:.2f} times a plain step, peak {result['peak_bytes'][label] / 2**20:.0f} MiB")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
