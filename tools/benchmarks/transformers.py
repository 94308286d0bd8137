"""What guidance costs on flow transformers: part of bench.py, `--transformers [--rounds N]`.

Flux.1's and Z-Image's architectures at half their width and with a quarter of their blocks, so that two CPU cores hold them in fp32, with random
weights, at 256x256 pixels; and the demo's transformer. Steps are of Euler, in turn in one run. What the real models need at 1024x1024 is counted:
weights, the host's own figure for a plain step, and what nodes/engine/memory.py tells the host of a guided one.
"""
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch

from readout_guidance_pack.heads.demo import TRANSFORMER_FILE
from readout_guidance_pack.nodes.demo.demo_model import load_demo
from readout_guidance_pack.nodes.engine import guided, memory
from readout_guidance_pack.nodes.engine.schedule.noise_levels import EMBEDDED
from readout_guidance_pack.nodes.make_heads.fitter import BANDS, LEVELS
from readout_guidance_pack.nodes.make_heads.training_set import of_model
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.rg_core.features import taps
from readout_guidance_pack.rg_core.features.raw_features import AS_THEY_ARE
from readout_guidance_pack.rg_core.guidance.targets import Drag, Spatial
from readout_guidance_pack.rg_core.guidance.updates import Move
from readout_guidance_pack.rg_core.readout.linear_head import from_maps
from tools.benchmarks.costs import in_turn, most_kept, sample
from tools.benchmarks.models import ALL_THE_TIME, random_model
from tools.random_weights.checkpoints import unet
from tools.random_weights.transformer_checkpoints import FLUX, SD3

SIGMAS = torch.tensor([0.9, 0.8, 0.7])  # of two steps
ZIMAGE = {"image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 3840, "cap_feat_dim": 2560, "n_layers": 30, "qk_norm": True,
          "n_heads": 30, "n_kv_heads": 30, "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "rope_theta": 256.0,
          "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32}
FLUX1 = FLUX | {"hidden_size": 3072, "num_heads": 24, "context_in_dim": 4096, "depth": 19, "depth_single_blocks": 38}
SD35 = {name: x for name, x in SD3.items() if name != "x_block_self_attn_layers"} | {  # large
    "depth": 38, "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 2432}}}
GIB = 2**30


class Subject(NamedTuple):
    model: comfy.model_patcher.ModelPatcher
    conditioning: list  # the host's
    shape: tuple        # of the latents


class Real(NamedTuple):
    """A published model: `family` of comfy.supported_models, its config, how many tokens of text it is given and their channels, and the card
    it should fit."""
    family: str
    config: dict
    words: tuple[int, int]
    card: int  # GiB
    pooled: int = 768  # channels of what stands for all of the text


REAL = {"flux1": Real("Flux", FLUX1, (512, 4096), 24), "z-image": Real("ZImage", ZIMAGE, (256, 2560), 16),
        "sd3.5-large": Real("SD3", SD35, (333, 4096), 24, 2048)}


def transformer(family: str, config: dict, words: tuple[int, int]) -> Subject:
    model = random_model(getattr(comfy.supported_models, family), config, torch.bfloat16)
    return Subject(model, [[torch.randn(1, *words), {"pooled_output": torch.randn(1, 768)}]], (1, 16, 32, 32))


def demo() -> Subject:
    model, clip, _ = load_demo(TRANSFORMER_FILE)
    return Subject(model, clip.encode_from_tokens_scheduled(clip.tokenize("room")), (4, 3, 64, 64))


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "demo": demo,
    "flux1": lambda: transformer("Flux", FLUX1 | {"hidden_size": 1536, "num_heads": 12, "depth": 5, "depth_single_blocks": 9}, (64, 4096)),
    "z-image": lambda: transformer("ZImage", ZIMAGE | {"dim": 1920, "n_heads": 15, "n_kv_heads": 15, "n_layers": 8}, (64, 2560))}


@torch.inference_mode(False)
def targets(subject: Subject) -> dict:
    """A pose by a head such as Fit Readout Head makes, with random weights, and a drag without a head on a reference that is read already."""
    network, rng = subject.model.model.diffusion_model, torch.Generator().manual_seed(3)
    channels, about = taps.channels(network), of_model(subject.model)
    maps = [(torch.randn(sum(channels), 3, generator=rng) * 1e-3, torch.zeros(3)) for _ in range(BANDS)]
    head = from_maps("pose", channels, maps, torch.randn(LEVELS, EMBEDDED, generator=rng), **about)
    image = torch.rand(1, 3, 64, 64, generator=rng)
    with torch.inference_mode():
        latent = {"samples": torch.randn(1, *subject.shape[1:], generator=rng)}
        reference = ReadoutReference.execute(subject.model, subject.conditioning, latent, 7, 4096)[0]
    paths = torch.tensor([[[0.3, 0.3], [0.6, 0.6]]])
    return {"pose": Spatial(name="pose", head=head, image=image, **ALL_THE_TIME),
            "drag": Drag(name="drag", head=AS_THEY_ARE, reference=reference, paths=paths, **ALL_THE_TIME)}


def settings(subject: Subject, recompute: str = "off") -> dict:
    """The MODELs whose steps are compared."""
    made = targets(subject)

    def by(name: str, recompute: str = recompute):
        return guided("bench", subject.model, (made[name],), Move(), recompute=recompute)

    return {"plain": subject.model, "pose": by("pose"), "pose, blocks computed again": by("pose", "on"), "drag without a head": by("drag")}


def early_exit(subject: Subject) -> Callable[[], None]:
    """One call of the model that is left after the last tap, as when references are read or heads are fitted."""
    def read():
        with taps.record(subject.model.model.diffusion_model, only=True):
            try:
                sample(subject.model, subject.conditioning, subject.shape, SIGMAS[:2], cfg=1.0)
            except taps.StopForward:
                pass
    return read


@torch.inference_mode()
def measure(name: str, rounds: int) -> dict:
    subject = SUBJECTS[name]()
    found, models = {"shape": list(subject.shape)}, settings(subject)
    for cfg, label in ((1.0, "one branch"), (3.0, "two branches")):
        actions = {setting: partial(sample, model, subject.conditioning, subject.shape, SIGMAS, cfg=cfg) for setting, model in models.items()}
        costs = in_turn(actions, rounds, warm=actions)
        plain = costs["plain"].seconds
        found[label] = {"plain_step_s": round(plain / (len(SIGMAS) - 1), 4), "peak_bytes": {setting: cost.peak for setting, cost in costs.items()},
                        "guided_step_ratio": {setting: round(cost.seconds / plain, 2) for setting, cost in costs.items() if setting != "plain"}}
    one = {"whole": partial(sample, subject.model, subject.conditioning, subject.shape, SIGMAS[:2], cfg=1.0),
           "until the last tap": early_exit(subject)}
    costs = in_turn(one, rounds, warm=one)
    found["read_ratio"] = round(costs["until the last tap"].seconds / costs["whole"].seconds, 2)
    weights = list(subject.model.model.parameters())
    found["kept_bytes"] = {setting: most_kept(partial(sample, model, subject.conditioning, subject.shape, SIGMAS[:2], cfg=1.0), weights)
                           for setting, model in models.items() if setting != "plain"}
    return found


def counted(name: str, shape: tuple = (1, 16, 128, 128)) -> dict:
    """GiB at 1024x1024 in bf16, on the meta device; the weights in bf16 and in fp8."""
    real = REAL[name]
    model = unet(getattr(comfy.supported_models, real.family), dict(real.config), torch.bfloat16)
    weights = sum(w.numel() for w in model.diffusion_model.parameters())
    conds = [{"cross_attn": torch.empty(1, real.words[0], 1, device="meta")}]
    plain = 0.01 * 2 * model.memory_usage_factor * shape[-2] * shape[-1] * 2**20  # as comfy.model_base.BaseModel.memory_required has it on a GPU
    needs = {again: memory.guided_step_bytes(model, shape, conds, [AS_THEY_ARE], again) for again in (False, True)}
    found = {"weights, bf16": 2 * weights, "weights, fp8": weights, "a plain step": plain, "guided, beside that, blocks kept": needs[False],
             "guided, beside that, blocks computed again": needs[True]}
    return {label: round(size / GIB, 2) for label, size in found.items()} | {"card": real.card}


def transformers(rounds: int) -> dict:
    results = {}
    for name in SUBJECTS:
        results[name] = measure(name, rounds)
        print(f"bench: {name}: {results[name]}", flush=True)
        comfy.model_management.unload_all_models()
    results["counted at 1024x1024, GiB"] = {name: counted(name) for name in REAL}
    print(f"bench: counted at 1024x1024, GiB: {results['counted at 1024x1024, GiB']}", flush=True)
    return {"transformers": results}
