"""What `run.py gpu` starts on a card, tried on a CPU with narrow models, so that no time on a card is lost to a mistake in it."""
import json

import comfy.supported_models
import pytest
import torch

from readout_guidance_pack import heads
from readout_guidance_pack.rg_core.features import taps
from readout_guidance_pack.rg_core.readout.head import ReadoutHead
from tools import gpu
from tools.benchmarks import models, transformers
from tools.benchmarks.models import Subject, random_model
from tools.gpu_jobs import cost, step
from tools.gpu_jobs import transformers as on_transformers
from tools.random_weights.checkpoints import SD15_UNET


def unet():
    return random_model(comfy.supported_models.SD15, SD15_UNET | {"model_channels": 32}, torch.float16)


def published(model) -> ReadoutHead:
    with torch.inference_mode(False):
        return ReadoutHead("pose", taps.channels(model.model.diffusion_model), projection_dim=128, emb_channels=128).eval().requires_grad_(False)


def narrow() -> Subject:
    model = unet()
    return Subject(model, published(model), [[torch.randn(1, 77, 768), {}]], (1, 4, 16, 16))


def flux(job: dict) -> transformers.Subject:
    model = random_model(comfy.supported_models.Flux, transformers.FLUX1 | {"hidden_size": 384, "num_heads": 3, "depth": 3, "depth_single_blocks": 3},
                         torch.bfloat16)
    return transformers.Subject(model, [[torch.randn(1, 8, 4096), {"pooled_output": torch.randn(1, 768)}]], (1, 16, *job["size"]))


@pytest.fixture
def job(tmp_path):
    return {"label": "tried", "model": "sd15", "file": "", "head": "", "save": str(tmp_path / "move.pt"), "size": [16, 16], "batch": 1, "branches": 2,
            "rounds": 1, "images": 2}


@pytest.mark.parametrize("do", step.ACTIONS)
def test_each_job_of_a_step_runs(do, job, monkeypatch):
    model = unet()
    monkeypatch.setattr(step, "load", lambda _: model)
    monkeypatch.setattr(heads, "load_head", lambda _: published(model))
    found = step.run(job | {"do": do})
    assert found and "error" not in found, found
    if do == "move":
        assert found["finite"] and found["again_apart"] == 0 and torch.load(job["save"]).abs().max() > 0


@torch.inference_mode()
@pytest.mark.parametrize("do", cost.ACTIONS)
def test_each_cost_is_found(do, job, monkeypatch):
    monkeypatch.setitem(models.MODELS, "sd15", narrow)
    found = cost.ACTIONS[do](job)
    if do == "steps":
        ways = ["published head, " + way for way in ("together", "captured", "together and captured")]
        assert list(found)[:8] == ["plain", "published head", "fitted head", "drag without a head", "blocks recomputed", *ways]
        assert all(found["cosines"][way] > 0.9999 for way in ways) and all(found[label]["peak_gib"] > 0 for label in ways)
    else:
        assert list(found) == ["plain, 20 steps", "default, 20 steps", "default, 4 steps", "fitted head, 20 steps", "fitted head, 4 steps"]


@torch.inference_mode()
def test_a_transformers_cost_is_found_with_one_branch(job, monkeypatch):
    monkeypatch.setattr(cost, "transformer", flux)
    found = cost.ACTIONS["steps"](job | {"model": "flux1", "branches": 1})
    assert list(found)[:5] == ["plain", "fitted head", "drag without a head", "blocks recomputed", "fitted head, captured"]


@torch.inference_mode()
@pytest.mark.parametrize("do", on_transformers.ACTIONS)
def test_each_job_of_transformers_runs(do, job, monkeypatch):
    monkeypatch.setattr(on_transformers, "subject", flux)
    found = on_transformers.ACTIONS[do](job | {"do": do})
    assert "failed" not in found, found


def test_a_process_takes_its_setting_before_the_host_is_imported():
    assert gpu.process({"flags": ["cpu"], "jobs": []}) == []
    setting = {"flags": ["cpu"], "jobs": [{"label": "none", "do": "steps", "model": "none"}]}
    found, = gpu.process(setting, main="tools.gpu_jobs.cost")
    assert found["label"] == "none" and "KeyError" in json.dumps(found)
