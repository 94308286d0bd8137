"""A custom node for the tests alone: a conditioning, of SDXL's shape if not said otherwise, without the large text encoders."""
import torch


class RandomConditioning:
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "give"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seed": ("INT", {"default": 0})}, "optional": {"width": ("INT", {"default": 2048})}}

    def give(self, seed, width=2048):
        rng = torch.Generator().manual_seed(seed)
        return ([[torch.randn(1, 77, width, generator=rng), {"pooled_output": torch.randn(1, 1280, generator=rng)}]],)


NODE_CLASS_MAPPINGS = {"RandomConditioning": RandomConditioning}
