"""The host in this process: ComfyUI's modules on the path and the pack loaded as ComfyUI loads it."""
import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACK = "readout_guidance_pack"


def load_pack():
    """The pack as a package; its `nodes` can then be imported as `readout_guidance_pack.nodes`.

    Expects COMFYUI_PATH in the environment, which `run.py` sets. Runs on the CPU when there is no CUDA device.
    """
    if PACK in sys.modules:
        return sys.modules[PACK]
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    import torch
    arguments, sys.argv = sys.argv, sys.argv[:1] + ([] if torch.cuda.is_available() else ["--cpu"])
    import comfy.options
    comfy.options.enable_args_parsing()
    import comfy.model_management  # reads the arguments
    sys.argv = arguments
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    pack = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = pack
    spec.loader.exec_module(pack)
    return pack
