"""The host's detectors, from their files. Each raises ValueError; hosts before 0.30 lack some of them."""
from collections.abc import Callable
from pathlib import Path

import comfy.sd
import comfy.utils
import torch
from torch import Tensor

from tools.host.checkpoints import checkpoint

SDPOSE = "sdpose_wholebody_fp16.safetensors of Comfy-Org/SDPose"
RESOLUTION = 504  # of Depth Anything 3, as the host's node has it


def pose(file: Path) -> Callable[[Tensor], list]:
    """From an IMAGE to POSE_KEYPOINT, by SDPose's checkpoint."""
    try:
        from comfy_extras.nodes_sdpose import SDPoseKeypointExtractor
    except ImportError as error:
        raise ValueError("this version of ComfyUI has no SDPose. Update ComfyUI.") from error
    model, _, vae = checkpoint(file)
    if not hasattr(model.model.diffusion_model, "heatmap_head"):
        raise ValueError(f"{file.name} is not SDPose. Give {SDPOSE}.")
    return lambda image: SDPoseKeypointExtractor.execute(model, vae, image, 1).args[0]


def geometry(file: Path) -> Callable[[Tensor], dict]:
    """From an IMAGE to MOGE_GEOMETRY or DA3_GEOMETRY, by the file of either model."""
    try:
        from comfy.ldm.moge.model import MoGeModel
        from comfy_extras.nodes_depth_anything_3 import DA3Inference
        from comfy_extras.nodes_moge import MoGeInference
    except ImportError as error:
        raise ValueError("this version of ComfyUI has no Depth Anything 3 or MoGe. Update ComfyUI.") from error
    try:
        moge = MoGeModel(comfy.utils.load_torch_file(str(file), safe_load=True))
        if moge.load_device.type == "cpu":  # the host (0.30.0) chooses half precision, in which torch does not resize there
            moge.model.float()
            moge.dtype = torch.float32
        return lambda image: MoGeInference.execute(moge, image, 9, 0.0, 1, True, True).args[0]
    except Exception as error:  # any other file makes it fail in every way there is
        no_moge = error
    try:
        model = comfy.sd.load_diffusion_model(str(file))
        if type(model.model).__name__ == "DepthAnything3":
            return lambda image: DA3Inference.execute(model, image, RESOLUTION, "upper_bound_resize", {"mode": "mono"}).args[0]
        no_da3 = f"it is a {type(model.model).__name__}"
    except Exception as error:
        no_da3 = error
    raise ValueError(f"{file} is neither MoGe ({no_moge}) nor Depth Anything 3 ({no_da3}).")
