"""The host in this process: ComfyUI's modules on the path, and the pack loaded as ComfyUI loads it."""
import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACK = "readout_guidance_pack"


def start() -> None:
    """Makes `import comfy` work. Expects COMFYUI_PATH, which `run.py` sets; runs on the CPU where there is no CUDA device."""
    if os.environ["COMFYUI_PATH"] in sys.path:
        return
    sys.path.insert(0, os.environ["COMFYUI_PATH"])  # first, because the host's `nodes` and ours share a name
    import torch
    arguments, sys.argv = sys.argv, sys.argv[:1] + ([] if torch.cuda.is_available() else ["--cpu"])
    import comfy.options
    comfy.options.enable_args_parsing()
    import comfy.model_management  # noqa: F401, reads the arguments
    sys.argv = arguments


def load_pack():
    """The pack as a package; its parts can then be imported as `readout_guidance_pack.nodes` and so on."""
    start()
    if PACK not in sys.modules:
        spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        sys.modules[PACK] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[PACK])
    return sys.modules[PACK]
