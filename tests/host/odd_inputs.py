"""A custom node for the tests alone: hands out what no sane node would, so that real workflows can carry it."""
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import torch


def unknown_model():
    """A real MODEL of an architecture that nobody has said where to tap: LTX Video, made very small."""
    config = comfy.supported_models.LTXV({"image_model": "ltxv", "cross_attention_dim": 32, "attention_head_dim": 32, "num_attention_heads": 1,
                                          "caption_channels": 8, "num_layers": 1, "dtype": torch.float32})
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
    "unknown model": unknown_model,
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
