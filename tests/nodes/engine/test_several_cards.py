"""Guided sampling of a MODEL whose work the host shares among several cards (MultiGPU CFG Split). No machine here has two: the CPU stands for both,
by two of its names."""
from contextlib import contextmanager

import comfy.controlnet
import comfy.model_management
import nodes as host_nodes
import pytest
import torch

import transformer_sampling
from demo_world import World
from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes.engine import memory
from readout_guidance_pack.nodes.engine.run import KEY, Run
from readout_guidance_pack.nodes.make_heads import estimate, fit
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from readout_guidance_pack.nodes.samplers.guided_ksampler import KSamplerReadoutGuidance
from readout_guidance_pack.nodes.samplers.published import KSamplerReadoutGuidancePublished
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.likeness import AppearanceTarget
from readout_guidance_pack.rg_core.guidance.targets import Spatial

multigpu = pytest.importorskip("comfy.multigpu", reason="ComfyUI 0.18 has one card for a MODEL")
pytestmark = pytest.mark.usefixtures("inference_mode")

FIRST, SECOND = torch.device("cpu"), torch.device("cpu", 0)
ACTS = {"weight": 1.0, "start_percent": 0.0, "end_percent": 0.9}


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        yield World.with_a_reference()


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
    one, _ = w.sample(guidance, steps=6, batch=1)
    clone, = two.get_additional_models_with_key("multigpu")
    for _ in range(2):  # again: heads are there already
        with rows(two, clone) as (here, there):
            shared, _ = w.sample(guidance, steps=6, model=two, batch=1)
        assert (shared - one).abs().max() < 1e-5
        assert sum(there) >= 6  # the other branch of each step
    network = clone.model.diffusion_model
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules()) and "forward" not in vars(network)
    assert not two.get_additional_models_with_key(KEY)


def first_predictions(monkeypatch, sample) -> list:
    """What the first guided call of a run predicts, shifts included. Later ones are not compared: of fewer images at a time products round
    otherwise, and the demo answers 1e-7 with 1e-3 and more, here and there, after some steps."""
    found, shifted = [], Run.shifted
    with monkeypatch.context() as patch:
        patch.setattr(Run, "shifted", lambda *args: found.append(shifted(*args)) or found[-1])
        sample()
    return found[0]


def by_a_fitted_head(w):
    """Without ReLU, in which rounding passes no kink."""
    with torch.inference_mode(False):
        image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return [Spatial(name="depth", head=transformer_sampling.depth_head(w.model), image=image, start=0.0, end=0.9)]


@pytest.mark.parametrize("kind", [*GUIDANCE, "fitted"])
def test_two_cards_share_several_images(w, two, kind, monkeypatch):
    guidance = by_a_fitted_head(w) if kind == "fitted" else GUIDANCE[kind](w)
    one, shared = (first_predictions(monkeypatch, lambda model=model: w.sample(guidance, steps=20, model=model, batch=3)) for model in (w.model, two))
    limit = 1e-5 if kind in ("fitted", "drag", "appearance") else 1e-3  # of the demo's heads, whose gradients jump where a ReLU turns
    for a, b in zip(one, shared, strict=True):
        assert (a - b).abs().max() < limit * a.abs().max()


def test_of_one_image_the_other_branch_is_predicted_while_the_first_is_differentiated(w, two):
    """Each card makes one forward pass of a step, and the first goes back too."""
    clone, = two.get_additional_models_with_key("multigpu")
    with rows(two, clone) as (here, there):
        w.sample(w.pose(end_percent=0.9), steps=20, model=two, batch=1)
    assert here == [1] * 20 and there == [1] * 20


@pytest.mark.parametrize("batch, own, other", [(2, 1, 1), (5, 3, 2)])
def test_of_several_images_each_card_makes_its_share(w, two, batch, own, other):
    """Forward and back for the branch that is read, and forward for the other one."""
    clone, = two.get_additional_models_with_key("multigpu")
    with rows(two, clone) as (here, there):
        w.sample(w.pose(end_percent=0.9), steps=20, model=two, batch=batch)
    guided = [[own, own], [other, other]]
    assert here[:2] == guided[0] and there[:2] == guided[1] and sum(here[:18]) == 18 * own and sum(there[:18]) == 18 * other


def test_what_differs_from_image_to_image_stays_on_one_card(w, two):
    """Words of its own for each image: the second card predicts the other branch."""
    one = w.say("a figure in a red shirt, meadow")[0][0]
    both = [[torch.cat([one, w.say("a figure in a blue shirt, sea")[0][0]]), {}]]
    clone, = two.get_additional_models_with_key("multigpu")

    def sample(model):
        latent = {"samples": torch.zeros(2, 3, 64, 64)}
        return KSamplerReadoutGuidance.execute(model, 1, 20, 3.0, "euler", "karras", both, w.negative, latent, 1.0, w.pose(), 0.1).args[0]["samples"]

    with rows(two, clone) as (here, there):
        shared = sample(two)
    assert here[0] == 2 and there[0] == 2 and (shared - sample(w.model)).abs().max() < 1e-5


def test_blocks_are_computed_again_on_both(w, two, monkeypatch):
    guided = [ApplyReadoutGuidance.execute(model, by_a_fitted_head(w), 0.1, "on")[0] for model in (w.model, two)]
    one, shared = (first_predictions(monkeypatch, lambda model=model: w.sample(None, steps=20, model=model)) for model in guided)
    for a, b in zip(one, shared, strict=True):
        assert (a - b).abs().max() < 1e-5 * a.abs().max()


def test_the_split_stands_before_and_behind_the_guiding_node(w, two):
    one, _ = w.sample(w.pose(), steps=6, batch=1)
    settings = {"strength": 0.1, "recompute": "auto"}
    guided = ApplyReadoutGuidance.execute(w.model, w.pose(), **settings)[0]
    guided.load_device = FIRST
    behind = multigpu.create_multigpu_deepclones(guided, 2)
    for model in (ApplyReadoutGuidance.execute(two, w.pose(), **settings)[0], behind):
        assert (w.sample(None, steps=6, model=model, batch=1)[0] - one).abs().max() < 1e-5


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
    rest = (1, 2, 3.0, 1.0, True, w.positive, w.negative, {"samples": torch.zeros(1, 3, 64, 64)}, 0.02, w.pose(end_percent=0.9))
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


@pytest.mark.parametrize("batch", [1, 2])
def test_an_interrupt_on_the_second_card_ends_the_run(w, two, batch):
    clone, = two.get_additional_models_with_key("multigpu")

    def interrupted(*_):
        raise comfy.model_management.InterruptProcessingException

    hook = clone.model.diffusion_model.register_forward_hook(interrupted)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        w.sample(w.pose(), steps=6, model=two, batch=batch)
    hook.remove()
    assert w.sample(w.pose(), steps=6, model=two, batch=batch)[0].isfinite().all()
