"""Apply Readout Guidance (Ray) with Raylight's own worker in an actor of Ray, on a CPU: `python -m tools.machines.raylight FOLDER`.

FOLDER is a copy of Raylight. The Python that runs this needs ComfyUI's packages, `ray`, and what Raylight imports: `pip install --no-deps xfuser
yunchang distvae diffusers`; COMFYUI_PATH is ComfyUI's folder. Raylight's start wants CUDA, so the worker here has one of its own; what runs functions
on its model, and its sampler, are Raylight's.
"""
import argparse
import os
import sys
from pathlib import Path

import ray
import torch

import tools

SAMPLING = {"steps": 6, "cfg": 3.0, "sampler_name": "euler", "scheduler": "karras"}
PLAIN = {"is_fsdp": False, "is_xdit": False, "cfg_degree": 1, "ulysses_degree": 1, "ring_degree": 1, "dp_degree": 1}
REFUSED = {"FSDP": {"is_fsdp": True}, "CFG parallel": {"is_xdit": True, "cfg_degree": 2}, "sequence parallel": {"is_xdit": True, "ulysses_degree": 2},
           "PipeFusion": {"pipefusion_enabled": True}}


def on_the_cpu() -> None:
    """In each process of Ray, before anything imports the host."""
    from comfy.cli_args import args
    args.cpu = True


def worker_class():
    from raylight.distributed_worker.ray_worker import RayWorker

    class Worker(RayWorker):
        def __init__(self, root: str):
            torch.set_num_threads(1)
            store = torch.distributed.HashStore()
            torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)  # Raylight's is nccl
            sys.path.insert(0, root)
            import tools  # noqa: F401
            from readout_guidance_pack.nodes.demo.demo_model import load_demo
            self.model, self.parallel_dict, self.local_rank = load_demo()[0], dict(PLAIN), 0
            self.cached_controlnet = self.vae_model = None

    return ray.remote(Worker)


def guidances(model, positive) -> dict[str, tuple]:
    from readout_guidance_pack.heads import load_head
    from readout_guidance_pack.heads.demo import HEADS_FOLDER
    from readout_guidance_pack.nodes.demo.demo_nodes import DemoScene
    from readout_guidance_pack.nodes.references.renoise import ReadoutReference
    from readout_guidance_pack.nodes.targets.drag import DragTarget
    from readout_guidance_pack.nodes.targets.pose import PoseTarget
    image, skeleton = DemoScene.execute(5, 64, 64, 2).args[:2]
    acts = {"weight": 1.0, "start_percent": 0.0, "end_percent": 0.9}
    pose = PoseTarget.execute(head=load_head(HEADS_FOLDER / "demo_pose.safetensors"), image=skeleton, **acts)[0]
    reference = ReadoutReference.execute(model, positive, {"samples": image.movedim(-1, 1) * 2 - 1}, 3, 64)[0]
    drag = DragTarget.execute(reference, "[[[0.3, 0.4], [0.6, 0.5]]]", 1.0, 0.0, 0.9)[0]
    both = DragTarget.execute(reference, "[[[0.3, 0.4], [0.6, 0.5]]]", 1.0, 0.0, 0.9, guidance=pose)[0]
    return {"pose": pose, "drag with its reference": drag, "pose and drag": both}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raylight", type=Path)
    folder = parser.parse_args().raylight / "src"
    sys.path.insert(0, str(folder))
    from nodes import common_ksampler

    from readout_guidance_pack.nodes.demo.demo_model import load_demo
    from readout_guidance_pack.nodes.engine import guided
    from readout_guidance_pack.nodes.samplers.apply_ray import ApplyReadoutGuidanceRay
    from readout_guidance_pack.rg_core.guidance.updates import Move
    torch.set_num_threads(1)
    paths = os.pathsep.join([os.environ["COMFYUI_PATH"], str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"PYTHONPATH": paths, "COMFYUI_PATH": os.environ["COMFYUI_PATH"]}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": environment, "worker_process_setup_hook": on_the_cpu})
    worker = worker_class().remote(str(tools.ROOT))
    model, clip, _ = load_demo()
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a figure in a red shirt, meadow", ""))
    latent, failed = {"samples": torch.zeros(2, 3, 64, 64)}, []

    def here(of) -> torch.Tensor:
        return common_ksampler(of, 1, *SAMPLING.values(), positive, negative, latent)[0]["samples"]

    def there(of) -> torch.Tensor:
        return ray.get(of.common_ksampler.remote(1, *SAMPLING.values(), positive, negative, latent))[0]["samples"]

    def check(label: str, right: bool) -> None:
        print(f"{label}: {'yes' if right else 'NO'}", flush=True)
        failed.extend([] if right else [label])

    plain = here(model)
    check("unguided, as in one process", torch.equal(there(worker), plain))
    for label, guidance in guidances(model, positive).items():
        sent = ApplyReadoutGuidanceRay.execute({"workers": [worker]}, guidance, 0.1)[0]["workers"][0]
        own = here(guided("here", model, guidance, Move(0.1)))
        check(f"{label}, to the bit as in one process", torch.equal(there(sent), own) and not torch.equal(own, plain))
        check(f"{label}, again", torch.equal(there(sent), own))
        check(f"{label}: nothing is left on the worker's model", torch.equal(there(worker), plain))
    for mode, told in REFUSED.items():
        ray.get(worker.set_parallel_dict.remote(PLAIN | told))
        try:
            ApplyReadoutGuidanceRay.execute({"workers": [worker]}, (), 0.1)
            check(f"{mode} is refused", False)
        except ValueError as error:
            check(f"{mode} is refused ({error})", mode in str(error))
    ray.shutdown()
    raise SystemExit(f"not so: {failed}" if failed else 0)


if __name__ == "__main__":
    main()
