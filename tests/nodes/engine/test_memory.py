"""A guided run in the host's memory management: blocks computed again, heads that the host loads, what it is told, and what
happens where memory is out."""
import gc
import weakref

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from host_features import FEATURES, Graph, make_head
from random_models import random_model
from readout_guidance_pack.nodes.engine import memory, step
from readout_guidance_pack.nodes.engine.autograd import saved_tensors
from readout_guidance_pack.nodes.engine.autograd.inference_tensors import Weights
from readout_guidance_pack.nodes.engine.run import Run

pytestmark = pytest.mark.usefixtures("inference_mode")

GIGABYTES = [pytest.param(name, marks=pytest.mark.slow) for name in ("sd15", "sdxl")]


def same_move(graph) -> bool:
    """Whether one guided step moves the image where it does without computing blocks again."""
    graph.sigmas, moved = torch.tensor([14.0, 5.0]), []
    for graph.recompute in ("off", "on"):
        moved.append(graph.run())
    unguided = graph.run(False)
    return ((moved[0] - moved[1]).norm() / (moved[0] - unguided).norm()).item() < 1e-6


@pytest.mark.parametrize("feature", ["none", "LoRA", "LoRA in bypass mode", "ControlNet", "ControlNet and T2I-Adapter", "GLIGEN boxes",
                                     "a patch of another pack", "areas side by side", "a small area", "masked conditionings",
                                     "two LoRA hooks, masked", "token merging", "perturbed attention", "FreeU", "two pictures"])
def test_blocks_computed_again_give_the_same_move(feature):
    graph = Graph()
    FEATURES.get(feature, lambda graph: None)(graph)
    unet = graph.model.model.diffusion_model
    calls = []
    hook = unet.input_blocks[1][1].transformer_blocks[0].norm1.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    try:
        assert same_move(graph)
    finally:
        hook.remove()
    assert set(calls) == {False, True}  # it was computed without a graph, and again with one
    assert all("forward" not in module.__dict__ for module in step.taps.blocks(unet))


@pytest.mark.parametrize("name", GIGABYTES)
def test_the_same_at_full_size(name):
    assert same_move(Graph(name=name))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16], ids=["fp8 weights", "bf16 weights"])
def test_the_same_with_weights_that_are_cast(dtype):
    assert same_move(Graph(random_model("small", dtype, torch.float32)))


def test_the_same_with_a_partly_loaded_model(monkeypatch):
    load = comfy.model_patcher.ModelPatcher.load

    def load_a_part(self, device_to=None, lowvram_model_memory=0, *args, **kwargs):
        return load(self, device_to, 2**20, *args, **kwargs | {"full_load": False})

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "load", load_a_part)
    graph = Graph()
    FEATURES["LoRA"](graph)
    assert same_move(graph) and graph.model.model.model_lowvram


class Streaming(comfy.model_patcher.ModelPatcher):
    """Stands in for the host's dynamic VRAM, which needs a GPU."""

    def is_dynamic(self):
        return True


@pytest.fixture
def streaming(monkeypatch):
    """Weights are brought for each operation, in tensors of inference mode whose memory is taken back after it."""
    def bring(layer, _input=None, *args, offloadable=False, **kwargs):
        with torch.inference_mode():
            weights = [None if w is None else w.clone() for w in (layer.weight, layer.bias)]
        return (*weights, None) if offloadable else tuple(weights)

    def take_back(_layer, *weights):
        with torch.inference_mode():
            for weight in weights:
                if weight is not None:
                    weight.fill_(float("nan"))

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", bring)
    monkeypatch.setattr(comfy.ops, "uncast_bias_weight", take_back)


def streamed(graph):
    model = graph.model
    graph.model = Streaming(model.model, model.load_device, model.offload_device)
    for layer in model.model.modules():
        if hasattr(layer, "comfy_cast_weights"):
            layer.comfy_cast_weights = True


@pytest.mark.parametrize("recompute", ["off", "on"])
def test_streamed_weights(streaming, recompute):
    """As if they were there all the time, and without a second copy of the model."""
    there, gone = Graph(), Graph()
    streamed(gone)
    there.recompute = gone.recompute = recompute
    there.sigmas = gone.sigmas = torch.tensor([14.0, 5.0])
    expected = there.run()
    # Copies of weights lie elsewhere in memory, and kernels round accordingly (1.5e-6).
    assert ((gone.run() - expected).norm() / (expected - there.run(False)).norm()).item() < 1e-5
    weights = sum(w.nbytes for w in gone.model.model.diffusion_model.parameters())
    assert (most_kept(gone, recompute) < 0.6 * weights) == (recompute == "on")


def test_what_the_host_notes_on_weights_is_there_in_a_guided_step(monkeypatch):
    """By which dynamic VRAM knows the type, and so the size, that a weight is brought in."""
    graph, seen = Graph(), set()
    for module in graph.model.model.diffusion_model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = torch.nn.Parameter(weight.clone(), requires_grad=False)  # in inference mode, as loaded
                module._parameters[name]._model_dtype = torch.float32
    forward = comfy.ops.disable_weight_init.Linear.forward

    def listen(self, *args, **kwargs):
        seen.add((torch.is_grad_enabled(), getattr(self.weight, "_model_dtype", None)))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(comfy.ops.disable_weight_init.Linear, "forward", listen)
    graph.run()
    assert (True, torch.float32) in seen and all(noted is torch.float32 for _, noted in seen)


def test_a_head_that_nobody_has_any_more_is_gone_at_once():
    """Not when Python comes to look for what holds itself, which may be while the host goes through its list of models."""
    model, head = random_model("small"), make_head("small")
    loaded = comfy.model_management.current_loaded_models
    comfy.model_management.load_models_gpu([memory.head_patcher(head, model)])
    assert sum(m.model is memory.head_patcher(head, model) for m in loaded) == 1
    before, gone = len(loaded), weakref.ref(head)
    gc.disable()
    try:
        del head
        assert gone() is None and len(loaded) == before - 1
    finally:
        gc.enable()


class Kept:
    """A tensor that is kept for the backward pass, as long as it is; counts the bytes of all that are kept at the same time."""
    now = most = 0

    def __init__(self, x: torch.Tensor):
        self.x, self.size = x, x.nbytes
        Kept.now += self.size
        Kept.most = max(Kept.most, Kept.now)

    def __del__(self):
        Kept.now -= self.size


def most_kept(graph, recompute: str) -> int:
    """Bytes that one guided step keeps for its backward pass at most."""
    graph.sigmas, graph.recompute, Kept.most = torch.tensor([14.0, 5.0]), recompute, 0
    graph.run()  # a model's first guided step is looked at, by hooks of its own

    def counting(pack, unpack):
        return saved_tensors_hooks(lambda x: Kept(pack(x)), lambda kept: unpack(kept.x))

    with pytest.MonkeyPatch.context() as patch, counting(lambda x: x, lambda x: x):
        patch.setattr(saved_tensors, "saved_tensors_hooks", counting)  # which take the place of those around them
        graph.run()
    assert Kept.now == 0
    return Kept.most


def test_blocks_computed_again_keep_less():
    graph = Graph()
    assert most_kept(graph, "on") < 0.6 * most_kept(graph, "off")


def test_heads_are_models_that_the_host_has_loaded():
    graph = Graph()
    graph.run()
    loaded = [model.model for model in comfy.model_management.current_loaded_models if model.model is not None]
    assert memory.head_patcher(graph.target.head, graph.model) in loaded and graph.model.model in [patcher.model for patcher in loaded]


def test_heads_may_be_loaded_in_inference_mode():
    """As the host does it where they go to another device."""
    graph, other = Graph(), Graph()
    other.target.head.load_state_dict({name: weight.clone() for name, weight in graph.target.head.state_dict().items()}, assign=True)
    before = list(other.target.head.parameters())
    assert all(weight.is_inference() for weight in before)
    assert torch.equal(other.run(), graph.run())
    assert all(a is b for a, b in zip(before, other.target.head.parameters()))


def test_the_host_is_told_what_a_guided_step_needs(monkeypatch):
    told, load = [], comfy.model_management.load_models_gpu

    def listen(models, memory_required=0, minimum_memory_required=None, **kwargs):
        told.append((memory_required, minimum_memory_required))
        return load(models, memory_required=memory_required, minimum_memory_required=minimum_memory_required, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", listen)
    graph = Graph()
    graph.run(False)
    for graph.recompute in ("off", "on"):
        graph.run()
    need = [memory.guided_step_bytes(graph.model.model, (1, 4, 16, 24), [], [graph.target.head], again) for again in (False, True)]
    plain, off, on = told
    assert [b - a for a, b in zip(plain, off)] == pytest.approx([need[0]] * 2)
    assert [b - a for a, b in zip(plain, on)] == pytest.approx([need[1]] * 2)
    assert need[0] > need[1] > 0


def test_where_memory_is_short_blocks_are_computed_again(monkeypatch):
    chosen, gradient = [], step.Step.gradient

    def listen(self, *args):
        chosen.append(args[3])
        return gradient(self, *args)

    monkeypatch.setattr(step.Step, "gradient", listen)
    graph = Graph()
    graph.recompute = "auto"
    for free, wanted in ((2**40, False), (2**20, True)):
        monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda _, torch_free_too=False: (free, free) if torch_free_too else free)
        graph.run()
        assert set(chosen) == {wanted}
        chosen.clear()


def failing(times: int):
    """A Step.gradient that is out of memory so often."""
    gradient, calls = step.Step.gradient, []

    def fail(self, *args):
        calls.append(args[3])
        result = gradient(self, *args)
        if len(calls) <= times:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return result

    return fail, calls


def test_out_of_memory_is_tried_once_more(monkeypatch):
    graph = Graph()
    graph.recompute = "on"
    spared, graph.recompute = graph.run(), "off"
    fail, calls = failing(1)
    monkeypatch.setattr(step.Step, "gradient", fail)
    assert torch.equal(graph.run(), spared)
    assert calls[:2] == [False, True] and all(calls[1:])  # and no more without


def test_out_of_memory_twice_is_explained(monkeypatch):
    graph = Graph()
    guided, plain = graph.run(), graph.run(False)
    fail, calls = failing(2)
    with monkeypatch.context() as patch:
        patch.setattr(step.Step, "gradient", fail)
        with pytest.raises(torch.OutOfMemoryError, match="test: out of memory in a guided step for 1 latents of 24x16.*Make fewer"):
            graph.run()
    assert calls == [False, True]
    assert torch.equal(graph.run(), guided) and torch.equal(graph.run(False), plain)


def test_estimates_heads_are_loaded_by_the_host_too():
    head, model = make_head("small"), Graph().model
    assert memory.head_patcher(head, model) is memory.head_patcher(head, model)
    assert all(x is y for x, y in zip(memory.head_patcher(head, model).model.parameters(), head.parameters(), strict=True))
    elsewhere = model.clone()
    elsewhere.load_device = torch.device("meta")
    assert memory.head_patcher(head, elsewhere).load_device == torch.device("meta")


def test_plain_weights_are_kept_where_the_host_leaves_its_own():
    """And made anew where it put another weight, or moved one; of streamed weights none is kept."""
    net = torch.nn.Linear(4, 4)
    net.requires_grad_(False)
    with torch.inference_mode():
        net.weight, net.bias = (torch.nn.Parameter(x.clone(), False) for x in (net.weight, net.bias))
    weights = Weights()

    def plain(keep=True):
        with weights.differentiable(net, keep=keep):
            return net.weight, net.bias

    first = plain()
    assert all(x is y for x, y in zip(first, plain())) and first[0].data_ptr() == net.weight.data_ptr() and not first[0].is_inference()
    with torch.inference_mode():
        net.weight.data = net.weight.data * 2  # moved
        net.bias = torch.nn.Parameter(net.bias + 1, False)  # another one
    second = plain()
    assert not any(x is y for x, y in zip(first, second)) and torch.equal(second[0], net.weight) and torch.equal(second[1], net.bias)
    assert len(weights.plain) == 2  # what was there before is let go
    weights.plain.clear()
    plain(keep=False)
    assert not weights.plain


@pytest.mark.parametrize("fails", [False, True])
def test_a_runs_end_lets_go_of_the_weights_memory(monkeypatch, fails):
    """Also where something still holds the run: the host gives the memory of a model that it unloads to the next one."""
    graph, runs = Graph(random_model("small")), []
    own = Run.predict_noise

    def listen(self, *args, **kwargs):
        runs.append(self)
        out = own(self, *args, **kwargs)
        assert self.known.weights.plain
        if fails:
            raise comfy.model_management.InterruptProcessingException
        return out

    monkeypatch.setattr(Run, "predict_noise", listen)
    try:
        graph.run()
    except comfy.model_management.InterruptProcessingException:
        assert fails
    assert runs and not any(run.known.weights.plain or run.shifter.weights.plain for run in runs)
