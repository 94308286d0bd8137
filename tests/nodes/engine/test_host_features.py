"""What a MODEL or its conditioning can carry, under guidance: docs/measurements/host_features.md is the table of this file.

A small UNet of Stable Diffusion 1.5's layout with random weights; each feature is the host's own. In every case the
guided run must be finite and the same again, differ from the unguided one with that feature (the gradient reached the
latent) and from the guided one without it (the feature still acts), and leave the model as it was.
"""
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import comfy.hooks
import comfy.model_patcher
import comfy.ops
import nodes as host_nodes
import pytest
import torch
from comfy.ldm.modules.diffusionmodules import openaimodel
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras import nodes_model_downscale

from host_features import FEATURES, SIZE, Graph, left_mask, lora, lora_hook, make_head, patched
from kept import checked, close
from random_models import quantized_model, random_model
from readout_guidance_pack.nodes.engine import Trace, guided, step
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.rg_core.guidance.targets import Appearance
from readout_guidance_pack.rg_core.guidance.updates import PUBLISHED, Move

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.fixture(scope="module")
def plain():
    """Guided and unguided, with no feature."""
    with torch.inference_mode():
        graph = Graph()
        return SimpleNamespace(guided=graph.run(), unguided=graph.run(False))


@pytest.mark.parametrize("feature", FEATURES)
def test_feature_and_guidance_keep_each_other(plain, feature, caplog):
    graph = Graph()
    FEATURES[feature](graph)
    assert not torch.equal(checked(graph), plain.guided)
    assert "could not be applied" not in caplog.text  # which the host says of ControlNets that it leaves out


@pytest.mark.parametrize("feature", ["ControlNet", "ControlNet and T2I-Adapter"])
def test_hints_that_the_host_adds_in_place_are_differentiated_right(feature, monkeypatch):
    """As if they were added out of place, with nothing overwritten."""
    graph = Graph()
    FEATURES[feature](graph)
    got = graph.run()

    def added(h, control, name):
        hint = control[name].pop() if control and control.get(name) else None
        return h if hint is None else h + hint

    monkeypatch.setattr(openaimodel, "apply_control", added)
    monkeypatch.setattr(step, "saved_tensor_context", lambda *_: nullcontext)
    assert close(got, graph.run())


def test_conditionings_that_share_the_image_are_one(plain):
    """The same words in two parts, as masks or as areas, are the same words once."""
    graph = Graph()
    graph.positive = [part for mask in (left_mask(), 1 - left_mask())
                      for part in host_nodes.ConditioningSetMask().append(graph.positive, mask, "default", 1.0)[0]]
    assert close(checked(graph), plain.guided)
    graph = Graph()
    graph.positive = [part for _ in range(2) for part in host_nodes.ConditioningSetArea().append(graph.positive, SIZE[1] * 8, SIZE[0] * 8,
                                                                                                0, 0, 0.5)[0]]
    assert close(checked(graph), plain.guided)


@pytest.mark.parametrize("factor", [1.3, 1.5, 2.0, 2.5, 3.0])
def test_conditionings_that_share_an_image_under_deep_shrink_are_one(factor):
    """Whatever the maps of features are shrunk by."""
    one, two = Graph(), Graph()
    for graph in (one, two):
        patched(nodes_model_downscale.PatchModelAddDownscale.execute, 3, factor, 0.0, 1.0, True, "bicubic", "bicubic")(graph)
        graph.sigmas, graph.move = torch.tensor([14.0, 5.0]), Move(0.3, moves=1)
    two.positive = [part for _ in range(2) for part in host_nodes.ConditioningSetArea().append(two.positive, SIZE[1] * 8, SIZE[0] * 8, 0, 0, 0.5)[0]]
    moves = [(graph.run() - graph.run(False)).flatten() for graph in (one, two)]
    assert torch.cosine_similarity(*moves, dim=0) > 0.999


def test_hooked_conditionings_of_one_lora_are_one():
    """Two groups of hooks with the same LoRA, each on a part of the image: weights change between forward and backward."""
    one, two = Graph(), Graph()
    one.positive = comfy.hooks.set_hooks_for_conditioning(one.positive, lora_hook())
    two.positive = [part for mask in (left_mask(), 1 - left_mask()) for part in host_nodes.ConditioningSetMask().append(
        comfy.hooks.set_hooks_for_conditioning(two.positive, lora_hook()), mask, "default", 1.0)[0]]
    assert close(checked(two), checked(one))


@pytest.mark.parametrize("dtype,cast", [(torch.bfloat16, None), (torch.float16, None), (torch.float8_e4m3fn, torch.float32)],
                         ids=["bf16", "fp16", "fp8 weights"])
def test_narrow_types(dtype, cast):
    graph = Graph(random_model("small", dtype, cast))
    checked(graph)
    wide, moves = random_model("small"), []
    for weight in wide.model.diffusion_model.parameters():
        weight.data = weight.to(dtype).float()
    for model in (graph.model, wide):
        graph.model, graph.sigmas, graph.move = model, torch.tensor([14.0, 5.0]), Move(0.3, moves=1)  # far beyond what rounding does
        moves.append((graph.run() - graph.run(False)).flatten())
    assert torch.cosine_similarity(*moves, dim=0) > 0.9  # the same weights move it the same way (0.94 in bf16)


@pytest.fixture
def partly(monkeypatch):
    """Models are not loaded whole."""
    load = comfy.model_patcher.ModelPatcher.load

    def load_a_part(self, device_to=None, lowvram_model_memory=0, *args, **kwargs):
        return load(self, device_to, 2**20, *args, **kwargs | {"full_load": False})

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "load", load_a_part)


def test_a_partly_loaded_model(request):
    loaded, part = Graph(), Graph()
    lora(loaded)
    lora(part)
    expected = checked(loaded)
    request.getfixturevalue("partly")
    got = checked(part)
    assert part.model.model.model_lowvram and close(got, expected)


def test_weights_that_come_through_a_buffer(plain, partly, monkeypatch):
    """As with most GPUs, where the rest of a partly loaded model shares two buffers on its way; no CPU does so, so this stands in
    for the host's cast_bias_weight with an offload stream."""
    cast = comfy.ops.cast_bias_weight
    with torch.inference_mode(False):
        buffers = [torch.empty(2**20) for _ in range(2)]

    def through_a_buffer(layer, input=None, *args, offloadable=False, **kwargs):
        if not (offloadable and layer.comfy_cast_weights):
            return cast(layer, input, *args, offloadable=offloadable, **kwargs)
        buffers.reverse()
        room, parts = buffers[0], []
        for tensor in (layer.weight, layer.bias):
            parts.append(None if tensor is None else room[:tensor.numel()].view(tensor.shape).copy_(tensor))
            room = room if tensor is None else room[tensor.numel():]
        return *parts, (None, *parts)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", through_a_buffer)
    graph = Graph()
    assert close(checked(graph), plain.guided)
    assert graph.model.model.model_lowvram


@pytest.mark.parametrize("more", [[], ["ControlNet"]], ids=["alone", "ControlNet"])
def test_a_quantized_model(more):
    graph, whole = Graph(quantized_model("small")), Graph()
    for feature in more:
        FEATURES[feature](graph)
        FEATURES[feature](whole)
    moves = []
    checked(graph)
    for one in (graph, whole):
        one.sigmas = torch.tensor([14.0, 5.0])
        moves.append((one.run() - one.run(False)).flatten())
    assert torch.cosine_similarity(*moves, dim=0) > 0.9


def test_weights_that_another_pack_has_packed(plain):
    """As ComfyUI-GGUF does, which is not among the host's nodes: its kind of tensor holds bytes, and its layer unpacks them."""
    class Bytes(torch.Tensor):
        pass

    graph = Graph()
    layer = graph.model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn1.to_q
    shape = layer.weight.shape
    layer.weight = torch.nn.Parameter(layer.weight.data.view(torch.uint8).as_subclass(Bytes), False)

    def forward(x):
        assert type(layer.weight) is Bytes
        return torch.nn.functional.linear(x, layer.weight.as_subclass(torch.Tensor).view(torch.float32).view(shape))

    layer.forward = forward
    assert close(checked(graph), plain.guided)


def test_patches_can_tell_the_branches_apart():
    """By cond_or_uncond, as self-attention guidance and packs for image prompts do."""
    graph, seen = Graph(), []

    def patch(n, context, value, options):
        labels = options["cond_or_uncond"]
        seen.extend((label, round(part.sum().item(), 3)) for label, part in zip(labels, context.chunk(len(labels))))
        return n, context, value

    graph.model = graph.model.clone()
    graph.model.set_model_attn2_patch(patch)
    graph.run(False)
    plain, seen[:] = set(seen), []
    graph.run()
    assert set(seen) == plain and {label for label, _ in plain} == {0, 1}


def test_self_attention_guidance_from_the_first_step_on(plain):
    graph = Graph()
    FEATURES["self-attention guidance"](graph)
    guided = graph.run()  # before any unguided run has left something for it
    assert torch.isfinite(guided).all() and not torch.equal(guided, plain.guided)


def test_a_guided_model_can_be_guided_again(plain):
    """Targets of both act together, as if they had been chained, each with its own strength."""
    graph, trace = Graph(), Trace()
    target = graph.target
    other = replace(target, name="other", image=1 - target.image)

    def sampled(model):
        graph.model = model
        return graph.run(False)

    model = graph.model
    once = guided("first", model, (target,), Move(0.2))
    twice = sampled(guided("second", once, (other,), Move(0.1), trace))
    assert {row["target"] for row in trace.rows} == {"pose", "other"}
    chained = sampled(guided("both", model, (replace(target, weight=2.0), other), Move(0.1)))
    assert torch.equal(twice, chained)
    assert torch.equal(sampled(guided("off", once, (other,), Move(0.0))), sampled(once))
    with pytest.raises(ValueError, match="third: the model is already guided, with other settings.*from before first"):
        guided("third", once, (other,), PUBLISHED)


def test_torch_compile():
    """Plain steps run compiled; a guided step differentiates the model itself, which the compiled copy shares its weights with."""
    graph = Graph()
    eager = checked(graph)
    compiled = []

    def backend(module, inputs):
        compiled.append(module)
        return module.forward

    graph.model = graph.model.clone()
    set_torch_compile_wrapper(graph.model, backend=backend)
    assert close(checked(graph), eager) and compiled


def test_inpainting_models():
    graph = Graph(random_model("small", in_channels=9))
    mask = left_mask()[None].repeat_interleave(8, -1).repeat_interleave(8, -2)[0]
    results = []
    for seed in (9, 10):
        more = {"concat_latent_image": torch.randn(1, 4, *SIZE, generator=torch.Generator().manual_seed(seed)), "concat_mask": mask[None]}
        graph.positive, graph.negative = ([[c, d | more] for c, d in said] for said in (graph.positive, graph.negative))
        results.append(checked(graph))
    assert not torch.equal(*results)


def test_an_inpainting_model_with_a_reference_of_plain_words():
    graph = Graph(random_model("small", in_channels=9))
    graph.model.model.set_inpaint()
    reference = ReadoutReference.execute(graph.model, graph.positive, {"samples": graph.image()}, 5, 64)[0]
    graph.latent = {"samples": graph.image(), "noise_mask": left_mask()[None]}
    graph.target = Appearance(name="appearance", head=make_head("small", "appearance"), reference=reference, end=0.9)
    checked(graph)


def test_stable_diffusion_2():
    checked(Graph(name="small sd2"))


def test_nan_is_explained():
    graph = Graph()
    graph.model.model.diffusion_model.input_blocks[0][0].weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="test: the model gave NaN or infinite values at sigma .* in torch.float32.*--fp32-unet"):
        graph.run()


def test_a_head_of_another_family_with_the_same_taps_is_refused():
    graph = Graph()
    graph.target.head.base_model = "stabilityai/stable-diffusion-2-1"
    with pytest.raises(ValueError, match="test: the pose head was trained on stabilityai/stable-diffusion-2-1, but this model is from "
                                         "another family .SD15.*Load a head"):
        graph.run()
