"""Interrupts at any operation, and failures of the host and of other packs: afterwards everything is as if nothing had been, the next image too."""
import random

import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import comfy.utils
import latent_preview
import pytest
import torch
from comfy.patcher_extension import WrappersMP

from interrupting import At, Interrupted
from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes.demo import demo_model, demo_nodes
from readout_guidance_pack.nodes.references.invert import ReadoutInvert
from readout_guidance_pack.nodes.samplers import guided_ksampler
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget


class Frames(latent_preview.LatentPreviewer):
    """Another pack's, as animated previews have it."""

    def decode_latent_to_preview(self, x0):
        return (x0[:1, :3].movedim(1, -1) * 255).byte()


class Follower:
    """Another pack's wrapper, which hands on a step callback of its own."""

    def __call__(self, executor, noise, latent_image, sampler, sigmas, denoise_mask, callback, *args, **kwargs):
        return executor(noise, latent_image, sampler, sigmas, denoise_mask, self.after_step, *args, **kwargs)

    @staticmethod
    def after_step(step, denoised, x, total):
        denoised.mean()


class Scene:
    """From loading to the decoded image, watched, with another pack's hands in it: an inversion, a drag and a pose from its noise, an image."""

    def __init__(self, recompute: str = "off"):
        self.recompute = recompute
        self.model, self.clip, self.vae = demo_model.load_demo()
        self.model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "another pack", Follower())
        self.heads = {kind: load_head(HEADS_FOLDER / f"demo_{kind}.safetensors") for kind in ("pose", "correspondence")}
        self.positive, self.negative = (self.clip.encode_from_tokens_scheduled(self.clip.tokenize(said)) for said in ("a figure, sea", ""))
        self.image, self.skeleton = demo_nodes.DemoScene.execute(5, 64, 64, 1).args[:2]

    def run(self) -> torch.Tensor:
        comfy.model_management.unload_all_models()
        latent = {"samples": self.vae.encode(self.image)}
        noise, reference = ReadoutInvert.execute(self.model, self.positive, self.negative, latent, 3, 1.0, "karras", 64).args
        guidance = DragTarget.execute(reference, "[[[0.3, 0.4], [0.6, 0.5]]]", 1.0, 0.0, 0.9, self.heads["correspondence"],
                                      mask=torch.ones(1, 64, 64)).args[0]
        guidance = PoseTarget.execute(self.heads["pose"], 1.0, 0.0, 0.9, image=self.skeleton, guidance=guidance)[0]
        out, *_ = guided_ksampler.KSamplerReadoutGuidance.execute(self.model, 1, 3, 3.0, "euler", "karras", self.positive, self.negative, noise, 1.0,
                                                                  guidance, 0.1, self.recompute).args
        return self.vae.decode(out["samples"])

    def state(self) -> dict:
        """What must be as before; numbers that may have moved between devices by their values."""
        modules = [("unet", self.model.model), *self.heads.items()]
        found = {"grad": torch.is_grad_enabled(), "inference": torch.is_inference_mode_enabled(), "options": repr(self.model.model_options),
                 "wrappers": repr(self.model.wrappers), "attachments": list(self.model.attachments), "patches": list(self.model.patches),
                 "patcher": getattr(self.model.model, "current_patcher", None)}
        for name, whole in modules:
            for path, module in whole.named_modules():
                found[f"{name} {path}"] = (len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module), module.training)
            for path, x in [*whole.named_parameters(), *whole.named_buffers()]:
                found[f"{name} {path} weight"] = (id(x), x.requires_grad, x.grad is None, x.double().sum().item())
        return found


@pytest.fixture(autouse=True)
def inference_mode():
    with torch.inference_mode():
        yield
    comfy.model_management.interrupt_current_processing(False)


@pytest.fixture(scope="module", params=["off", "on"], ids=["blocks kept", "blocks computed again"])
def scene(request):
    with pytest.MonkeyPatch.context() as patched, torch.inference_mode():
        patched.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *_args, **_named: None)
        patched.setattr(latent_preview, "get_previewer", lambda *_: Frames())
        scene = Scene(request.param)
        scene.expected = scene.run()  # which makes what is made once
        comfy.model_management.unload_all_models()
        with At(None) as counted:
            assert torch.equal(scene.run(), scene.expected)
        scene.operations = counted.count
        yield scene


def check_interrupts(scene, times: int) -> None:
    rng, before, interrupted = random.Random(0), scene.state(), 0
    while interrupted < times:
        place = rng.randrange(1, scene.operations)
        comfy.model_management.unload_all_models()  # during which the host asks nobody whether to stop, and 0.18.2 would not survive it
        try:
            with At(place):
                image = scene.run()
        except Interrupted:
            interrupted += 1
        else:  # after an interrupted load the host has less to load
            assert torch.equal(image, scene.expected)
        assert scene.state() == before, place
    assert torch.equal(scene.run(), scene.expected)


def test_interrupts(scene):
    check_interrupts(scene, 3)


@pytest.mark.slow
def test_50_interrupts(scene):
    check_interrupts(scene, 25)  # with blocks kept, and with them computed again


class Failure(Exception):
    pass


CALLS = {  # of the host, by the time of their failing
    "load_models_gpu": [(comfy.model_management, "load_models_gpu", n) for n in (1, 2, 3)],
    "load": [(comfy.model_patcher.ModelPatcher, "load", n) for n in (1, 2, 3)],
    "pre_run": [(comfy.model_patcher.ModelPatcher, "pre_run", n) for n in (1, 2)],
    "cleanup": [(comfy.model_patcher.ModelPatcher, "cleanup", 1)],
    "process_conds": [(comfy.samplers, "process_conds", n) for n in (1, 2)],
    "_calc_cond_batch": [(comfy.samplers, "_calc_cond_batch", n) for n in (1, 4, 8)],
    "get_area_and_mult": [(comfy.samplers, "get_area_and_mult", n) for n in (1, 6, 9)],
    "prepare_state": [(comfy.model_patcher.ModelPatcher, "prepare_state", n) for n in (1, 5)],
    "get_free_memory": [(comfy.model_patcher.ModelPatcher, "get_free_memory", 3)],
    "cleanup_models": [(comfy.sampler_helpers, "cleanup_models", 1)],
    "another pack's callback": [(Follower, "after_step", n) for n in (1, 4, 6)],
}


@pytest.mark.parametrize("place, name, count", [case for cases in CALLS.values() for case in cases],
                         ids=[f"{name} {n}" for cases in CALLS.values() for _, name, n in cases])
def test_failures_of_the_host(scene, monkeypatch, place, name, count):
    if scene.recompute == "on" and count > 1:
        pytest.skip("once for each call will do")
    before, real, calls = scene.state(), getattr(place, name), []

    def fails(*args, **kwargs):
        calls.append(1)
        if len(calls) == count:
            raise Failure(name)
        return real(*args, **kwargs)

    monkeypatch.setattr(place, name, staticmethod(fails) if place is Follower else fails)
    with pytest.raises(Failure):
        scene.run()
    monkeypatch.undo()
    if name != "cleanup":  # the host's own, which then did not run
        assert scene.state() == before
    assert torch.equal(scene.run(), scene.expected)
    assert scene.state() == before
