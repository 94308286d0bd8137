"""Guided sampling of a MODEL whose work the host shares among several cards (MultiGPU CFG Split). No machine here has two: the CPU stands for both,
by two of its names."""
from contextlib import contextmanager

import comfy.controlnet
import comfy.model_management
import nodes as host_nodes
import pytest
import torch

from demo_world import World
from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes.demo import demo_nodes
from readout_guidance_pack.nodes.engine import memory
from readout_guidance_pack.nodes.engine.run import KEY
from readout_guidance_pack.nodes.make_heads import estimate, fit
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.nodes.samplers.guided_ksampler import KSamplerReadoutGuidance
from readout_guidance_pack.nodes.samplers.published import KSamplerReadoutGuidancePublished
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.likeness import AppearanceTarget

multigpu = pytest.importorskip("comfy.multigpu", reason="ComfyUI 0.18 has one card for a MODEL")
pytestmark = pytest.mark.usefixtures("inference_mode")

FIRST, SECOND = torch.device("cpu"), torch.device("cpu", 0)
ACTS = {"weight": 1.0, "start_percent": 0.0, "end_percent": 0.9}


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        world = World()
        world.scene = demo_nodes.DemoScene.execute(5, 64, 64, 2).args
        latent = {"samples": world.scene[0].movedim(-1, 1) * 2 - 1}
        world.reference = ReadoutReference.execute(world.model, world.positive, latent, 3, 64)[0]
        yield world


@pytest.fixture
def two(w, monkeypatch):
    """The demo MODEL on both."""
    monkeypatch.setattr(comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: [FIRST, SECOND])
    monkeypatch.setattr(comfy.model_management, "set_torch_device", lambda _device: None)
    model = w.model.clone()
    model.load_device = FIRST
    return multigpu.create_multigpu_deepclones(model, 2)


def head(kind):
    with torch.inference_mode(False):
        return load_head(HEADS_FOLDER / f"demo_{kind}.safetensors")


GUIDANCE = {
    "pose": lambda w: w.pose(end_percent=0.9),
    "depth": lambda w: DepthTarget.execute(head=w.heads["depth"], image=w.scene[2], **ACTS)[0],
    "drag by a head": lambda w: DragTarget.execute(w.reference, "[[[0.3, 0.4], [0.6, 0.5]]]", *ACTS.values(), head("correspondence"))[0],
    "drag": lambda w: DragTarget.execute(w.reference, "[[[0.3, 0.4], [0.6, 0.5]]]", *ACTS.values())[0],
    "appearance by a head": lambda w: AppearanceTarget.execute(w.reference, *ACTS.values(), head("appearance"))[0],
    "appearance": lambda w: AppearanceTarget.execute(w.reference, *ACTS.values())[0]}


@contextmanager
def rows(*models):
    """The rows of each call of their networks, one list for each."""
    found = [[] for _ in models]
    hooks = [model.model.diffusion_model.register_forward_hook(lambda _module, args, _out, seen=seen: seen.append(len(args[0])))
             for model, seen in zip(models, found)]
    yield found
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("kind", GUIDANCE)
def test_two_cards_make_the_image_of_one(w, two, kind):
    guidance = GUIDANCE[kind](w)
    one, _ = w.sample(guidance, steps=6)
    clone, = two.get_additional_models_with_key("multigpu")
    for _ in range(2):  # again: heads are there already
        with rows(two, clone) as (here, there):
            shared, _ = w.sample(guidance, steps=6, model=two)
        assert (shared - one).abs().max() < 1e-5
        assert sum(there) >= 12  # the other branch of each step, of two images
    network = clone.model.diffusion_model
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules()) and "forward" not in vars(network)
    assert not two.get_additional_models_with_key(KEY)


def test_the_other_branch_is_asked_while_the_first_is_differentiated(w, two):
    """Of a level's last move: each card makes one forward pass of two images, and the first goes back too."""
    clone, = two.get_additional_models_with_key("multigpu")
    with rows(two, clone) as (here, there):
        w.sample(w.pose(end_percent=0.9), steps=20, model=two)
    assert here == [2] * 20 and there == [2] * 20


def test_the_split_stands_before_and_behind_the_guiding_node(w, two):
    from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
    one, _ = w.sample(w.pose(), steps=6)
    settings = {"strength": 0.1, "recompute": "auto"}
    guided = ApplyReadoutGuidance.execute(w.model, w.pose(), **settings)[0]
    guided.load_device = FIRST
    behind = multigpu.create_multigpu_deepclones(guided, 2)
    for model in (ApplyReadoutGuidance.execute(two, w.pose(), **settings)[0], behind):
        assert (w.sample(None, steps=6, model=model)[0] - one).abs().max() < 1e-5


class Adapter(torch.nn.Module):
    """Adds the image to the first channels of the first block's output, as a T2I-Adapter does with what it makes of it."""
    unshuffle_amount = 1

    def forward(self, x):
        return {"input": [torch.cat([x, x.new_zeros(len(x), 61, *x.shape[2:])], 1)]}


def test_controlnets_act_on_both(w, two):
    adapter = comfy.controlnet.T2IAdapter(Adapter(), 3, 1, "nearest-exact", FIRST)
    positive, negative = host_nodes.ControlNetApplyAdvanced().apply_controlnet(w.positive, w.negative, adapter, w.scene[2][:1], 1.0, 0.0, 1.0)

    def sample(model):
        latent = {"samples": torch.zeros(2, 3, 64, 64)}
        return KSamplerReadoutGuidance.execute(model, 1, 6, 3.0, "euler", "karras", positive, negative, latent, 1.0, w.pose(), 0.1).args[0]["samples"]

    one = sample(w.model)
    assert (sample(two) - one).abs().max() < 1e-5 < (w.sample(w.pose(), steps=6)[0] - one).abs().max()


def test_the_published_procedure(w, two):
    rest = (1, 2, 3.0, 1.0, True, w.positive, w.negative, {"samples": torch.zeros(2, 3, 64, 64)}, 0.02, w.pose(end_percent=0.9))
    one, shared = (KSamplerReadoutGuidancePublished.execute(model, *rest).args[0]["samples"] for model in (w.model, two))
    assert (shared - one).abs().max() < 1e-5


def test_estimates_and_fitted_heads_are_those_of_one_card(w, two):
    given = {"head": w.heads["depth"], "positive": w.positive, "percent": 0.9, "seed": 1, "image": w.scene[0], "vae": w.vae}
    one, shared = (estimate.ReadoutEstimate.execute(model=model, **given).args[0] for model in (w.model, two))
    assert torch.equal(one, shared)
    latent = {"samples": w.scene[0].movedim(-1, 1) * 2 - 1}
    one, shared = (fit.FitReadoutHead.execute([model], [latent], [w.positive], [w.scene[2]], ["depth"], [1]).args[0] for model in (w.model, two))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), shared.state_dict().values(), strict=True))


def test_the_host_is_told_of_the_memory_with_several_cards_too(w, two, monkeypatch):
    told, own = [], memory.MemoryRequest.inference_memory_requirements
    monkeypatch.setattr(memory.MemoryRequest, "inference_memory_requirements", lambda self, dtype: told.append(self.size) or own(self, dtype))
    for model in (w.model, two):
        w.sample(w.pose(), model=model)
    assert told[0] == told[1] > 0


def test_an_interrupt_on_the_second_card_ends_the_run(w, two):
    clone, = two.get_additional_models_with_key("multigpu")

    def interrupted(*_):
        raise comfy.model_management.InterruptProcessingException

    hook = clone.model.diffusion_model.register_forward_hook(interrupted)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        w.sample(w.pose(), steps=6, model=two)
    hook.remove()
    assert (w.sample(w.pose(), steps=6, model=two)[0] - w.sample(w.pose(), steps=6)[0]).abs().max() < 1e-5
