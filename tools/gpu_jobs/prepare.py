"""What a process of `tools/gpu.py` does before anything imports the host, which takes its settings as it is imported."""
import torch
from comfy.cli_args import args

import tools  # noqa: F401


def prepare(setting: dict) -> None:
    """What ComfyUI's main.py does before anything of it is imported, and the smaller card."""
    for flag in setting.get("flags", ()):
        setattr(args, flag, True)
    if setting.get("deterministic"):
        torch.use_deterministic_algorithms(True, warn_only=setting["deterministic"] == "warn")
        torch.utils.deterministic.fill_uninitialized_memory = False
    if setting.get("cap"):
        limit = int(setting["cap"] * 2**30)
        torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
        torch.cuda.mem_get_info = lambda device=None: (max(0, limit - torch.cuda.memory_reserved(device)), limit)
    if setting.get("dynamic"):
        import comfy.memory_management
        import comfy.model_management
        import comfy.model_patcher
        import comfy_aimdo.control
        devices = comfy.model_management.get_all_torch_devices()
        if not comfy_aimdo.control.init_devices((d.index, int(args.vram_headroom * 2**30)) for d in devices):
            raise RuntimeError("comfy-aimdo does not work here")
        comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
        comfy.memory_management.aimdo_enabled = True
