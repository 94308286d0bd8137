"""Guided sampling inside the real host, on the demo model, to the bit."""
import math

import comfy.model_management
import comfy.samplers
import nodes as host_nodes
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras import nodes_custom_sampler as custom
from comfy_extras import nodes_model_advanced

from demo_world import SAMPLERS, World
from readout_guidance_pack.heads.demo import judge, world
from readout_guidance_pack.nodes.common import ksampler_inputs
from readout_guidance_pack.nodes.demo import demo_nodes
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.nodes.engine.autograd.inference_tensors import differentiable
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.rg_core.features import taps
from readout_guidance_pack.rg_core.guidance.updates import Move

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.fixture(scope="module")
def demo_world():
    with torch.inference_mode():
        yield World()


@pytest.mark.parametrize("steps, denoise, said", [(4, 0.9, "Set denoise to 0.8 or less"), (4, 0.8, None), (20, 0.96, "Set denoise to 0.95 or less"),
                                                  (20, 0.95, None), (4, 1.0, None), (4, 0.0, None)])
def test_a_denoise_of_an_image_that_is_the_same_as_1_is_said(demo_world, steps, denoise, said, caplog):
    ksampler_inputs.compare_denoise("KSampler (Readout Guidance)", steps, denoise, {"samples": torch.full((1, 3, 8, 8), 0.06)})
    assert not caplog.records  # no image is given
    ksampler_inputs.compare_denoise("KSampler (Readout Guidance)", steps, denoise, {"samples": torch.rand(1, 3, 8, 8)})
    own, whole = (comfy.samplers.KSampler(demo_world.model, steps, "cpu", "euler", "normal", share).sigmas for share in (denoise, 1.0))
    assert bool(said) == (denoise < 1 and torch.equal(own, whole))
    assert (said in caplog.text) if said else not caplog.records


def test_a_step_from_far_more_noise_does_not_drown_the_image(demo_world):
    """Models with a zero terminal SNR step from a sigma of 4518 to one of 20 or so."""
    w, (model,) = demo_world, nodes_model_advanced.ModelSamplingDiscrete().patch(demo_world.model, "eps", True)
    seen = []

    def see(executor, x, timestep, *args, **kwargs):
        seen.append((float(timestep.max()), x.std().item()))
        return executor(x, timestep, *args, **kwargs)

    for given in (model, ApplyReadoutGuidance.execute(model, w.pose(), 0.1)[0]):
        given = given.clone()
        given.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "see", see)
        host_nodes.common_ksampler(given, 1, 6, 3.0, "euler", "normal", w.positive, w.negative, {"samples": torch.zeros(2, 3, 64, 64)})
    (_, (first, plain), *_), (_, (second, guided_too), *_) = seen[:6], seen[6:]
    assert seen[0][0] > 4000 and first == second < 100 and guided_too == pytest.approx(plain, rel=0.05) and guided_too != plain




@pytest.mark.parametrize("sampler", SAMPLERS)
def test_exactness(demo_world, sampler):
    """Weight 0 is the stock sampler; the patched model in the stock sampler is the guided sampler; nothing is left behind."""
    guidance = demo_world.pose(1)
    plain, _ = demo_world.sample(sampler=sampler, batch=1)
    guided, trace = demo_world.sample(guidance, sampler=sampler, batch=1)
    patched = ApplyReadoutGuidance.execute(demo_world.model, guidance, 0.1)[0]
    assert torch.equal(guided, demo_world.sample(model=patched, sampler=sampler, batch=1)[0])
    assert torch.equal(guided, demo_world.sample(guidance, sampler=sampler, batch=1)[0])
    assert torch.isfinite(guided).all() and not torch.equal(guided, plain)
    assert len(trace) >= 2
    for off in ({"guidance": demo_world.pose(1, weight=0.0)}, {"guidance": guidance, "strength": 0.0}, {}):
        assert torch.equal(plain, demo_world.sample(sampler=sampler, batch=1, **off)[0])


def test_custom_sampler_with_each_guider(demo_world):
    patched = ApplyReadoutGuidance.execute(demo_world.model, demo_world.pose(), 0.1)[0]
    sigmas = comfy.samplers.calculate_sigmas(patched.get_model_object("model_sampling"), "karras", 4)
    latent = {"samples": torch.zeros(2, 3, 64, 64)}

    def run(model, guider, *arguments):
        made = guider.execute(model, *arguments)[0]
        noise = custom.RandomNoise.execute(1)[0]
        sampler = comfy.samplers.sampler_object("euler")
        return custom.SamplerCustomAdvanced.execute(noise, made, sampler, sigmas, latent)[0]["samples"]

    positive, negative = demo_world.positive, demo_world.negative
    assert torch.equal(run(patched, custom.CFGGuider, positive, negative, 3.0), demo_world.sample(demo_world.pose())[0])
    for guider, arguments in ((custom.BasicGuider, (positive,)),
                              (custom.DualCFGGuider, (positive, positive, negative, 3.0, 2.0, "regular"))):
        guided, plain = run(patched, guider, *arguments), run(demo_world.model, guider, *arguments)
        assert torch.isfinite(guided).all() and not torch.equal(guided, plain)


def test_the_model_keeps_its_very_own_weights_and_hooks(demo_world):
    unet = demo_world.model.model.diffusion_model

    def state():
        return ([(name, id(p), p._version if not p.is_inference() else None) for name, p in unet.named_parameters()],
                [len(m._forward_hooks) for m in unet.modules()])

    before = state()
    values = {name: p.clone() for name, p in unet.named_parameters()}
    demo_world.sample(demo_world.pose())
    assert state() == before
    assert all(torch.equal(values[name].cpu(), p.cpu()) for name, p in unet.named_parameters())


def test_interrupted_in_the_middle_of_a_guided_step(demo_world):
    unet = demo_world.model.model.diffusion_model
    plain, _ = demo_world.sample()
    guided, _ = demo_world.sample(demo_world.pose())
    ids = [id(p) for p in unet.parameters()]
    calls = []

    def interrupt(_module, _args, _out):
        calls.append(1)
        if len(calls) == 3:  # the forward that the second guided step differentiates
            comfy.model_management.interrupt_current_processing()

    hook = unet.out.register_forward_hook(interrupt)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            demo_world.sample(demo_world.pose())
    finally:
        hook.remove()
    assert len(calls) == 3
    assert [id(p) for p in unet.parameters()] == ids and not any(m._forward_hooks for m in unet.modules())
    assert torch.equal(plain, demo_world.sample()[0])
    assert torch.equal(guided, demo_world.sample(demo_world.pose())[0])


def test_failing_in_the_middle_of_a_guided_step_restores_too(demo_world):
    unet = demo_world.model.model.diffusion_model
    ids = [id(p) for p in unet.parameters()]

    def fail(_module, _args, _out):
        raise RuntimeError("out of memory, say")

    hook = unet.out.register_forward_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="out of memory, say"):
            demo_world.sample(demo_world.pose())
    finally:
        hook.remove()
    assert [id(p) for p in unet.parameters()] == ids and not any(m._forward_hooks for m in unet.modules())


def test_an_image_does_not_depend_on_its_batch(demo_world):
    three, trace = demo_world.sample(demo_world.pose(3), batch=3)
    scenes = demo_nodes.DemoScene.execute(5, 64, 64, 3).args[1]
    alone, lone_trace = demo_world.sample(demo_world.pose(image=scenes[1:2]), batch=1, batch_index=[1])
    assert torch.allclose(three[1:2], alone, atol=5e-3) and (three[1:2] - alone).abs().mean() < 2e-4  # each move passes on what rounding differs in
    assert [round(row["energy"][1], 2) for row in trace] == [round(row["energy"][0], 2) for row in lone_trace]


def test_shifting_the_prediction_is_moving_the_latent_before_an_euler_step(demo_world):
    """The published move, written out: x <- x - s * sqrt(1 + sigma^2) * sign(g), then an Euler step from there."""
    move = Move(0.05, "sign", per_step=True, fresh=True)
    model = guided("test", demo_world.model, demo_world.pose(1, end_percent=1.0), move)
    got, _ = demo_world.sample(model=model, batch=1, steps=3, cfg=1.0)

    sampling = demo_world.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "karras", 3)
    net, head = demo_world.model.model, demo_world.heads["pose"]
    context = demo_world.positive[0][0]
    wanted = demo_world.pose(1)[0].prepared((64, 64), torch.device("cpu"))
    with torch.inference_mode(False), torch.enable_grad(), differentiable(net):
        x = torch.randn(1, 3, 64, 64, generator=torch.manual_seed(1)) * torch.sqrt(1 + sigmas[0] ** 2)
        for sigma, following in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
            level = torch.tensor([sigma])
            x = x.detach().requires_grad_()
            with taps.record(net.diffusion_model) as readings:
                net.apply_model(x, level, c_crossattn=context.clone())
            readout = head(readings[0].features, readings[0].emb, tuple(wanted.image.shape[-2:]))
            g, = torch.autograd.grad((readout - wanted.image).square().mean(), x)
            x = (x - 0.05 * math.sqrt(1 + sigma**2) * g / (g.abs() + 1e-20)).detach()
            with torch.no_grad():
                denoised = net.apply_model(x, level, c_crossattn=context.clone())
            x = denoised + (x - denoised) * (following / sigma)
    assert (got - x).abs().mean() < 2e-3 and (got - x).abs().max() < 0.1  # a few signs of nearly zero gradients differ


def test_targets_act_within_their_percents_only(demo_world):
    _, trace = demo_world.sample(demo_world.pose(start_percent=0.3, end_percent=0.6), steps=12)
    to_sigma = demo_world.model.get_model_object("model_sampling").percent_to_sigma
    sigmas = [row["sigma"] for row in trace]
    assert sigmas and all(to_sigma(0.6) <= sigma <= to_sigma(0.3) for sigma in sigmas)


def test_the_step_that_ends_with_little_noise_or_none_is_not_guided(demo_world, caplog):
    w = demo_world
    guidance = w.pose(end_percent=1.0)
    assert len({row["sigma"] for row in w.sample(guidance)[1]}) == 3  # of four
    model = ApplyReadoutGuidance.execute(w.model, guidance, 0.1)[0]
    begun = host_nodes.common_ksampler(model, 1, 4, 3.0, "euler", "karras", w.positive, w.negative, {"samples": torch.zeros(2, 3, 64, 64)},
                                       last_step=3)[0]  # a run that stops before it is guided to its end
    ends = [host_nodes.common_ksampler(m, 1, 4, 3.0, "euler", "karras", w.positive, w.negative, begun, disable_noise=True, start_step=3,
                                       force_full_denoise=True)[0]["samples"]
            for m in (w.model, ApplyReadoutGuidance.execute(w.model, guidance, 0.1)[0])]
    assert torch.equal(*ends) and torch.equal(ends[0], w.sample(guidance)[0])
    assert "nothing in this run was guided" in caplog.text


def test_guidance_works_outside_a_denoise_mask_only_where_the_mask_lets_it(demo_world):
    image = demo_nodes.DemoScene.execute(9, 64, 64, 1).args[0].movedim(-1, 1) * 2 - 1
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    guided, _ = demo_world.sample(demo_world.pose(1), batch=1, samples=image, noise_mask=mask)
    plain, _ = demo_world.sample(batch=1, samples=image, noise_mask=mask)
    assert torch.allclose(guided[..., :30], image[..., :30], atol=1e-4)
    assert (guided - plain)[..., 32:].abs().max() > 0.05


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_pose_is_controlled(demo_world, size):
    """Eight images; `run.py evaluate` measures many."""
    scene = world.draw(8, *size, seed=5)
    images = [demo_world.vae.decode(demo_world.sample(g, batch=8, size=size, steps=12, sampler="dpmpp_2m")[0]).movedim(-1, 1)
              for g in (None, demo_world.pose(8, size=size))]
    unguided, guided = (judge.pck(image, scene.joints, scene.height).mean().item() for image in images)
    assert guided > 0.6 and guided > 3 * unguided


def test_two_targets_lower_both_energies(demo_world):
    scene = demo_nodes.DemoScene.execute(5, 64, 64, 4).args
    both = DepthTarget.execute(demo_world.heads["depth"], scene[2], 1.0, 0.0, 0.5, guidance=demo_world.pose(4))[0]
    quiet = [DepthTarget.execute(demo_world.heads["depth"], scene[2], 1e-6, 0.0, 0.5,
                                 guidance=demo_world.pose(4, weight=1e-6))[0]]
    last = {}
    for name, guidance in (("guided", both), ("barely", quiet[0])):
        _, trace = demo_world.sample(guidance, batch=4, steps=12, sampler="dpmpp_2m")
        last[name] = {row["target"]: sum(row["energy"]) for row in trace}
    assert last["guided"]["pose"] < 0.8 * last["barely"]["pose"]
    assert last["guided"]["depth"] < 0.8 * last["barely"]["depth"]
