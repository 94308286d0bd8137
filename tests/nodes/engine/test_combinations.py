"""Guidance with what others put on the same MODEL: context windows, tiles, caches, replaced tables, detached patches. What can be
right is; the rest is refused by name, or said once."""
import inspect

import comfy.sample
import comfy.samplers
import nodes as host_nodes
import pytest
import torch
from comfy.ldm.modules import attention
from comfy.patcher_extension import WrappersMP
from comfy_execution.utils import CurrentNodeContext
from comfy_extras import nodes_custom_sampler
from comfy_extras.nodes_context_windows import ContextWindowsManualNode

from batches import STEPS, close, sampled
from host_features import Graph
from readout_guidance_pack.nodes.engine.batches import windows
from readout_guidance_pack.nodes.make_heads import estimate
from readout_guidance_pack.nodes.references import recording_ksampler
from readout_guidance_pack.nodes.samplers import guided_ksampler
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from tools.tables.parts import tiled, windowed

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.mark.parametrize("length, causal, first", [(2, False, "windows"), (3, True, "guidance")])
def test_each_context_window_is_guided_by_its_own_targets(w, length, causal, first):
    """Pictures of a UNet do not see each other, so windows change nothing."""
    guidance = w.pose(6)
    if first == "windows":
        model = ApplyReadoutGuidance.execute(windowed(w.model, length, 0, causal), guidance, 0.1)[0]
    else:
        model = windowed(ApplyReadoutGuidance.execute(w.model, guidance, 0.1)[0], length, 0, causal)
    whole = sampled(w, ApplyReadoutGuidance.execute(w.model, guidance, 0.1)[0], 6)
    assert not close(whole, sampled(w, w.model, 6))
    assert close(sampled(w, model, 6), whole)


def test_windows_that_overlap_are_guided(w):
    guidance = w.pose(6)
    whole = sampled(w, ApplyReadoutGuidance.execute(w.model, guidance, 0.1)[0], 6)
    assert close(sampled(w, windowed(ApplyReadoutGuidance.execute(w.model, guidance, 0.1)[0], 4, 2, True), 6), whole)


def test_a_window_with_all_pictures_in_another_order_is_guided_by_their_own_targets(w):
    """Windows of two that close the loop: pictures 3 and 1, before which the causal fix puts the second."""
    model = ApplyReadoutGuidance.execute(w.model, w.pose(3), 0.1)[0]
    looped = windowed(model, 2, 0, True, context_schedule="looped_uniform", closed_loop=True)
    assert close(sampled(w, looped, 3), sampled(w, model, 3))


def test_pictures_that_every_window_is_shown_are_known(w, monkeypatch):
    """latent_retain_index_list: in each window the first picture of the batch is in the first place."""
    if "latent_retain_index_list" not in inspect.signature(ContextWindowsManualNode.execute).parameters:
        pytest.skip("this ComfyUI keeps none")
    found, pictures = [], windows.pictures

    def known(x, whole, *args):
        places = pictures(x, whole, *args)
        found.append((places.tolist(), torch.equal(x, whole[places])))
        return places

    monkeypatch.setattr(windows, "pictures", known)
    sampled(w, windowed(ApplyReadoutGuidance.execute(w.model, w.pose(4), 0.1)[0], 2, 0, False, latent_retain_index_list="0"), 4)
    assert {tuple(places) for places, _ in found} == {(0, 1), (0, 3)} and all(same for _, same in found)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_windows_along_height_or_width_are_refused_where_targets_act(w, dim, causal):
    size = (96, 64) if dim == 2 else (64, 96)
    model = windowed(w.model, 64, 16, causal, dim=dim)
    late = w.pose(1, size=size, start_percent=0.5, end_percent=0.501)  # acts at none of these steps
    assert torch.equal(sampled(w, ApplyReadoutGuidance.execute(model, late, 0.1)[0], 1, size=size), sampled(w, model, 1, size=size))
    with pytest.raises(ValueError, match=f"^Apply Readout Guidance: .* parts of the image .64x64 latents of {size[1]}x{size[0]}.*dim 2 or 3"):
        sampled(w, ApplyReadoutGuidance.execute(model, w.pose(1, size=size), 0.1)[0], 1, size=size)


@pytest.mark.parametrize("freenoise", [False, True])
def test_what_reads_single_pictures_knows_no_windows(w, freenoise):
    pictures = {"samples": torch.rand(3, 3, 64, 64, generator=torch.manual_seed(5))}

    def read(model):
        return estimate.ReadoutEstimate.execute(model, w.heads["pose"], w.negative, 0.9, 0, latent=pictures)[0]

    assert torch.equal(read(windowed(w.model, 2, 0, False, freenoise=freenoise)), read(w.model))


def in_halves(executor, model, conds, x, timestep, options):
    outs = [executor(model, conds, part, part_timestep, options) for part, part_timestep in zip(x.chunk(2), timestep.chunk(2))]
    return [torch.cat(pair) for pair in zip(*outs)]


def test_another_packs_windows_are_told_by_their_pictures(w, caplog):
    model = ApplyReadoutGuidance.execute(w.model, w.pose(4), 0.1)[0]
    halved = w.model.clone()
    halved.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "halves", in_halves)
    halved = ApplyReadoutGuidance.execute(halved, w.pose(4), 0.1)[0]
    assert close(sampled(w, halved, 4), sampled(w, model, 4)) and not caplog.records


def test_pictures_that_cannot_be_told_apart_are_said_once(w, caplog):
    halved = w.model.clone()
    halved.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "halves", in_halves)
    halved = ApplyReadoutGuidance.execute(halved, w.pose(4), 0.1)[0]
    latent = {"samples": torch.zeros(4, 3, 64, 64), "batch_index": [0, 0, 0, 0]}
    host_nodes.common_ksampler(halved, 1, STEPS, 3.0, "euler", "karras", w.positive, w.negative, latent)
    assert sum("does not say which" in r.message for r in caplog.records) == 1


def test_tiles_of_the_diffusion_model_are_put_together(w):
    """Tiles of a step are read as the whole picture, so the gradient is that of the tiled model."""
    model = w.model.clone()
    model.set_model_unet_function_wrapper(tiled)
    guidance, size = w.pose(2, size=(96, 96), end_percent=0.9), (96, 96)
    plain = sampled(w, model, 2, size=size)
    energies = []
    for strength in (1e-9, 0.1):
        out, trace = w.sample(guidance, model=model, size=size, strength=strength, steps=10)
        energies.append(torch.tensor(trace[-1]["energy"]).mean())
    assert not close(out, plain) and energies[1] < 0.7 * energies[0]


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


@pytest.mark.parametrize("levels", [[14.6, 3.0, float("nan"), 0.0], [14.6, 3.0, -1.0], [float("inf"), 1.0, 0.0]])
def test_what_is_no_noise_level_is_refused(w, levels):
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]
    with pytest.raises(ValueError, match=r"^Apply Readout Guidance: the sigmas are \[.*\], but noise levels must be finite numbers of 0 or more"):
        nodes_custom_sampler.SamplerCustom.execute(model, True, 1, 3.0, w.positive, w.negative, comfy.samplers.sampler_object("euler"),
                                                   torch.tensor(levels), {"samples": torch.zeros(1, 3, 64, 64)})


@pytest.mark.parametrize("levels", [[0.0, 0.0, 0.0], [14.6, 3.0, 0.0, 0.0]])
def test_levels_of_which_the_host_itself_makes_nothing_are_no_error(w, levels):
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1, end_percent=1.0), 0.1)[0]
    picture, plain = (comfy.sample.sample_custom(source, torch.ones(1, 3, 64, 64), 1.0, comfy.samplers.sampler_object("euler"), torch.tensor(levels),
                                                 w.positive, w.negative, torch.zeros(1, 3, 64, 64), disable_pbar=True) for source in (model, w.model))
    assert torch.allclose(picture, plain, equal_nan=True)


def test_a_scheduler_without_levels_makes_no_reference(w):
    """kl_optimal with one step."""
    latent = {"samples": torch.zeros(1, 3, 64, 64)}
    with pytest.raises(ValueError, match=r"^KSampler \(Readout Reference\): the sigmas are .*more steps"):
        recording_ksampler.KSamplerReadoutReference.execute(w.model, 1, 1, 3.0, "euler", "kl_optimal", w.positive, w.negative, latent, 1.0, 64)


def test_a_latent_of_sound_is_refused(w):
    """As the host packs a video with its sound: everything in one row."""
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]
    with pytest.raises(ValueError, match=r"^Apply Readout Guidance: the latent's shape is \(1, 1, 50\), as for audio"):
        comfy.sample.sample(model, torch.zeros(1, 1, 50), 2, 1.0, "euler", "normal", w.positive, w.negative, torch.zeros(1, 1, 50))


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


def w_latent():
    return {"samples": torch.zeros(1, 3, 64, 64)}


@pytest.mark.parametrize("guidance", [None, (), "pose", [1]])
def test_guidance_that_is_none_is_explained(w, guidance):
    for node in (lambda: w.sample(guidance or 0), lambda: ApplyReadoutGuidance.execute(w.model, guidance, 0.1)):
        if guidance == ():
            continue  # a Drag Target with no drags yet
        with pytest.raises(ValueError, match="guidance"):
            node()


def test_nan_in_a_conditioning_is_blamed_on_it(w):
    positive = [[c * float("nan"), more] for c, more in w.positive]
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]
    with pytest.raises(ValueError, match="the positive conditioning contains NaN"):
        host_nodes.common_ksampler(model, 1, STEPS, 3.0, "euler", "karras", positive, w.negative, w_latent())


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


def test_parts_of_a_picture_are_noticed_once(w, caplog):
    """As detailers and tile upscalers sample: smaller, or again and again in one node, from given latents."""
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]

    def run(size, given):
        latent = {"samples": torch.rand(1, 3, *size) if given else torch.zeros(1, 3, *size)}
        host_nodes.common_ksampler(model, 1, 2, 3.0, "euler", "karras", w.positive, w.negative, latent, denoise=0.5 if given else 1.0)

    run((64, 64), False)
    run((96, 96), True)  # a second sampler on the enlarged picture
    run((48, 48), False)
    assert "from before guidance" not in caplog.text
    run((48, 48), True)
    run((32, 32), True)
    assert ["smaller than before" in r.message for r in caplog.records if "from before guidance" in r.message] == [True]


def test_a_workflow_that_is_run_again_is_no_part_of_the_first_run(w, caplog):
    """A given picture sampled again, then enlarged: in the second run that picture is smaller than what the first ended with."""
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]

    def run(prompt, *sizes):
        for node, size in enumerate(sizes):
            with CurrentNodeContext(prompt, str(node)):
                latent = {"samples": torch.ones(1, 3, size, size)}
                host_nodes.common_ksampler(model, 1, 2, 3.0, "euler", "karras", w.positive, w.negative, latent, denoise=0.5)

    run("first", 48, 64)
    run("second", 48, 64)
    assert "from before guidance" not in caplog.text
    run("third", 64, 48)
    assert ["smaller than before" in r.message for r in caplog.records if "from before guidance" in r.message] == [True]


def test_tiles_of_one_node_are_noticed_once(w, caplog):
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]
    with CurrentNodeContext("prompt", "7"):
        for _ in range(3):
            latent = {"samples": torch.rand(1, 3, 64, 64)}
            host_nodes.common_ksampler(model, 1, 2, 3.0, "euler", "karras", w.positive, w.negative, latent, denoise=0.5)
    assert ["more than once" in r.message for r in caplog.records if "from before guidance" in r.message] == [True]


def test_a_picture_of_another_shape_than_the_target_is_said_once(w, caplog):
    w.sample(w.pose(1, size=(64, 64)), batch=1, size=(64, 96))
    assert ["33% of the pose target's input is cut off" in r.message for r in caplog.records] == [True]


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
