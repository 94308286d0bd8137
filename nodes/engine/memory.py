"""A guided run in the host's memory management: heads that it loads, what a step needs beside a plain one, and what is done
where that is not there."""
import copy
import math
from collections.abc import Collection
from types import SimpleNamespace

import comfy.model_management
import comfy.model_patcher
import torch

from ...rg_core.features import architectures, taps
from ...rg_core.features.raw_features import Features
from ...rg_core.readout.head import ReadoutHead
from ...rg_core.readout.linear_head import LinearHead

CHOICES = ["auto", "on", "off"]  # of computing blocks again in the backward pass
# What a guided step keeps for its backward pass, in MiB for each latent pixel and byte of a number, of a model whose
# memory_usage_factor is 1: the unit of the host's own figure for a plain step, which is 0.01. KEPT is the diffusion model's part,
# by whether blocks are computed again; HEAD that of one head, which computes in float32 beside any model. The larger of what
# `python run.py bench` counts for Stable Diffusion 1.5 and XL, a little rounded up: docs/measurements/speed.md.
KEPT = {False: 0.21, True: 0.021}
HEAD = 0.021
# Of transformers, numbers for each token, channel and block up to the last tap: counted on blocks of Flux (14), SD 3 (13), Qwen-Image (12),
# Wan (16) and Z-Image (20). Of recomputed blocks one stays, and one block at a time keeps all. `tests/nodes/engine/test_transformers.py`.
KEPT_OF_BLOCK = 20


class HeadWeights(torch.nn.Module):
    """A head's weights, as the model that the host manages. If that were the head itself, it and its patcher would hold each other until
    Python looks for such rings, which may be while the host walks through its list of models, and shortens that."""

    def __init__(self, head: torch.nn.Module):
        super().__init__()
        self._parameters, self._buffers, self._modules = head._parameters, head._buffers, head._modules

    def copied(self) -> "HeadWeights":
        """The same weights once more, for another card: what the host hangs on a model that it manages stays here."""
        parts = SimpleNamespace(_parameters=self._parameters, _buffers=self._buffers, _modules=self._modules)
        return HeadWeights(copy.deepcopy(parts))


class HeadPatcher(comfy.model_patcher.ModelPatcher):
    """A head goes to the device whole: the host offloads parts of models that are built from its own layers only."""

    def load(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False):
        super().load(device_to, lowvram_model_memory, force_patch_weights, full_load=True)


def new_patcher(weights: HeadWeights, device: torch.device) -> comfy.model_patcher.ModelPatcher:
    streaming = comfy.model_patcher.CoreModelPatcher is not comfy.model_patcher.ModelPatcher  # the host's dynamic VRAM
    Patcher = comfy.model_patcher.CoreModelPatcher if streaming else HeadPatcher
    return Patcher(weights, load_device=device, offload_device=comfy.model_management.unet_offload_device())


def copied_patcher(weights: HeadWeights, device: torch.device) -> comfy.model_patcher.ModelPatcher:
    """Where the host shares a MODEL's work among several cards it wants each model that comes with it on each of them."""
    return new_patcher(weights.copied(), device)


def head_patcher(head: ReadoutHead, model) -> comfy.model_patcher.ModelPatcher:
    """The head as a model that the host loads, counts and offloads, where it loads MODEL; the same one each time."""
    device = model.load_device  # which another node may have chosen
    weights, patchers = head.__dict__.setdefault("managed", (HeadWeights(head), {}))
    if device not in patchers:
        patchers[device] = new_patcher(weights, device)
        patchers[device].cached_patcher_init = copied_patcher, (weights, device)
    return patchers[device]


def guided_step_bytes(model, shape: tuple, conds: list[dict], heads: Collection, recompute: bool) -> float:
    """Bytes that a guided step for latents of `shape` needs beside a plain one; `model` is the host's BaseModel, `conds` what is asked of it,
    `heads` what reads it, at least one."""
    of_model, of_head = units(model, shape)
    if taps.tokens(model.diffusion_model, shape) is None:
        return KEPT[recompute] * of_model + HEAD * of_head
    smaller = min(readout_stride(head, model) for head in heads)
    return kept_of_transformer(model, shape, conds, recompute) + HEAD * of_head / model.memory_usage_factor / smaller**2


def readout_stride(head: torch.nn.Module, model) -> int:
    """What the map in which `head` computes is smaller by, along a side, than what HEAD was counted on: networks compute in that of their readout,
    linear heads and features as they are in one near the tokens, which are large where latents are pixels."""
    return max(1, taps.patch(model.diffusion_model) // 2) if isinstance(head, (LinearHead, Features)) else head.stride


def kept_of_transformer(model, shape: tuple, conds: list[dict], recompute: bool) -> float:
    """Its part of `guided_step_bytes`. Words and reference images pass its blocks as well."""
    count, width, blocks = taps.tokens(model.diffusion_model, shape)
    beside = [(0 if c.get("cross_attn") is None else c["cross_attn"].shape[1])
              + sum(taps.tokens(model.diffusion_model, x.shape)[0] for x in edited(model, c)) for c in conds]
    numbers = shape[0] * (count + max(beside, default=0)) * width * (blocks + KEPT_OF_BLOCK if recompute else blocks * KEPT_OF_BLOCK)
    return numbers * comfy.model_management.dtype_size(model.get_dtype_inference())


def edited(model, cond: dict) -> list[torch.Tensor]:
    """The images that pass the blocks beside the one being made."""
    given = cond.get(architectures.architecture_of(model.diffusion_model).edited)
    return [given] if isinstance(given, torch.Tensor) else list(given or ())


def units(model, shape: tuple) -> tuple[float, float]:
    """Bytes that one of KEPT, and of HEAD, stands for."""
    bytes_each = 2**20 * shape[0] * math.prod(shape[2:]) * model.memory_usage_factor
    return bytes_each * comfy.model_management.dtype_size(model.get_dtype_inference()), bytes_each * torch.float32.itemsize


def streamed_bytes(model) -> int:
    """Bytes of the weights that are cast or brought to the device for each operation, and so kept for the backward pass."""
    patcher, numbers = model.current_patcher, sum(w.numel() for w in model.diffusion_model.parameters())
    size = comfy.model_management.dtype_size(model.get_dtype_inference())
    if patcher.is_dynamic() or model.manual_cast_dtype is not None:
        return numbers * size
    return patcher.model_size() - patcher.loaded_size() if model.model_lowvram else 0


def is_short(model, shape: tuple, conds: list[dict], heads: Collection, device: torch.device) -> bool:
    """Whether blocks have to be computed again for the step to fit."""
    return guided_step_bytes(model, shape, conds, heads, recompute=False) + streamed_bytes(model) > comfy.model_management.get_free_memory(device)


class MemoryRequest:
    """Tells the host of memory that a run needs, in the place of a ControlNet, which is where it asks. With several cards it wants one on each."""
    previous_controlnet = None

    def __init__(self, size: float):
        self.size, self.multigpu_clones = size, {}

    def deepclone_multigpu(self, device: torch.device, autoregister: bool = False) -> "MemoryRequest":
        if autoregister:
            self.multigpu_clones[device] = self
        return self

    def get_instance_for_device(self, device: torch.device) -> "MemoryRequest":
        return self

    def set_previous_controlnet(self, _control) -> None:
        pass

    def get_models(self) -> list:
        return []

    def inference_memory_requirements(self, _dtype) -> float:
        return self.size
