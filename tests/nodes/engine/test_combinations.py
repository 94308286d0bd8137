"""Guidance with what other packs and nodes put on the same MODEL, or into the host: caches, wrappers, replaced tables and code, attention. What
can be right is; the rest is refused by name, or said once."""
import comfy.samplers
import nodes as host_nodes
import pytest
import torch
from comfy.ldm.modules import attention
from comfy.patcher_extension import WrappersMP
from comfy_extras import nodes_custom_sampler

from batches import STEPS, close, sampled, w_latent
from host_features import Graph
from readout_guidance_pack.nodes.make_heads import estimate
from readout_guidance_pack.nodes.references import recording_ksampler
from readout_guidance_pack.nodes.samplers import guided_ksampler
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance

pytestmark = pytest.mark.usefixtures("inference_mode")


def twice(apply_model, given):
    """A reference pass through the same diffusion model before the real one."""
    apply_model(given["input"] * 0.5, given["timestep"], **given["c"])
    return apply_model(given["input"], given["timestep"], **given["c"])


class Cache:
    """Leaves out the diffusion model at every second call, as caches do that count."""

    def __init__(self):
        self.calls, self.out = 0, None

    def __call__(self, apply_model, given):
        self.calls += 1
        if self.calls % 2 or self.out is None or self.out.shape != given["input"].shape:
            self.out = apply_model(given["input"], given["timestep"], **given["c"])
        return self.out


class InnerCache:
    """Leaves out decoder blocks."""

    def __call__(self, apply_model, given):
        unet = apply_model.__self__.diffusion_model
        blocks = unet.output_blocks
        unet.output_blocks = torch.nn.ModuleList(blocks[:-1])
        try:
            return apply_model(given["input"], given["timestep"], **given["c"])
        finally:
            unet.output_blocks = blocks


@pytest.mark.parametrize("wrapper, said", [(twice, "more than once"), (Cache(), "branches|was not called"), (InnerCache(), "not run completely")])
def test_what_stands_between_is_named(w, wrapper, said):
    model = w.model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    with pytest.raises(ValueError, match=f"in a guided step the diffusion model .*{said}.*test_combinations.*end_percent"):
        w.sample(w.pose(1), model=model, batch=1)
    assert w.sample(None, batch=1)[0].isfinite().all()


def test_what_stands_between_is_named_where_nothing_is_sampled(w):
    model = w.model.clone()
    model.set_model_unet_function_wrapper(twice)
    with pytest.raises(ValueError, match="^Readout Estimate: the diffusion model was called more than once.*MODEL from before it[.]$"):
        estimate.ReadoutEstimate.execute(model, w.heads["pose"], w.negative, 0.9, 0, latent=w_latent())


def by_keyword(executor, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None, **more):
    return executor(noise=noise, latent_image=latent_image, sampler=sampler, sigmas=sigmas, denoise_mask=denoise_mask, callback=callback,
                    disable_pbar=disable_pbar, seed=seed, **more)


def some_by_keyword(executor, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None, **more):
    return executor(noise, latent_image, sampler, sigmas, denoise_mask=denoise_mask, callback=callback, disable_pbar=disable_pbar, seed=seed, **more)


@pytest.mark.parametrize("wrapper", [by_keyword, some_by_keyword])
def test_a_wrapper_that_hands_on_by_keyword_changes_nothing(w, wrapper):
    model = w.model.clone()
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "another pack", wrapper)
    plain, wrapped = (ApplyReadoutGuidance.execute(source, w.pose(1), 0.1)[0] for source in (w.model, model))
    assert torch.equal(sampled(w, wrapped, 1), sampled(w, plain, 1))


def test_samplers_and_schedulers_of_other_packs_are_offered(monkeypatch):
    monkeypatch.setattr(comfy.samplers.KSampler, "SCHEDULERS", [*comfy.samplers.KSampler.SCHEDULERS, "another packs"])
    for node in (guided_ksampler.KSamplerReadoutGuidance, recording_ksampler.KSamplerReadoutReference):
        assert "another packs" in node.INPUT_TYPES()["required"]["scheduler"][1]["options"]


def test_a_cache_that_begins_where_the_targets_end_is_left_alone(w):
    class Late(Cache):
        def __call__(self, apply_model, given):
            late = given["timestep"].max() < apply_model.__self__.model_sampling.percent_to_sigma(0.5)
            return super().__call__(apply_model, given) if late else apply_model(given["input"], given["timestep"], **given["c"])

    model = w.model.clone()
    model.set_model_unet_function_wrapper(Late())
    guided, _ = w.sample(w.pose(1), model=model, batch=1, steps=8)
    assert not close(guided, w.sample(None, batch=1, steps=8)[0])


def test_a_second_pack_that_replaces_the_wrappers_is_named_and_loses_nothing(w):
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]
    replaced = model.clone()
    replaced.wrappers.update({WrappersMP.OUTER_SAMPLE: {"other": [lambda executor, *args, **kwargs: executor(*args, **kwargs)]}})
    with pytest.raises(ValueError, match="Apply Readout Guidance: another pack has replaced the wrappers"):
        sampled(w, replaced, 1)
    again = ApplyReadoutGuidance.execute(replaced, w.pose(1, seed=6), 0.1)[0]
    both = ApplyReadoutGuidance.execute(model, w.pose(1, seed=6), 0.1)[0]
    assert torch.equal(sampled(w, again, 1), sampled(w, both, 1)) and not torch.equal(sampled(w, both, 1), sampled(w, model, 1))


@pytest.mark.parametrize("positive", ["guided", "plain"])
def test_a_guided_model_as_the_negative_one_is_named(w, positive):
    if not hasattr(nodes_custom_sampler, "DualModelGuider"):
        pytest.skip("this ComfyUI has no Dual Model CFG Guider")
    model, negative = (ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0] for _ in range(2))
    guider = nodes_custom_sampler.DualModelGuider.execute(model if positive == "guided" else w.model, w.positive, 3.0, negative, w.negative)[0]
    latents = w_latent()["samples"]
    with pytest.raises(ValueError, match="^Apply Readout Guidance: .*model_negative.*MODEL from before guidance"):
        guider.sample(latents, latents, comfy.samplers.sampler_object("euler"), torch.tensor([14.0, 5.0, 0.0]), seed=1)


@pytest.mark.parametrize("case, said", [
    ("late", "no step between start_percent and end_percent of a target could be guided"),
    ("batch function", "test_combinations calls the model instead of ComfyUI"),
    ("no table", "has replaced the code that asks the model"), ("silent", "no positive conditioning was active")])
def test_a_run_in_which_nothing_acted_says_so_once(w, caplog, case, said):
    model, positive = w.model.clone(), w.positive
    if case == "batch function":
        model.model_options["sampler_calc_cond_batch_function"] = lambda args: comfy.samplers._calc_cond_batch(
            args["model"], args["conds"], args["input"], args["sigma"], args["model_options"])
    if case == "no table":
        def replace(executor, *args, **kwargs):
            executor.class_obj.model_options["transformer_options"]["wrappers"] = {}
            return executor(*args, **kwargs)
    if case == "silent":
        positive = host_nodes.ConditioningSetTimestepRange().set_range(positive, 0.95, 1.0)[0]
    guidance = w.pose(1, start_percent=0.5, end_percent=0.501) if case == "late" else w.pose(1)
    model = ApplyReadoutGuidance.execute(model, guidance, 0.1)[0]
    if case == "no table":
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "after", replace)
    host_nodes.common_ksampler(model, 1, STEPS, 3.0, "euler", "karras", positive, w.negative, w_latent())
    assert [said in r.message for r in caplog.records if "nothing in this run was guided" in r.message] == [True]


def detached(q, k, v, extra_options):
    return attention.optimized_attention(q, k, v, extra_options["n_heads"]).detach()


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, _gradient):
        raise NotImplementedError("this kernel has no backward pass")


def without_backward(q, k, v, extra_options):
    return NoBackward.apply(attention.optimized_attention(q, k, v, extra_options["n_heads"]))


def test_a_patch_without_a_gradient_is_said_once(caplog):
    graph = Graph()
    graph.model = graph.model.clone()
    graph.model.set_model_attn2_replace(detached, "output", 3, 0)
    graph.run()
    assert sum("no gradient passes through a patch of test_combinations" in r.message for r in caplog.records) == 1


def test_a_kernel_without_a_backward_pass_is_explained():
    graph = Graph()
    graph.model = graph.model.clone()
    graph.model.set_model_attn2_replace(without_backward, "output", 3, 0)
    with pytest.raises(ValueError, match="test: the backward pass through the diffusion model fails: this kernel.*--use-pytorch-cross-attention"):
        graph.run()


def test_a_replaced_forward_is_named():
    graph = Graph()
    unet = graph.model.model.diffusion_model
    unet.forward = lambda x, *args, **kwargs: x * 0.5
    with pytest.raises(ValueError, match="test: .*was not run completely.*a replaced forward of test_combinations"):
        graph.run()
    del unet.forward
    assert not torch.equal(graph.run(), graph.run(False))  # as soon as it is gone, the same MODEL is guided


def test_branches_of_a_guided_step_share_one_attention():
    """A coarse attention, as quantized kernels are, in one branch alone would be multiplied by cfg."""
    def coarse(func, q, k, v, heads, *args, **kwargs):
        return func(q, k, v, heads, *args, **kwargs).mul(16).round().div(16)

    graph = Graph()
    graph.sigmas, exact = torch.tensor([14.0, 5.0]), graph.model
    expected, plain = graph.run(), graph.run(False)
    graph.model = exact.clone()
    graph.model.model_options["transformer_options"]["optimized_attention_override"] = coarse
    assert not torch.equal(graph.run(False), plain)
    assert ((graph.run() - expected).norm() / (expected - plain).norm()).item() < 1e-3


def test_an_attention_put_into_the_hosts_module_is_left_out_of_guided_steps(monkeypatch):
    """As packs did before there was an override: a kernel without a backward pass, whose gradient would be 0."""
    def kernel(q, k, v, heads, *args, **kwargs):
        return attention.attention_pytorch(q, k, v, heads).detach().mul(16).round().div(16)

    graph = Graph()
    graph.sigmas = torch.tensor([14.0, 5.0])
    expected, plain = graph.run(), graph.run(False)
    for name in ("optimized_attention", "optimized_attention_masked"):
        monkeypatch.setattr(attention, name, kernel)
    assert not torch.equal(graph.run(False), plain)
    for graph.recompute in ("off", "on"):
        assert ((graph.run() - expected).norm() / (expected - plain).norm()).item() < 1e-3
    assert attention.optimized_attention is attention.optimized_attention_masked is kernel


def test_normalized_attention_guidance_is_said_to_rest(caplog):
    nag = pytest.importorskip("comfy_extras.nodes_nag")  # ComfyUI 0.18.2 may have none
    graph = Graph()
    graph.model = nag.NAGuidance.execute(graph.model, 5.0, 0.5, 1.5)[0]
    graph.run()
    assert sum("Normalized Attention Guidance is disabled in guided steps" in r.message for r in caplog.records) == 1
