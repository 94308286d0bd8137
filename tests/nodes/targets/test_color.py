"""Targets on the predicted image, through the host: Color Target, alone and with all that a sampling can have beside it."""
import json
import re
from dataclasses import replace

import comfy.model_management
import comfy.samplers
import comfy.supported_models
import nodes as host_nodes
import pytest
import torch
from comfy_extras import nodes_custom_sampler as custom

from batches import close, sampled
from demo_world import SAMPLERS
from random_models import conditioning, patcher_of, random_model
from readout_guidance_pack.heads.demo import judge, world
from readout_guidance_pack.nodes.demo import demo_nodes
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.nodes.samplers import published
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from readout_guidance_pack.nodes.targets import color
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.rg_core.features.raw_features import AS_THEY_ARE
from readout_guidance_pack.rg_core.guidance import energies
from readout_guidance_pack.rg_core.guidance.targets import Color, Target
from tiny_transformers import video_vae
from tools.tables.parts import windowed

pytestmark = pytest.mark.usefixtures("inference_mode")


def scenes(batch, seed=5):
    """Images [B, H, W, 3]."""
    return demo_nodes.DemoScene.execute(seed, 64, 64, batch).args[0]


def target(w, batch=2, seed=5, **changes):
    return color.ColorTarget.execute(**{"image": scenes(batch, seed), "vae": w.vae, "detail": Color.cells, "weight": 1.0, "start_percent": 0.0,
                                        "end_percent": 0.9} | changes)[0]


def error(latents, wanted, cells=4):
    """The mean distance of coarse colors, by the image; `wanted` [B, H, W, 3]."""
    image, wanted = (torch.nn.functional.avg_pool2d(x, 64 // cells) for x in ((latents + 1) / 2, wanted.movedim(-1, 1)))
    return (image - wanted).abs().mean().item()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_colors_come_near_and_weight_0_is_the_stock_sampler_to_the_bit(w, sampler):
    wanted = scenes(2)
    plain, _ = w.sample(sampler=sampler, steps=6)
    guided, trace = w.sample(target(w), sampler=sampler, steps=6)
    assert error(guided, wanted) < 0.9 * error(plain, wanted)
    assert torch.isfinite(guided).all() and {row["target"] for row in trace} == {"color"} and len(trace[0]["energy"]) == 2
    for off in ({"guidance": target(w, weight=0.0)}, {"guidance": target(w), "strength": 0.0}):
        assert torch.equal(plain, w.sample(sampler=sampler, steps=6, **off)[0])
    patched = ApplyReadoutGuidance.execute(w.model, target(w), 0.1)[0]
    assert torch.equal(guided, w.sample(model=patched, sampler=sampler, steps=6)[0])


def test_a_step_of_one_move_without_heads_asks_the_model_as_often_as_a_plain_one(w):
    calls = []
    hook = w.model.model.diffusion_model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    try:
        w.sample()
        plain = len(calls)
        w.sample(target(w, end_percent=1.0), moves=1)
    finally:
        hook.remove()
    assert len(calls) == 2 * plain and not any(calls)


def test_the_first_step_reaches_the_colors_where_strength_allows(w):
    """By hand: the conditional prediction's coarse colors go all the way, the unconditional one is shifted alike."""
    outs = []

    def keep(args):
        outs.append((args["cond_denoised"], args["uncond_denoised"]))
        return args["denoised"]

    for guidance in (None, target(w, 1)):
        model = w.model.clone()
        model.set_model_sampler_post_cfg_function(keep)
        w.sample(guidance, model=model, batch=1, steps=2, moves=1)
    (cond, uncond), _, (shifted, shifted_uncond), _ = outs
    wanted = target(w, 1)[0].prepared((64, 64), cond.device).image
    assert energies.color(cond, wanted, 8) > 1e-3 and energies.color(shifted, wanted, 8) < 1e-8
    assert torch.allclose(shifted - cond, shifted_uncond - uncond, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch_nor_on_context_windows(w):
    model = ApplyReadoutGuidance.execute(w.model, target(w, 6), 0.1)[0]
    whole = sampled(w, model, 6)
    assert not close(whole, sampled(w, w.model, 6))
    assert close(sampled(w, windowed(model, 2, 0, False), 6), whole)
    assert close(sampled(w, windowed(model, 4, 2, True), 6), whole)
    alone = ApplyReadoutGuidance.execute(w.model, target(w, image=scenes(6)[3:4]), 0.1)[0]
    assert close(sampled(w, alone, 1, first=3), whole[3:4])


def test_a_mask_lets_it_act_only_where_it_is_white(w):
    """In the predictions; what the model then makes of the rest is its own."""
    mask = torch.zeros(1, 64, 64)
    mask[:, 10:30, 20:51] = 1
    outs = []
    for guidance in (None, target(w, 1, mask=mask)):
        model = w.model.clone()
        model.set_model_sampler_post_cfg_function(lambda args: outs.append(args["cond_denoised"]) or args["denoised"])
        w.sample(guidance, model=model, batch=1, steps=2, moves=1)
    moved = (outs[2] - outs[0]).abs().amax(1)
    assert (moved[mask == 0] == 0).all() and (moved[mask == 1] > 1e-4).all()


def test_it_goes_with_a_pose_and_both_are_obeyed(w):
    scene = world.draw(4, seed=5)
    wanted = scene.image.movedim(1, -1)
    both = target(w, 4, image=wanted, guidance=w.pose(4, end_percent=0.9))
    images = {}
    for name, guidance in (("plain", None), ("both", both)):
        latents, trace = w.sample(guidance, batch=4, steps=12, sampler="dpmpp_2m")
        images[name] = latents, judge.pck(w.vae.decode(latents).movedim(-1, 1), scene.joints, scene.height).mean().item()
    assert [row["target"] for row in trace[:2]] == ["pose", "color"]
    assert images["both"][1] > 0.6 and error(images["both"][0], wanted) < 0.6 * error(images["plain"][0], wanted)


def test_two_of_them_act_each_in_its_own_mask(w):
    left = torch.zeros(1, 64, 64)
    left[..., :32] = 1
    light, dark = torch.ones(1, 64, 64, 3) * 0.9, torch.ones(1, 64, 64, 3) * 0.1
    guidance = target(w, image=dark, mask=1 - left, guidance=target(w, image=light, mask=left))
    out, trace = w.sample(guidance, batch=2, steps=8)
    plain, _ = w.sample(batch=2, steps=8)
    gap = [(x[..., :32].mean() - x[..., 32:].mean()).item() for x in (out, plain)]
    assert gap[0] > 0.5 and abs(gap[1]) < 0.2 and len(trace) % 2 == 0


def test_a_drags_mask_keeps_the_rest_all_the_same(w):
    """Outside of it the image follows the reference to the bit, whatever colors ask."""
    latent = {"samples": w.vae.encode(scenes(1, 9))}
    reference = ReadoutReference.execute(w.model, w.positive, latent, 3, 64)[0]
    mask = torch.zeros(1, 64, 64)
    mask[..., 32:] = 1
    drag = DragTarget.execute(reference, "[[[0.7, 0.5], [0.8, 0.5]]]", 1.0, 0.0, 0.9, mask=mask)[0]
    both, trace = w.sample(target(w, 1, guidance=drag), batch=1, steps=8)
    alone, _ = w.sample(drag, batch=1, steps=8)
    assert torch.allclose(both[..., :31], latent["samples"][..., :31], atol=1e-3)
    assert torch.equal(both[..., :31], alone[..., :31]) and not close(both[..., 32:], alone[..., 32:])
    assert {row["target"] for row in trace} == {"drag", "color"}


def test_with_every_guider(w):
    patched = ApplyReadoutGuidance.execute(w.model, target(w, 1), 0.1)[0]
    sigmas = comfy.samplers.calculate_sigmas(patched.get_model_object("model_sampling"), "karras", 6)
    for guider, arguments in ((custom.BasicGuider, (w.positive,)), (custom.CFGGuider, (w.positive, w.negative, 3.0)),
                              (custom.DualCFGGuider, (w.positive, w.positive, w.negative, 3.0, 2.0, "regular"))):
        noise, sampler, latent = custom.RandomNoise.execute(1)[0], comfy.samplers.sampler_object("euler"), {"samples": torch.zeros(1, 3, 64, 64)}
        made = [custom.SamplerCustomAdvanced.execute(noise, guider.execute(model, *arguments)[0], sampler, sigmas, latent)[0]["samples"]
                for model in (patched, w.model)]
        assert error(made[0], scenes(1)) < 0.8 * error(made[1], scenes(1))


class Lighter(Target):
    """Another pack's: made while the host was in inference mode, with numbers from there."""

    def energy(self, readout, span, reference):
        return (readout.mean((1, 2, 3)) - GOAL.to(readout)).square() * SCALE.to(readout)


with torch.inference_mode():
    GOAL, SCALE = torch.tensor(0.8), torch.ones(1)


def test_an_own_energy_acts(w):
    made, trace = w.sample((Lighter(name="lighter"),), steps=8)
    plain, _ = w.sample(steps=8)
    assert (made.mean((1, 2, 3)) > plain.mean((1, 2, 3)) + 0.1).all() and trace[-1]["energy"][0] < trace[0]["energy"][0]


def test_the_prediction_is_seen_as_vae_decode_takes_it():
    """Stable Diffusion's latents are 0.18215 of a VAE's; and a model whose taps nobody reads needs none."""
    model, seen = random_model("small"), []

    class Own(Target):
        def energy(self, readout, span, reference):
            seen.append(readout.detach())
            return readout.square().flatten(1).sum(1)

    outs = []
    model.set_model_sampler_post_cfg_function(lambda args: outs.append(args["cond_denoised"]) or args["denoised"])
    said, latent = conditioning(768, 0), {"samples": torch.zeros(1, 4, 16, 16)}
    guided = ApplyReadoutGuidance.execute(model, (Own(name="own", weight=1e-9),), 0.1)[0]
    host_nodes.common_ksampler(guided, 1, 2, 1.0, "euler", "karras", said, said, latent)
    assert torch.allclose(seen[0], outs[0] / 0.18215, rtol=1e-4, atol=1e-4)


def transformer():
    """Flux, made very small, with random weights."""
    config = comfy.supported_models.Flux({"image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 8, "context_in_dim": 8,
                                          "hidden_size": 16, "mlp_ratio": 1.0, "num_heads": 1, "depth": 1, "depth_single_blocks": 1,
                                          "axes_dim": [4, 6, 6], "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": False,
                                          "txt_ids_dims": [], "dtype": torch.float32})
    model, rng = config.get_model({}, "", device=torch.device("cpu")), torch.Generator().manual_seed(0)
    for weight in model.diffusion_model.parameters():
        weight.data = torch.randn(weight.shape, generator=rng) * 0.05
    return patcher_of(model)


def test_models_without_taps_are_guided_too():
    model, rng = transformer(), torch.Generator().manual_seed(1)
    said = [[torch.randn(1, 5, 8, generator=rng), {"pooled_output": torch.randn(1, 8, generator=rng)}]]
    wanted = Color(name="color", image=torch.randn(1, 16, 24, 24, generator=rng).cumsum(-1) / 5)
    outs = []
    for made in (model, ApplyReadoutGuidance.execute(model, (wanted,), 0.1)[0]):
        latent = {"samples": torch.zeros(2, 16, 24, 24)}
        latent, = host_nodes.common_ksampler(made, 1, 8, 1.0, "euler", "simple", said, said, latent)
        outs.append(energies.color(latent["samples"], wanted.image, wanted.cells))
    assert (outs[1] < 0.8 * outs[0]).all()


def refused(w, match, **changes):
    with pytest.raises(ValueError, match=match):
        target(w, **changes)


def test_what_cannot_be_an_image_of_colors_is_refused(w):
    refused(w, "Color Target: the image is a str", image="photo.png")
    refused(w, "Color Target: the image is empty", image=torch.zeros(0, 64, 64, 3))
    refused(w, "Color Target: the image contains NaN", image=torch.full((1, 64, 64, 3), float("nan")))
    refused(w, "Color Target: the image has values from 0 to 200", image=torch.rand(1, 64, 64, 3).round() * 200)
    refused(w, "Color Target: there is no VAE", vae=None)
    refused(w, "Color Target: the mask is empty", mask=torch.zeros(1, 64, 64))
    refused(w, "Color Target: the mask is 32x32 pixels", mask=torch.ones(1, 32, 32))
    refused(w, "Color Target: start_percent is 0.9", start_percent=0.9)


BYTES, GREY, ALPHA = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8), torch.rand(1, 64, 64, 1), torch.rand(2, 64, 64, 4)


@pytest.mark.parametrize("image, same", [(BYTES, BYTES[None] / 255), (GREY, GREY.expand(-1, -1, -1, 3)), (ALPHA, ALPHA[..., :3] * ALPHA[..., 3:])])
def test_bytes_greys_and_alpha_are_the_colors_that_they_show(w, image, same):
    one, two = target(w, image=image)[0], target(w, image=same)[0]
    assert torch.allclose(one.image, two.image, atol=1e-5) and one.image.std() > 0.1


@pytest.mark.parametrize("size", [(2, 2), (3, 900), (700, 1000)])
def test_sketches_of_a_few_pixels_banners_and_photographs_are_taken(w, size):
    """On an image of another size than the mask's cells: the upper half light, the lower one dark, as far as there are rows for it."""
    image = torch.zeros(1, *size, 3)
    image[:, :(size[0] + 1) // 2] = 1
    made = [w.sample(target(w, image=x, detail=2), batch=1, steps=6, size=(56, 80))[0] for x in (image, 1 - image)]
    uppers, lowers = zip(*(x.mean(1).chunk(2, 1) for x in made))
    assert uppers[0].mean() > uppers[1].mean() + 0.1 and lowers[0].mean() < lowers[1].mean() - 0.1


def test_a_batch_is_images_to_a_vae_that_takes_it_for_a_video_too():
    images, vae = demo_nodes.DemoScene.execute(5, 64, 64, 3).args[0], video_vae()

    def latents(image):
        return color.ColorTarget.execute(image, vae, 8, 1.0, 0.0, 0.75)[0][0].image

    assert torch.equal(latents(images), torch.cat([latents(image[None]) for image in images]))


def test_colors_of_another_shape_are_cut_with_a_word(w, caplog):
    w.sample(target(w, image=torch.rand(1, 64, 128, 3)), batch=1, steps=2)
    assert len([r for r in caplog.records if re.search("5[01]% of the color target's input is cut off", r.message)]) == 1


def test_the_wrong_vae_and_the_published_procedure_are_refused_by_name(w):
    made = replace(target(w, 1)[0], image=torch.zeros(1, 16, 64, 64))
    with pytest.raises(ValueError, match="Apply Readout Guidance: .* color target .* 16 channels .* needs 3 channels .*Connect the VAE"):
        ApplyReadoutGuidance.execute(w.model, (made,), 0.1)
    with pytest.raises(ValueError, match="published.*the color target has none.*Use KSampler"):
        published.KSamplerReadoutGuidancePublished.execute(w.model, 0, 2, 3.0, 0.0, True, w.positive, w.negative,
                                                           {"samples": torch.zeros(1, 3, 64, 64)}, 0.02, target(w, 1))


@pytest.mark.parametrize("head", [None, AS_THEY_ARE])
def test_an_energy_that_cannot_be_is_said_by_the_sampling_node(w, head):
    class Wrong(Target):
        def energy(self, readout, span, reference):
            return readout.square().mean()

    plain, _ = w.sample()
    with pytest.raises(ValueError, match=r"KSampler \(Readout Guidance\): the energy of the own target is of shape \(\)"):
        w.sample((Wrong(name="own", head=head),))
    assert torch.equal(plain, w.sample()[0])


def test_interrupted_in_the_middle_it_leaves_nothing_behind(w):
    plain, _ = w.sample()

    class Stopping(Target):
        def energy(self, readout, span, reference):
            raise comfy.model_management.InterruptProcessingException()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        w.sample((Stopping(name="own"),))
    assert torch.equal(plain, w.sample()[0]) and json.dumps(w.sample(target(w))[1])
