"""Every row of rg_core/features/architectures.py, on a tiny random model of the host's own class: features, and what comes back through them."""
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from unittest.mock import patch

import comfy.quant_ops
import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from readout_guidance_pack.nodes.engine import Trace, guided, memory
from readout_guidance_pack.nodes.engine.autograd.inference_tensors import InferenceTensorMode
from readout_guidance_pack.nodes.engine.autograd.kernels import differentiable_kernels
from readout_guidance_pack.nodes.engine.reader import read
from readout_guidance_pack.nodes.engine.run import Run
from readout_guidance_pack.nodes.engine.schedule.noise_levels import EMBEDDED, is_flow, prediction_scale
from readout_guidance_pack.nodes.make_heads.training_set import of_model
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.rg_core.features import architectures, taps
from readout_guidance_pack.rg_core.features.raw_features import AS_THEY_ARE
from readout_guidance_pack.rg_core.features.recompute import recomputed_blocks
from readout_guidance_pack.rg_core.guidance.targets import Appearance, Spatial
from readout_guidance_pack.rg_core.guidance.updates import Move
from readout_guidance_pack.rg_core.readout.head import ReadoutHead
from tiny_transformers import HERE, TINY, WIDTH, build, conditioning, drawn, kind, tiny_model
from tools.benchmarks.costs import most_kept
from transformer_sampling import depth_head, sampled

ROWS = [pytest.param(name, marks=pytest.mark.skipif(kind(name) is None, reason="this host has it not yet")) for name in TINY]
every_family = pytest.mark.parametrize("name", HERE)
every_row = pytest.mark.parametrize("name", ROWS)


class Subject:
    """A tiny model, and latents of two images."""

    def __init__(self, name: str):
        self.tiny, self.model = TINY[name], build(name)
        self.x = drawn(2, *self.tiny.shape, seed=1)
        self.t = torch.tensor([0.7, 0.4])

    def call(self, x, **more):
        return self.tiny.call(self.model, x, self.t[:len(x)], {}, **more)

    def read(self, x, **more):
        """The prediction and the default taps' reading."""
        with taps.record(self.model) as readings, differentiable_kernels():
            predicted = self.call(x, **more)
        reading, = readings
        return predicted, reading

    def energy(self, x):
        """Something of the features, [B], that weighs each of them otherwise."""
        _, reading = self.read(x)
        return sum((f * drawn(*f.shape[1:], seed=i)).flatten(1).sum(1) for i, f in enumerate(reading.features))

    def gradient(self, again: bool):
        copying = architectures.architecture_of(self.model).overwrites

        @contextmanager
        def within():
            with saved_tensors_hooks(lambda x: x.clone(), lambda x: x) if copying else nullcontext(), differentiable_kernels():
                yield

        x = self.x.clone().requires_grad_()
        with within(), recomputed_blocks(taps.blocks(self.model) if again else [], within):
            return torch.autograd.grad(self.energy(x).sum(), x)[0]


@every_row
def test_gradients_are_finite_differences_and_the_same_with_blocks_computed_again(name):
    subject = Subject(name)
    plain, again = (subject.gradient(again) for again in (False, True))
    assert (plain - again).norm() <= 1e-6 * plain.norm()
    way, step = drawn(*subject.x.shape, seed=11), 2e-3
    for i in range(2):
        aside = torch.zeros_like(way)
        aside[i] = step * way[i]
        numeric = (subject.energy(subject.x + aside) - subject.energy(subject.x - aside)).double() / (2 * step)
        assert numeric[1 - i].abs() < 1e-2 * numeric[i].abs()  # images are apart
        assert (plain[i] * way[i]).sum().item() == pytest.approx(numeric[i].item(), rel=1e-2)


@every_row
def test_predictions_do_not_change_by_a_bit_and_nothing_is_left_on_the_model(name):
    subject = Subject(name)
    with torch.inference_mode(), differentiable_kernels():
        plain = subject.call(subject.x)
    predicted, reading = subject.read(subject.x.clone().requires_grad_())
    assert torch.equal(predicted.detach(), plain) and not predicted.requires_grad and torch.is_grad_enabled()
    assert all(f.requires_grad for f in reading.features)
    with differentiable_kernels(), taps.record(subject.model, only=True) as readings, pytest.raises(taps.StopForward):
        subject.call(subject.x)
    assert all(torch.equal(f, g) for f, g in zip(readings[0].features, reading.features, strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in subject.model.modules())


@every_row
def test_features_are_maps_of_the_image_with_the_channels_that_heads_are_told(name):
    subject = Subject(name)
    _, reading = subject.read(subject.x)
    patch = architectures.architecture_of(subject.model).patch_of(subject.model)
    size = tuple(-(-n // patch) for n in subject.x.shape[-2:])
    assert [f.shape for f in reading.features] == [(2, width, *size) for width in taps.channels(subject.model)]
    assert len(reading.names) == len(reading.features) > 1


def references(name: str) -> dict:
    """As the host hands them to the model; of a smaller size than the image where they can be."""
    flat, large = drawn(1, 16, 4, 4, seed=9).repeat(2, 1, 1, 1), drawn(2, 16, 8, 6, seed=9)
    return {"flux": {"ref_latents": [flat, flat]}, "flux2": {"ref_latents": [drawn(2, 128, 2, 2, seed=9)]},
            "qwen-image": {"ref_latents": [flat[:, :, None]]}, "omnigen2": {"ref_latents": [flat]},
            "hidream": {"image_cond": large}, "wan": {"reference_latent": large}, "wan-fun-control": {"reference_latent": large},
            "z-image": {"ref_latents": [flat], "ref_contexts": [drawn(2, 3, WIDTH, seed=9)]}}[name]


REFERRING = ("flux", "flux2", "qwen-image", "omnigen2", "z-image", "hidream", "wan", "wan-fun-control")
BESIDE = [*((param.values[0], {}) for param in ROWS), *((name, references(name)) for name in REFERRING)]


@pytest.mark.parametrize("name,more", [pytest.param(name, more, id=f"{name}{', references' if more else ''}",
                                                    marks=pytest.mark.skipif(kind(name) is None, reason="this host has it not yet"))
                                       for name, more in BESIDE])
def test_what_is_in_one_place_of_the_image_is_in_that_place_of_the_map(name, more):
    subject = Subject(name)
    patch = architectures.architecture_of(subject.model).patch_of(subject.model)
    before = subject.read(subject.x, **more)[1].features[0]
    place = tuple(n // 2 for n in before.shape[-2:])
    x = subject.x.clone()
    x[1, ..., place[0] * patch:(place[0] + 1) * patch, place[1] * patch:(place[1] + 1) * patch] += 5
    change = (subject.read(x, **more)[1].features[0] - before).norm(dim=1)
    assert not change[0].any()
    assert change[1].argmax().item() == place[0] * before.shape[-1] + place[1]


def appearance(model, name: str) -> Appearance:
    image = {"samples": drawn(1, *TINY[name].shape, seed=8)}
    reference = ReadoutReference.execute(model, conditioning(name, 1), image, 7, 64)[0]
    return Appearance(name="appearance", head=AS_THEY_ARE, reference=reference)


@every_family
@pytest.mark.usefixtures("inference_mode")
def test_a_guided_run_reads_every_target_at_every_move_and_leaves_the_model_as_it_was(name):
    model, trace = tiny_model(name), Trace()
    targets = (Spatial(name="depth", head=depth_head(model), image=torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4)), end=1.0),
               replace(appearance(model, name), end=1.0))
    plain = sampled(model, name)
    steered = sampled(guided("test", model, targets, Move(), trace), name)
    assert torch.isfinite(steered).all() and not torch.equal(steered, plain)
    assert [row["target"] for row in trace.rows] == ["depth", "appearance"] * (len(trace.rows) // 2)
    flow = is_flow(model.get_model_object("model_sampling"))
    assert len({row["sigma"] for row in trace.rows}) in (3, 4 - flow)  # not a flow model's first, of noise alone, nor a last with too little
    assert all(0 < energy < float("inf") for row in trace.rows for energy in row["energy"])
    assert torch.equal(sampled(model, name), plain)


@pytest.mark.parametrize("name,size", [pytest.param(name, size, marks=pytest.mark.skipif(name not in HERE, reason="this host has it not yet"))
                                       for name, size in (("flux", (3, 3)), ("chroma-radiance", (8, 6)), ("pixeldit", (8, 6)))])
@pytest.mark.usefixtures("inference_mode")
def test_features_without_a_head_are_compared_near_the_tokens_also_where_latents_are_pixels(name, size):
    model = tiny_model(name)
    target = appearance(model, name)
    sampled(guided("test", model, (target,), Move()), name)
    readouts = [readout for known in target.reference.readouts.values() for readout in known.values()]
    assert readouts and all(readout.shape[-2:] == size for readout in readouts)


@every_family
@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
@pytest.mark.usefixtures("inference_mode")
def test_a_step_pulls_along_the_finite_differences_of_its_energy(name, again):
    model = tiny_model(name)
    head, found = depth_head(model), {}

    class Probe(Run):
        def guided(self, step, branches):
            conds, heads = self.prediction.positive, [head]

            def energy(x):
                readout = read(head, replace(step, x=x).read(conds, heads), (4, 4)).double()
                return (readout * drawn(*readout.shape[1:]).double()).flatten(1).sum(1)

            def pull(reading):
                with torch.inference_mode(False), torch.enable_grad(), InferenceTensorMode():
                    features = [f.detach().clone().requires_grad_() for f in reading.of(head)]
                    readout = head(features, reading.emb.clone(), (4, 4))
                    pulled = torch.autograd.grad((readout * drawn(*readout.shape[1:])).sum(), features)
                return list(pulled), torch.ones(len(step.x))

            _, gradient = step.gradient(conds, heads, pull, again)
            way, length = drawn(*step.x.shape, seed=11), 2e-3 * step.latent_scale
            found.setdefault("numeric", (energy(step.x + length * way) - energy(step.x - length * way)) / (2 * length))
            found.setdefault("gradient", (gradient * way).flatten(1).sum(1))
            return step.predictions(branches), None

    target = Spatial(name="depth", head=head, image=torch.rand(1, 3, 16, 16))
    with patch("readout_guidance_pack.nodes.engine.guidance.Run", Probe):
        sampled(guided("test", model, (target,), Move()), name, steps=2 + is_flow(model.get_model_object("model_sampling")))
    assert (found["gradient"] - found["numeric"]).norm() < 1e-2 * found["numeric"].norm()


@pytest.mark.parametrize("name", [name for name in ("flux", "flux2", "sd3", "z-image", "lumina2", "qwen-image", "wan") if name in HERE])
def test_the_same_strength_does_the_same_work_on_every_flow_model(name):
    """The way that the default range moves a variance-preserving latent, summed over twenty Euler steps: Stable Diffusion's is 3.5. Fewer
    steps go as far (test_moves.py)."""
    model = tiny_model(name)
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 20).double()
    acting = (sigmas[:-1] >= sampling.percent_to_sigma(Spatial.end)) & (sigmas[1:] > 0)
    scales = torch.tensor([prediction_scale(model.model, s) for s in sigmas[:-1].tolist()])
    way = scales * (1 - sigmas[1:] / sigmas[:-1]) / torch.hypot(sigmas[1:], 1 - sigmas[1:])
    assert 3.8 < way[acting].sum() < 5.1 and way[acting].max() < 1.6 and scales[0] == 0


@pytest.mark.parametrize("strength", [0.0, 0.1])
@pytest.mark.parametrize("name", [name for name in ("flux", "qwen-image") if name in HERE])
@pytest.mark.usefixtures("inference_mode")
def test_where_no_noise_is_added_a_run_begins_with_its_latent(name, strength):
    model, seen = tiny_model(name), []
    target = Spatial(name="depth", head=depth_head(model), image=torch.rand(1, 3, 16, 16))
    steered = guided("again", guided("test", model, (target,), Move(strength)), (target,), Move(strength))
    for noise in (torch.zeros(1, *TINY[name].shape), drawn(1, *TINY[name].shape)):
        latent = drawn(1, *TINY[name].shape, seed=7)
        comfy.sample.sample(steered, noise, 2, 3.0, "euler", "simple", conditioning(name, 1), conditioning(name, 2), latent, disable_pbar=True,
                            callback=lambda step, denoised, x, steps: seen.append(x) if not step else None)
    assert torch.allclose(seen[0], model.model.process_latent_in(latent), atol=1e-6)
    assert torch.equal(seen[1], noise)  # the host's way, where there is some


def test_distilled_models_have_one_branch(inference_mode):
    model, trace = tiny_model("flux"), Trace()
    target = Spatial(name="depth", head=depth_head(model), image=torch.rand(1, 3, 16, 16))
    steered = sampled(guided("test", model, (target,), Move(), trace), "flux", steps=5, cfg=1.0)
    assert torch.isfinite(steered).all() and len({row["sigma"] for row in trace.rows}) == 4  # not at the first, of noise alone


def test_a_block_that_another_pack_leaves_out_is_said(inference_mode):
    model = tiny_model("flux")
    target = Spatial(name="depth", head=depth_head(model), image=torch.rand(1, 3, 16, 16))
    steered = guided("test", model, (target,), Move())
    skipped = int(taps.names(model.model.diffusion_model)[0].rpartition(".")[2])
    steered.set_model_patch_replace(lambda args, more: {"img": args["img"], "txt": args["txt"]}, "dit", "double_block", skipped)
    with pytest.raises(ValueError, match="^test: in a guided step the diffusion model was skipped in part"):
        sampled(steered, "flux")


def test_a_pack_that_runs_blocks_in_its_own_way_is_said(inference_mode):
    """As TeaCache and PuLID do, whose copies of the forward pass tell blocks nothing."""
    model = tiny_model("flux")
    target = Spatial(name="depth", head=depth_head(model), image=torch.rand(1, 3, 16, 16))
    steered, blocks = guided("test", model, (target,), Move()), model.model.diffusion_model.single_blocks

    def untold(args, _more):
        return {"img": blocks[0](args["img"], vec=args["vec"], pe=args["pe"])}

    steered.set_model_patch_replace(untold, "dit", "single_block", 0)
    steered.set_model_unet_function_wrapper(lambda ask, given: ask(given["input"], given["timestep"], **given["c"]))
    with pytest.raises(ValueError, match=r"^test: in a guided step the diffusion model was run in an unexpected way \(a block was not given "
                                         r"img_slice, which says where the image begins\), .* a model function wrapper of test_transformers\. "
                                         "Connect the MODEL"):
        sampled(steered, "flux")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.model.diffusion_model.modules())


def test_videos_are_refused_by_name(inference_mode):
    model = tiny_model("wan")
    target = Spatial(name="depth", head=depth_head(model), image=torch.rand(1, 3, 16, 16))
    latent = torch.zeros(1, 16, 3, 8, 6)
    with pytest.raises(ValueError, match="^test: the latent has 3 frames, and videos cannot be guided yet"):
        comfy.sample.sample(guided("test", model, (target,), Move()), latent, 2, 3.0, "euler", "simple", conditioning("wan", 1),
                            conditioning("wan", 2), latent, disable_pbar=True)


def test_layers_are_refused_by_name(inference_mode):
    model = tiny_model("qwen-image", use_additional_t_cond=True)
    target, latent = Spatial(name="depth", head=depth_head(model), image=torch.rand(1, 3, 16, 16)), torch.zeros(1, 16, 4, 8, 6)
    said = "the latent has 4 frames, as Qwen-Image Layered uses for an image and its 3 layers, and layers cannot be guided yet"
    with pytest.raises(ValueError, match=f"^test: {said}"):
        comfy.sample.sample(guided("test", model, (target,), Move()), latent, 2, 3.0, "euler", "simple", conditioning("qwen-image", 1),
                            conditioning("qwen-image", 2), latent, disable_pbar=True)
    with pytest.raises(ValueError, match=f"^Readout Reference: {said}"):
        ReadoutReference.execute(model, conditioning("qwen-image", 1), {"samples": latent}, 1, 64)


def test_engines_are_refused_by_name(inference_mode):
    """TensorRT's stand in the place of the whole network, which is then of no class of the host's."""
    model = tiny_model("flux")
    target = Spatial(name="depth", head=depth_head(model), image=torch.rand(1, 3, 16, 16))
    model.model.diffusion_model = type("TrTUnet", (torch.nn.Module,), {"__module__": "tensorrt_loader"})()
    with pytest.raises(ValueError, match=r"^test: this model \(Flux\) cannot be guided by its features: TrTUnet is not a supported architecture"):
        guided("test", model, (target,), Move())


def test_heads_of_another_model_are_refused_by_name(inference_mode):
    head = depth_head(tiny_model("flux"))
    for name in ("chroma", "flux2"):  # with as many channels
        with pytest.raises(ValueError, match="^test: the depth head was made on Flux with the features of a Flux 2x64.2x64, but this model"):
            guided("test", tiny_model(name) if name == "chroma" else tiny_model(name, depth=3),
                   (Spatial(name="depth", head=head, image=torch.rand(1, 3, 16, 16)),), Move())


# Not Flux, which has what is kept copied: nothing else sees those copies.
WIDE = {"sd3": {"depth": 8, "num_blocks": 8, "pos_embed_max_size": 32, "num_patches": 1024,
                "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": 512}}},
        "qwen-image": {"num_layers": 8, "attention_head_dim": 128, "num_attention_heads": 4, "axes_dims_rope": (16, 56, 56)},
        "z-image": {"dim": 512, "n_heads": 4, "n_kv_heads": 4, "axes_dims": [32, 48, 48], "n_layers": 8, "ffn_dim_multiplier": 8 / 3},
        "pixeldit": {"patch_size": 16, "hidden_size": 384, "num_groups": 6, "patch_depth": 8}}


@pytest.mark.parametrize("name", [name for name in WIDE if name in HERE])
@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
@pytest.mark.usefixtures("inference_mode")
def test_the_host_is_told_what_a_guided_step_keeps(name, again):
    model = tiny_model(name, **WIDE[name])
    head = depth_head(model)
    target = Spatial(name="depth", head=head, image=torch.rand(1, 3, 16, 16), end=1.0)
    steered = guided("test", model, (target,), Move(), recompute="on" if again else "off")
    size = (256, 256) if name == "pixeldit" else (32, 32)  # of as many tokens
    shape = (2, *TINY[name].shape[:-2], *size)
    kept = most_kept(lambda: sampled(steered, name, 3, size=size), [*model.model.parameters(), *head.parameters()])
    told = memory.kept_of_transformer(model.model, shape, [{}], again)
    assert kept < 1.2 * told and told < 2 * kept  # a small part of it is the head's
    # A head is counted as a network, which this is not.
    assert memory.guided_step_bytes(model.model, shape, [{}], [head], again) < (12 if again else 4) * kept


@pytest.mark.skipif("pixeldit" not in HERE, reason="this host has it not yet")
def test_a_network_is_counted_by_its_readout_also_where_latents_are_pixels(inference_mode):
    model = tiny_model("pixeldit")
    with torch.inference_mode(False):
        head = ReadoutHead("depth", taps.channels(model.model.diffusion_model), emb_channels=EMBEDDED, **of_model(model)).eval()
    head.requires_grad_(False)
    steered = guided("test", model, (Spatial(name="depth", head=head, image=torch.rand(1, 3, 16, 16), end=1.0),), Move(), recompute="on")
    kept = most_kept(lambda: sampled(steered, "pixeldit", 3, size=(64, 64)), [*model.model.parameters(), *head.parameters()])
    assert kept < memory.guided_step_bytes(model.model, (2, 3, 64, 64), [{}], [head], True) < 8 * kept


@pytest.mark.usefixtures("inference_mode")
def test_words_and_reference_images_count():
    """As many tokens again, in two references of half the size, and then the same in words, keep as much again."""
    name, model = "qwen-image", tiny_model("qwen-image", **WIDE["qwen-image"])
    target = Spatial(name="depth", head=depth_head(model), image=torch.rand(1, 3, 16, 16), end=1.0)
    steered, half = guided("test", model, (target,), Move(), recompute="off"), torch.zeros(1, 16, 1, 16, 32)
    (words, more), = conditioning(name, 1)
    kept, told = [], []
    for said in ([[words, more]], [[words, more | {"reference_latents": [half, half]}]], [[words.repeat(1, 52, 1), more]]):
        latent = torch.zeros(1, 16, 1, 32, 32)

        def step(said=said, x=latent):
            comfy.sample.sample(steered, x, 3, 1.0, "euler", "simple", said, said, x, disable_pbar=True)

        kept.append(most_kept(step, model.model.parameters()))
        told.append(memory.kept_of_transformer(model.model, latent.shape, comfy.sampler_helpers.convert_cond(said), recompute=False))
    for i in (1, 2):
        assert 1.8 < told[i] / told[0] < 2.2 and kept[i] / kept[0] == pytest.approx(told[i] / told[0], rel=0.2)
    both = comfy.sampler_helpers.convert_cond([[words, more], [words.repeat(1, 52, 1), more]])
    assert memory.kept_of_transformer(model.model, latent.shape, both, recompute=False) == told[2]  # of several the longest


@pytest.mark.skipif("hidream" not in HERE, reason="this host has it not yet")
@pytest.mark.usefixtures("inference_mode")
def test_an_image_to_edit_counts():
    """HiDream-E1's goes through the blocks as so many tokens again."""
    model = tiny_model("hidream")
    target = Spatial(name="depth", head=depth_head(model), image=torch.rand(1, 3, 16, 16), end=1.0)
    steered, latent, kept, told = guided("test", model, (target,), Move(), recompute="off"), torch.zeros(1, 16, 32, 32), [], []
    (words, more), = conditioning("hidream", 1)
    for said in ([[words, more]], [[words, more | {"concat_latent_image": drawn(1, 16, 32, 32), "concat_mask": torch.zeros(1, 1, 32, 32)}]]):
        def step(said=said):
            comfy.sample.sample(steered, latent, 3, 1.0, "euler", "simple", said, said, latent, disable_pbar=True)

        kept.append(most_kept(step, model.model.parameters()))
        told.append(memory.kept_of_transformer(model.model, latent.shape, comfy.sampler_helpers.convert_cond(said), recompute=False))
    assert 1.7 < told[1] / told[0] < 2.1 and kept[1] / kept[0] == pytest.approx(told[1] / told[0], rel=0.2)
