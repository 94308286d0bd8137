"""A custom node for the tests alone: hands out what no sane node would, so that real workflows can carry it."""
import comfy.ldm.flux.model
import comfy.model_base
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import torch


def transformer_model():
    """A real MODEL of an architecture without decoder blocks: Flux, made very small."""
    config = comfy.supported_models.Flux({"image_model": "flux", "in_channels": 4, "out_channels": 4, "vec_in_dim": 8,
                                          "context_in_dim": 8, "hidden_size": 16, "mlp_ratio": 1.0, "num_heads": 1, "depth": 1,
                                          "depth_single_blocks": 1, "axes_dim": [4, 6, 6], "theta": 10000, "patch_size": 2,
                                          "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": [],
                                          "dtype": torch.float32})
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(config.get_model({}, "", device=cpu), load_device=cpu, offload_device=cpu)


def pose(points: int, confidence: float):
    return [{"canvas_width": 64, "canvas_height": 64, "people": [{"pose_keypoints_2d": [9.0, 9.0, confidence] * points}]}]


THINGS = {
    "nan image": lambda: torch.full((1, 8, 8, 3), float("nan")),
    "empty image": lambda: torch.zeros(1, 0, 8, 3),
    "black image": lambda: torch.zeros(1, 8, 8, 3),
    "white image": lambda: torch.ones(1, 8, 8, 3),
    "small mask": lambda: torch.ones(1, 4, 4),
    "empty mask": lambda: torch.zeros(1, 8, 8),
    "nobody": lambda: [{"canvas_width": 64, "canvas_height": 64, "people": []}],
    "unseen pose": lambda: pose(18, 0.0),
    "16 points": lambda: pose(16, 1.0),
    "transformer model": transformer_model,
}


class AnyType(str):
    def __ne__(self, other):
        return False


class OddInput:
    RETURN_TYPES = (AnyType("*"),)
    FUNCTION = "give"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"thing": (list(THINGS),)}}

    def give(self, thing):
        return (THINGS[thing](),)


NODE_CLASS_MAPPINGS = {"OddInput": OddInput}
