"""What guided steps compute has a backward pass: attention, whatever newer hosts hand it and whichever a checkpoint or another node prefers, and the
kernels of comfy-kitchen."""
from types import SimpleNamespace

import comfy.model_management
import comfy_kitchen
import pytest
import torch
from comfy.ldm.modules import attention
from comfy.ldm.wan import model as caller
from comfy.model_patcher import ModelPatcher

from host_features import Graph
from readout_guidance_pack.nodes.engine.autograd.kernels import differentiable_kernels
from readout_guidance_pack.nodes.engine.autograd.options import shared_options

HEADS = 2


def qkv() -> list[torch.Tensor]:
    return [torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(seed)).requires_grad_() for seed in range(3)]


def kernel(q, k, v, *args, **kwargs) -> torch.Tensor:
    """One without a backward pass, that says something else."""
    return torch.zeros_like(q)


def expect_right(out: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    """As computed here, with the gradients of that."""
    q, k, v = (x.detach().requires_grad_() for x in inputs)
    split = [x.view(1, 6, HEADS, 4).transpose(1, 2) for x in (q, k, v)]
    weights = (split[0] @ split[1].mT / 2).softmax(-1)
    wanted = (weights @ split[2]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(out, wanted)
    along = torch.linspace(-1, 1, out.numel()).view_as(out)
    torch.testing.assert_close(torch.autograd.grad(out, inputs, along), torch.autograd.grad(wanted, (q, k, v), along))


@pytest.mark.parametrize("overridden", [False, True])
def test_the_attention_that_a_checkpoint_names_for_a_layer_rests(overridden):
    inputs = qkv()
    options = shared_options({"transformer_options": {}})["transformer_options"] if overridden else {}
    with differentiable_kernels():
        out = caller.optimized_attention(*inputs, HEADS, preferred_attention=SimpleNamespace(function=kernel), transformer_options=options)
    expect_right(out, inputs)


@pytest.mark.skipif(not hasattr(attention, "AttentionTensorContainer"), reason="ComfyUI 0.33 on")
@pytest.mark.parametrize("overridden", [False, True])
def test_containers_are_taken_out_of_once(overridden):
    inputs = qkv()
    options = {"transformer_options": {"optimized_attention_override": SimpleNamespace(container_function=kernel)}}
    options = shared_options(options)["transformer_options"] if overridden else {}
    containers = [attention.AttentionTensorContainer(x) for x in inputs]
    with differentiable_kernels():
        out = caller.optimized_attention(*containers, HEADS, transformer_options=options)
    expect_right(out, inputs)
    assert all(container.tensor is None for container in containers)


@pytest.mark.skipif(not hasattr(ModelPatcher, "set_model_optimized_attention"), reason="ComfyUI 0.33 on")
def test_attention_that_a_node_sets_rests_in_guided_steps_and_acts_in_the_others():
    with torch.inference_mode():
        graph = Graph()
        plain, guided = graph.run(False), graph.run()
        graph.model.set_model_optimized_attention(lambda q, k, v, heads, **_: attention.attention_pytorch(q, k, v, heads) * 0.5)
        assert not torch.equal(graph.run(False), plain)
        changed = graph.run()
    assert torch.isfinite(changed).all() and not torch.equal(changed, guided)


@pytest.mark.parametrize("name", ["adaln", "rms_adaln"])
def test_norms_of_comfy_kitchen(name):
    x, scale, shift = (torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    centred = x - x.mean(-1, keepdim=True) if name == "adaln" else x
    wanted = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift
    with differentiable_kernels():
        out = getattr(comfy_kitchen, name)(x.float().requires_grad_(), scale.float(), shift.float())
        torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-5)
        assert torch.autograd.gradcheck(lambda x: getattr(comfy_kitchen, name)(x, scale, shift), x.requires_grad_())


def test_the_hosts_mark_of_training_is_set_and_put_back_also_after_an_error():
    if not hasattr(comfy.model_management, "in_training"):
        pytest.skip("ComfyUI 0.30 on")
    with pytest.raises(ZeroDivisionError), differentiable_kernels():
        assert comfy.model_management.in_training is True
        raise ZeroDivisionError
    assert comfy.model_management.in_training is False
