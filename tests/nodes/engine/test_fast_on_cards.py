"""What is made for cards that wait for Python, and off on CPUs: branches asked together, and captured calls."""
import comfy.model_management
import comfy_extras.nodes_freelunch
import pytest
import torch

import tiny_transformers
import transformer_sampling
from demo_world import World
from readout_guidance_pack.nodes.engine import captured, guided, joint, memory
from readout_guidance_pack.nodes.engine.run import Run
from readout_guidance_pack.rg_core.guidance.targets import Spatial
from readout_guidance_pack.rg_core.guidance.updates import Move

pytestmark = pytest.mark.usefixtures("inference_mode")

TRANSFORMERS = ["flux", "sd3", "z-image", "chroma"]


@pytest.fixture(scope="module")
def demo_world():
    with torch.inference_mode():
        yield World()


@pytest.fixture
def together(monkeypatch):
    monkeypatch.setattr(joint, "MOST_PIXELS", {"cpu": 10**6})
    monkeypatch.setattr(memory, "is_short", lambda *_: False)  # whatever else runs here


@pytest.fixture
def replays(monkeypatch):
    """Captured graphs, by what they stand for: CUDA graphs need a card. As there, inputs are copied to where the first ones lay, and what the
    first call was told beside tensors stays as it was. A number for each shape that is captured: how often it was replayed."""
    counts: list[int] = []

    def make_graphed_callables(run, static, num_warmup_iters):
        counts.append(0)
        place, outs = len(counts) - 1, []

        class Graphed(torch.autograd.Function):
            @staticmethod
            def forward(_ctx, *inputs):
                for kept, given in zip(static, inputs, strict=True):
                    kept.copy_(given)
                with torch.enable_grad():
                    outs[:] = run(*static)
                counts[place] += 1
                return tuple(out.detach() for out in outs)

            @staticmethod
            def backward(_ctx, *gradients):
                pulled = [(out, g) for out, g in zip(outs, gradients, strict=True) if out.requires_grad]
                found = iter(torch.autograd.grad([out for out, _ in pulled], [x for x in static if x.requires_grad], [g for _, g in pulled]))
                return tuple(next(found) if x.requires_grad else None for x in static)

        return Graphed.apply

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    monkeypatch.setattr(captured, "ENABLED", True)
    monkeypatch.setattr(captured, "DEVICES", {"cpu"})
    return counts


def calls(network):
    """Counts the rows of each call of `network`; taken off with it."""
    found = []
    hook = network.register_forward_hook(lambda _module, args, _out: found.append(len(args[0])))
    return found, hook


def depth_target(model):
    """By a head without ReLU, in which rounding passes no kink: with the demo's own heads a push of 6e-8 is seen to change a gradient by 4e-4."""
    with torch.inference_mode(False):
        image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return Spatial(name="depth", head=transformer_sampling.depth_head(model), image=image, start=0.0, end=1.0)


@pytest.fixture
def predictions(monkeypatch):
    """What each guided call predicts for its branches, shifts included."""
    found, shifted = [], Run.shifted

    def listen(self, step, branches, outs, shift):
        found.append(shifted(self, step, branches, outs, shift))
        return found[-1]

    monkeypatch.setattr(Run, "shifted", listen)
    return found


@pytest.mark.parametrize("more", [{"steps": 20}, {"sampler": "lcm", "moves": 3}, {"size": (48, 80), "batch": 3, "steps": 20}])
def test_branches_asked_together_give_what_branches_asked_apart_give(demo_world, more, predictions, monkeypatch):
    network, target = demo_world.model.model.diffusion_model, [depth_target(demo_world.model)]
    demo_world.sample(target, **more)
    apart = predictions[0]
    predictions.clear()
    monkeypatch.setattr(joint, "MOST_PIXELS", {"cpu": 10**6})
    monkeypatch.setattr(memory, "is_short", lambda *_: False)  # whatever else runs here
    asked, hook = calls(network)
    demo_world.sample(target, **more)
    hook.remove()
    for one, other in zip(predictions[0], apart, strict=True):
        assert (one - other).abs().max() < 1e-5 * other.abs().max()
    batch, moves = more.get("batch", 2), more.get("moves", 1)
    assert asked[:moves] == [batch] * (moves - 1) + [2 * batch]  # moves before the last one are of one branch


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_branches_of_transformers_too(name, predictions, monkeypatch):
    model = tiny_transformers.tiny_model(name)
    guided_model = guided("test", model, [depth_target(model)], Move())
    transformer_sampling.sampled(guided_model, name, steps=20)
    apart = predictions[0]
    predictions.clear()
    monkeypatch.setattr(joint, "MOST_PIXELS", {"cpu": 10**6})
    monkeypatch.setattr(memory, "is_short", lambda *_: False)  # whatever else runs here
    asked, hook = calls(model.model.diffusion_model)
    transformer_sampling.sampled(guided_model, name, steps=20)
    hook.remove()
    assert asked[0] == 4
    for one, other in zip(predictions[0], apart, strict=True):
        assert (one - other).abs().max() < 1e-5 * other.abs().max()


def test_one_branch_alone_is_asked_as_ever(demo_world, monkeypatch):
    apart, _ = demo_world.sample(demo_world.pose(), cfg=1.0)
    monkeypatch.setattr(joint, "MOST_PIXELS", {"cpu": 10**6})
    assert torch.equal(demo_world.sample(demo_world.pose(), cfg=1.0)[0], apart)


@pytest.mark.parametrize("pixels, short", [(2 * 64 * 64 - 1, False), (10**6, True)])
def test_where_there_is_no_room_branches_are_asked_apart(demo_world, pixels, short, monkeypatch):
    """With little memory their blocks are computed again, as they are without; more pixels than the table has were found to be slower."""
    monkeypatch.setattr(memory, "is_short", lambda *_: short)
    apart, _ = demo_world.sample(demo_world.pose())
    monkeypatch.setattr(joint, "MOST_PIXELS", {"cpu": pixels})
    assert torch.equal(demo_world.sample(demo_world.pose())[0], apart)


@pytest.mark.parametrize("more", [{}, {"sampler": "lcm", "moves": 3}, {"cfg": 1.0}])
def test_replayed_steps_give_the_image_of_steps_made_one_by_one(demo_world, more, replays, monkeypatch):
    at_once, _ = demo_world.sample(demo_world.pose(), steps=6, **more)
    assert replays and max(replays) >= 2
    monkeypatch.setattr(captured, "ENABLED", False)
    assert (at_once - demo_world.sample(demo_world.pose(), steps=6, **more)[0]).abs().max() < 1e-6
    assert "forward" not in vars(demo_world.model.model.diffusion_model)


def test_branches_asked_together_are_replayed_too(demo_world, together, replays, monkeypatch):
    at_once, _ = demo_world.sample(demo_world.pose(), steps=6)
    assert len(replays) == 2 and min(replays) >= 2  # of moves before the last one, and of this one
    monkeypatch.setattr(captured, "ENABLED", False)
    assert (at_once - demo_world.sample(demo_world.pose(), steps=6)[0]).abs().max() < 1e-6


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_are_replayed(name, replays, monkeypatch):
    model = tiny_transformers.tiny_model(name)
    guided_model = guided("test", model, [depth_target(model)], Move())
    at_once = transformer_sampling.sampled(guided_model, name, steps=5)
    assert sum(replays) >= 2
    monkeypatch.setattr(captured, "ENABLED", False)
    assert (at_once - transformer_sampling.sampled(guided_model, name, steps=5)).abs().max() < 1e-6


def test_what_others_hang_on_the_model_is_not_replayed(demo_world, replays):
    """Patches may do something else in each step."""
    patched, = comfy_extras.nodes_freelunch.FreeU_V2.execute(demo_world.model, 1.3, 1.4, 0.9, 0.2).args
    demo_world.sample(demo_world.pose(), steps=6, model=patched)
    assert not replays


def test_weights_that_moved_are_not_replayed_where_they_lay(demo_world, replays, monkeypatch):
    """As when the host patches them anew between two steps."""
    network, steps = demo_world.model.model.diffusion_model, []
    layer = network.input_blocks[0][0]
    own = layer.weight

    def moved(_module, _args):
        steps.append(None)
        if len(steps) == 8:
            layer.weight = torch.nn.Parameter(own.data * 1.5, False)

    def sample():
        steps.clear()
        hook = layer.register_forward_pre_hook(moved)
        try:
            return demo_world.sample(demo_world.pose(end_percent=0.9), steps=12)[0]
        finally:
            hook.remove()
            layer.weight = own

    at_once = sample()
    assert len(replays) == 2
    monkeypatch.setattr(captured, "ENABLED", False)
    assert (at_once - sample()).abs().max() < 1e-6


def test_an_interrupt_leaves_the_model_as_it_was(demo_world, replays, monkeypatch):
    demo_world.sample(demo_world.pose(), steps=6)
    before = len(replays)

    def interrupted(_module, _args):
        if len(replays) > before:
            raise comfy.model_management.InterruptProcessingException

    hook = demo_world.model.model.diffusion_model.input_blocks[0][0].register_forward_pre_hook(interrupted)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        demo_world.sample(demo_world.pose(), steps=6)
    hook.remove()
    assert "forward" not in vars(demo_world.model.model.diffusion_model)
