"""References and relational targets inside the real host, on the demo model."""
import json
import logging
from types import SimpleNamespace

import comfy.model_management
import comfy.samplers
import nodes as host_nodes
import numpy as np
import psutil
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustom

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes.demo import demo_model, demo_nodes
from readout_guidance_pack.nodes.references import recording_ksampler
from readout_guidance_pack.nodes.references import reference as reference_module
from readout_guidance_pack.nodes.references.invert import ReadoutInvert
from readout_guidance_pack.nodes.references.reference import Reference
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.nodes.samplers import guided_ksampler
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from readout_guidance_pack.nodes.targets import color
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.drag_path import DragPath
from readout_guidance_pack.nodes.targets.likeness import AppearanceTarget, IdentityTarget, StructureTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget

pytestmark = pytest.mark.usefixtures("inference_mode")

BOX = {"x": 10, "y": 4, "width": 40, "height": 50}
DRAG = "[[[0.3, 0.4], [0.6, 0.5]]]"


class World:
    def __init__(self):
        self.model, self.clip, self.vae = demo_model.load_demo()
        self.heads = {kind: load_head(HEADS_FOLDER / f"demo_{kind}.safetensors")
                      for kind in ("pose", "correspondence", "appearance", "identity")}
        self.positive = self.clip.encode_from_tokens_scheduled(self.clip.tokenize("a figure in a red shirt, sea"))
        self.negative = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(""))
        self.calls = 0
        self.model.model.diffusion_model.register_forward_pre_hook(self.count)

    def count(self, _module, _args):
        self.calls += 1

    def latent(self, batch=1, size=(64, 64)):
        return {"samples": torch.zeros(batch, 3, *size)}

    def scene(self, size=(64, 64), batch=1):
        return {"samples": self.vae.encode(demo_nodes.DemoScene.execute(5, size[1], size[0], batch).args[0])}

    def made(self, steps=4, sampler="euler", cache_mb=64, size=(64, 64)):
        return recording_ksampler.KSamplerReadoutReference.execute(self.model, 1, steps, 3.0, sampler, "karras", self.positive,
                                                                   self.negative, self.latent(size=size), 1.0, cache_mb).args

    def drag(self, reference, text=DRAG, **changes):
        return DragTarget.execute(**{"head": self.heads["correspondence"], "reference": reference, "drags": text,
                                     "weight": 1.0, "start_percent": 0.0, "end_percent": 0.5} | changes).args[0]

    def like(self, kind, reference, **changes):
        node = {"appearance": AppearanceTarget, "identity": IdentityTarget}[kind]
        return node.execute(**{"head": self.heads[kind], "reference": reference, "weight": 1.0, "start_percent": 0.0,
                               "end_percent": 0.5} | changes).args[0]

    def sample(self, guidance, latent=None, steps=4, sampler="euler", strength=0.1):
        out, trace, _ = guided_ksampler.KSamplerReadoutGuidance.execute(self.model, 1, steps, 3.0, sampler, "karras", self.positive, self.negative,
                                                                        latent or self.latent(), 1.0, guidance, strength).args
        return out["samples"], json.loads(trace)


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        yield World()


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heun"])
def test_the_reference_is_the_stock_samplers_picture_and_its_way(w, sampler):
    latent, reference = w.made(sampler=sampler)
    plain, = host_nodes.common_ksampler(w.model, 1, 4, 3.0, sampler, "karras", w.positive, w.negative, w.latent())
    assert torch.equal(latent["samples"], plain["samples"])
    way = reference.trajectory
    assert way.sigmas[0] == 0 and torch.equal(w.model.model.process_latent_out(way.latents[0]), plain["samples"])
    assert (way.sigmas.diff() > 0).all() and len(way.sigmas) == 5
    noise = torch.randn(1, 3, 64, 64, generator=torch.manual_seed(1))
    assert torch.allclose(way.latents[-1], noise * (1 + way.sigmas[-1] ** 2).sqrt(), atol=1e-3)


def test_relational_targets_act_chain_and_repeat_exactly(w):
    _, reference = w.made()
    plain, _ = w.sample(())
    both = w.like("appearance", reference, guidance=w.drag(reference))
    results = {}
    for name, guidance in (("drag", w.drag(reference)), ("appearance", both[1:]), ("both", both), ("identity", w.like("identity", reference))):
        results[name], trace = w.sample(guidance)
        again, _ = w.sample(guidance)
        assert torch.equal(results[name], again) and torch.isfinite(again).all()  # the first run read the reference, the second did not
        assert {row["target"] for row in trace} == {t.name for t in guidance}
    assert not torch.equal(results["drag"], results["both"]) and not torch.equal(results["drag"], plain)
    assert torch.equal(plain, w.sample(both, strength=0.0)[0])
    assert torch.equal(plain, w.sample(w.drag(reference, weight=0.0))[0])
    assert torch.equal(plain, w.sample(w.drag(reference, "[]"))[0])  # nothing drawn yet
    scene = demo_nodes.DemoScene.execute(5, 64, 64, 1).args
    with_pose = PoseTarget.execute(w.heads["pose"], 1.0, 0.0, 0.5, image=scene[1], guidance=both)[0]
    assert [row["target"] for row in w.sample(with_pose)[1]][:3] == ["drag", "appearance", "pose"]


def test_the_patched_model_in_the_stock_sampler_gives_the_same(w):
    _, reference = w.made()
    guidance = w.drag(reference)
    patched = ApplyReadoutGuidance.execute(w.model, guidance, 0.1)[0]
    stock, = host_nodes.common_ksampler(patched, 1, 4, 3.0, "euler", "karras", w.positive, w.negative, w.latent())
    assert torch.equal(stock["samples"], w.sample(guidance)[0])


def calls(w, action):
    before = w.calls
    action()
    return w.calls - before


def test_a_second_drag_does_not_read_the_reference_again(w):
    _, reference = w.made()
    first = calls(w, lambda: w.sample(w.drag(reference)))
    second = calls(w, lambda: w.sample(w.drag(reference, "[[[0.5, 0.5], [0.7, 0.2]]]")))
    guided_levels = len({row["sigma"] for row in w.sample(w.drag(reference))[1]})  # however many moves are made there
    assert guided_levels >= 2 and first - second == guided_levels


def test_what_earlier_settings_needed_makes_room(w, caplog):
    """A budget for four readouts."""
    _, reference = w.made(cache_mb=1)
    for steps in (4, 5, 6, 7):
        first, second, third = (calls(w, lambda: w.sample(w.drag(reference), steps=steps)) for _ in range(3))
        assert first > second == third
    assert "cache_mb" not in caplog.text


def test_what_is_put_on_a_guided_model_counts_for_the_reference_too(w):
    _, reference = w.made()
    guided = ApplyReadoutGuidance.execute(w.model, w.drag(reference), 0.1)[0]
    changed, weight = guided.clone(), "diffusion_model.output_blocks.0.0.out_layers.3.weight"
    more = 0.1 * torch.randn(w.model.model.state_dict()[weight].shape, generator=torch.Generator().manual_seed(7))
    changed.add_patches({weight: ("diff", (more,))})

    def run(model):
        return host_nodes.common_ksampler(model, 1, 4, 3.0, "euler", "karras", w.positive, w.negative, w.latent())[0]["samples"]

    alone = run(changed)
    reference.readouts.clear()
    run(guided)
    assert torch.equal(run(changed), alone)


def test_over_its_budget_a_reference_is_read_again_and_says_so(w, caplog):
    _, reference = w.made(cache_mb=0)
    _, roomy = w.made()
    with caplog.at_level(logging.WARNING):
        first = calls(w, lambda: w.sample(w.drag(reference)))
        second = calls(w, lambda: w.sample(w.drag(reference)))
    assert first == second and not reference.readouts
    assert sum("cache_mb" in record.message for record in caplog.records) == 1
    assert torch.equal(w.sample(w.drag(reference))[0], w.sample(w.drag(roomy))[0])


def test_outside_its_mask_a_drag_leaves_the_reference_as_it_was(w):
    for sampler in ("euler", "dpmpp_2m"):
        latent, reference = w.made(sampler=sampler)
        mask = torch.zeros(1, 64, 64)
        mask[:, :, 32:] = 1
        dragged, _ = w.sample(w.drag(reference, mask=mask), sampler=sampler)
        assert torch.allclose(dragged[..., :32], latent["samples"][..., :32], atol=1e-4)
        assert (dragged - latent["samples"])[..., 32:].abs().max() > 0.05


def test_a_reference_recorded_at_other_sigmas_serves(w):
    dragged = [w.sample(w.drag(w.made(steps=steps)[1]), steps=4)[0] for steps in (4, 7)]
    plain, _ = w.sample(())
    assert (dragged[1] - dragged[0]).norm() < 0.5 * (dragged[0] - plain).norm()


def test_where_main_memory_is_short_nothing_is_kept(w, monkeypatch):
    """The host, which then lets go of what nodes gave, cannot see what a reference keeps."""
    _, reference = w.made()
    plenty, _ = w.sample(w.drag(reference))
    assert reference.readouts
    memory = psutil.virtual_memory()
    monkeypatch.setattr(reference_module, "psutil", SimpleNamespace(virtual_memory=lambda: memory._replace(available=memory.total // 20)))
    reference.readouts[w.model].popitem()
    short, _ = w.sample(w.drag(reference))
    assert torch.equal(short, plenty) and not reference.readouts


def test_inversion_gives_the_picture_back(w):
    latent = w.scene()
    noise, reference = ReadoutInvert.execute(w.model, w.positive, w.negative, latent, 20, 1.0, "karras", 64).args
    back, = host_nodes.common_ksampler(w.model, 0, 20, 1.0, "euler", "karras", w.positive, w.negative, noise, disable_noise=True)
    error = ((back["samples"] - latent["samples"]) / 2).square().mean()
    assert -10 * error.log10() > 27
    assert torch.allclose(reference.trajectory.latents[0], latent["samples"])
    assert torch.allclose(reference.trajectory.latents[-1], noise["samples"], atol=1e-4)


@pytest.mark.parametrize("scheduler, steps, cfg, most", [
    ("simple", 20, 1.0, 0.05), ("linear_quadratic", 20, 1.0, 0.2), ("linear_quadratic", 4, 1.0, 2.0), ("normal", 20, 7.0, 0.2)])
def test_an_inversion_comes_back_or_says_that_it_does_not(w, caplog, scheduler, steps, cfg, most):
    """Its steps may be long near the clean picture, and cfg makes them bend."""
    latent, schedule = w.scene(), (cfg, "euler", scheduler, w.positive, w.negative)
    noise, _ = ReadoutInvert.execute(w.model, w.positive, w.negative, latent, steps, cfg, scheduler, 64).args
    back, = host_nodes.common_ksampler(w.model, 0, steps, *schedule, noise, disable_noise=True)
    error = (back["samples"] - latent["samples"]).square().mean().sqrt() / latent["samples"].square().mean().sqrt()
    assert error < most
    assert ("Readout Invert: the image will not come back as it was" in caplog.text) == (error > 0.1)


def test_guidance_rests_while_a_picture_is_inverted(w):
    def inverted(model):
        return ReadoutInvert.execute(model, w.positive, w.negative, w.scene(), 3, 1.0, "karras", 64).args[0]["samples"]

    guided, = ApplyReadoutGuidance.execute(w.model, w.like("appearance", w.made()[1]), 0.1).args
    assert torch.equal(inverted(guided), inverted(w.model))


def test_guidance_rests_where_sigmas_rise(w, caplog):
    """As where the noise of a picture is found with Flip Sigmas."""
    sigmas = comfy.samplers.calculate_sigmas(w.model.get_model_object("model_sampling"), "karras", 4).flip(0).clamp(min=1e-3)

    def noise(model):
        sampler = comfy.samplers.sampler_object("euler")
        return SamplerCustom.execute(model, False, 0, 1.0, w.positive, w.negative, sampler, sigmas, w.scene())[0]["samples"]

    _, reference = w.made()
    guided, = ApplyReadoutGuidance.execute(w.model, w.drag(reference, mask=torch.ones(1, 64, 64), end_percent=1.0), 0.1).args
    assert torch.equal(noise(guided), noise(w.model))
    assert [message for message in caplog.messages if "guided" in message] == [
        "Apply Readout Guidance: the noise levels of this run rise, as when the noise of a given image is found, so nothing is guided."]


def test_a_target_for_more_pictures_than_are_sampled_says_so(w, caplog):
    """As where a batch is rebatched, or one picture of a batch is sampled again: which of them it is, nobody tells the MODEL."""
    _, reference = recording_ksampler.KSamplerReadoutReference.execute(w.model, 1, 2, 3.0, "euler", "karras", w.positive, w.negative, w.latent(3),
                                                                       1.0, 64).args
    colors = color.ColorTarget.execute(demo_nodes.DemoScene.execute(5, 64, 64, 3).args[0], w.vae, 8, 1.0, 0.0, 0.75)[0]
    guidance = (*w.drag(reference), *colors)
    for batch, said in ((3, 0), (4, 0), (2, 2), (1, 2)):
        caplog.clear()
        w.sample(guidance, w.latent(batch), steps=2)
        heard = [line for line in caplog.messages if "at a time" in line]
        assert len(heard) == said and all(f"for 3 images, but {batch} {'is' if batch == 1 else 'are'} sampled at a time" in line for line in heard)
    assert "the reference of the drag target" in heard[0] and "the color target" in heard[1]


def test_interrupted_inversion_leaves_the_model_as_it_was(w):
    plain, _ = w.sample(())
    stop = w.calls + 3

    def interrupt(_module, _args, _out):
        if w.calls > stop:
            comfy.model_management.interrupt_current_processing()

    hook = w.model.model.diffusion_model.register_forward_hook(interrupt)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            ReadoutInvert.execute(w.model, w.positive, w.negative, w.scene(), 10, 1.0, "karras", 64)
    finally:
        hook.remove()
    assert w.calls < stop + 10
    assert torch.equal(plain, w.sample(())[0])


def test_a_drag_path_is_a_batch_that_starts_with_the_reference(w):
    latent, reference = w.made()
    guidance, batch = DragPath.execute(w.drag(reference), w.latent(), 3).args
    frames, _ = w.sample(guidance, batch)
    assert frames.shape[0] == 3 and batch["batch_index"] == [0, 0, 0]
    assert torch.allclose(frames[:1], latent["samples"], atol=2e-3)
    assert torch.allclose(frames[2:], w.sample(w.drag(reference))[0], atol=2e-2)
    assert (frames[1] - frames[0]).abs().max() > 0.02 and (frames[2] - frames[1]).abs().max() > 0.02


def test_a_renoised_reference_serves_any_sampler_and_batch(w):
    reference = ReadoutReference.execute(w.model, w.positive, w.scene(), 3, 64)[0]
    for sampler in ("euler_ancestral", "heun", "dpmpp_2m"):
        (out, guided), (_, plain) = (w.sample(w.like("identity", reference, box=BOX), w.latent(2), sampler=sampler, strength=strength)
                                     for strength in (0.1, 1e-7))
        assert out.shape[0] == 2 and sum(guided[-1]["energy"]) < sum(plain[-1]["energy"]), sampler
    detected, _ = w.sample(w.like("identity", reference, box=[[BOX]]), w.latent(2), sampler="dpmpp_2m")
    assert torch.equal(detected, out)


def said(action) -> str:
    with pytest.raises(ValueError, match="^[A-Z].*: ") as failure:
        action()
    return str(failure.value)


def test_a_box_in_shares_of_the_picture_is_that_in_pixels(w):
    _, reference = w.made()
    shares = {name: value / 64 for name, value in BOX.items()}
    (one,), (two,), (whole,) = (w.like("identity", reference, box=box) for box in (BOX, shares, {"x": 0, "y": 0, "width": 1, "height": 1}))
    assert one.box == pytest.approx(two.box) and whole.box == (0, 0, 1, 1)
    beside, = w.like("identity", reference, box={"x": -0.01, "y": 0.52, "width": 0.5, "height": 0.5})
    assert beside.box == pytest.approx((0, 0.52, 0.49, 0.48))
    far, = w.like("identity", reference, box={"x": 0.6, "y": 0.2, "width": 1.0, "height": 0.6})
    assert far.box == pytest.approx((0.6, 0.2, 0.4, 0.6))


@pytest.mark.parametrize("box", [[10, 20, 40, 50], [[10, 20, 40, 50]], (10, 20, 40, 50), np.array([10, 20, 40, 50])])
def test_a_box_in_another_form_is_shown_as_it_is(w, box):
    message = said(lambda: w.like("identity", w.made()[1], box=box))
    assert message.startswith("Identity Target: the box is ") and "10" in message and "an object with x, y, width and height" in message


def test_bad_relations_are_explained(w):
    _, reference = w.made()
    for text in ("no json", "[[[0.1, 0.2]]]", "{}", "[[[0.1], [0.2]]]", "[[[0.1, 0.2], [NaN, 0.2]]]", "[1, 2]"):
        if text != "{}":
            assert "drags cannot be read" in said(lambda: w.drag(reference, text))
    assert "drag 1 of zero length" in said(lambda: w.drag(reference, "[[[0.5, 0.5], [0.5, 0.5]]]"))
    assert "drag 1 with an end outside" in said(lambda: w.drag(reference, "[[[0.5, 0.5], [1.5, 0.5]]]"))
    many = json.dumps([[[0.1, 0.1], [0.2, 0.2]]] * 1025)
    assert "got 1025 drags; the maximum is 1024" in said(lambda: w.drag(reference, many))
    small = w.made(size=(48, 80))[1]
    message = said(lambda: w.sample(w.drag(small)))
    assert "80x48" in message and "64x64" in message and "KSampler (Readout Guidance)" in message
    other = Reference(reference.trajectory, reference.conditioning, "SDXL", 8)
    assert all(word in said(lambda: w.sample(w.drag(other))) for word in ("SDXL", "DemoWorld"))
    four = {"samples": torch.zeros(1, 4, 8, 8)}
    assert "4 channels" in said(lambda: ReadoutInvert.execute(w.model, w.positive, w.negative, four, 5, 1.0, "karras", 9))
    nan = {"samples": torch.full((1, 3, 8, 8), float("nan"))}
    assert "NaN" in said(lambda: ReadoutReference.execute(w.model, w.positive, nan, 5, 9))
    assert "contains no part" in said(lambda: w.like("identity", reference, box={"x": 99, "y": 0, "width": 5, "height": 5}))
    for boxes, number in (([[]], 0), ([[BOX], [BOX]], 2)):
        assert f"got {number} boxes" in said(lambda: w.like("identity", reference, box=boxes))
    assert "no drag" in said(lambda: DragPath.execute(w.like("identity", reference), w.latent(), 3))
    assert "got 2 latents" in said(lambda: DragPath.execute(w.drag(reference), w.latent(2), 3))
    late = host_nodes.ConditioningSetTimestepRange().set_range(w.positive, 0.3, 1.0)[0]
    silent = ReadoutReference.execute(w.model, late, w.scene(), 5, 9)[0]
    assert all(words in said(lambda: w.sample(w.drag(silent))) for words in ("KSampler (Readout Guidance)", "the drag target", "at this noise level"))
    assert "reads identity" in said(lambda: w.drag(reference, head=w.heads["identity"]))


def test_a_drag_target_does_nothing_only_where_nothing_was_drawn(w):
    _, reference = w.made()
    assert w.drag(reference, "[]", drags_json="[]") == w.drag(reference, "") == ()
    path = torch.tensor([[[10.0, 10.0]], [[20.0, 20.0]]])
    with pytest.raises(ValueError, match="^Drag Target: none of the 1 tracks is visible"):
        w.drag(reference, "[]", tracks={"track_path": path, "track_visibility": torch.tensor([[True], [False]])})
    drag, = w.drag(reference, "[]", tracks={"track_path": path})
    assert torch.allclose(drag.paths, (path / 64).movedim(0, 1))


def test_one_bad_drag_among_good_ones_is_left_out_with_a_warning(w, caplog):
    _, reference = w.made()
    with caplog.at_level(logging.WARNING):
        guidance = w.drag(reference, "[[[0.5, 0.5], [1.5, 0.5]], [[0.3, 0.4], [0.6, 0.5]]]")
    assert "drag 1 with an end outside the image" in caplog.text
    assert torch.equal(w.sample(guidance)[0], w.sample(w.drag(reference))[0])


def test_masked_drags_hold_one_reference_and_their_masks_have_its_shape(w):
    (_, one), (_, two) = w.made(), w.made(steps=5)
    mask = torch.zeros(1, 64, 64)
    mask[..., :32] = 1
    with pytest.raises(ValueError, match="targets have masks and different references, but the background can follow only one reference"):
        w.sample(w.drag(two, mask=mask, guidance=w.drag(one, mask=mask)))
    left, both = (w.sample(w.drag(one, mask=mask, guidance=beside))[0] for beside in ((), w.drag(one, mask=1 - mask)))
    held = one.trajectory.latents[0]
    assert torch.allclose(left[..., 32:], held[..., 32:], atol=1e-3) and not torch.allclose(both[..., 32:], held[..., 32:], atol=0.05)
    with pytest.raises(ValueError, match="Drag Target: the mask is 64x32 pixels, but the reference image is 64x64"):
        w.drag(one, mask=mask[:, :32])


def test_drags_are_drawn_on_a_picture_of_the_references_shape(w):
    _, reference = w.made(size=(48, 64))
    arrow, = w.drag(reference)
    for height, width in ((48, 64), (600, 800), (599, 801), (47, 64)):
        drawn, = w.drag(reference, image=torch.zeros(1, height, width, 3))
        assert torch.equal(drawn.paths, arrow.paths)
    square = torch.zeros(1, 800, 800, 3)
    with pytest.raises(ValueError, match="^Drag Target: the image is 800x800 pixels, but the reference image is 64x48, .* misplaced"):
        w.drag(reference, image=square)
    with pytest.raises(ValueError, match="the image is 800x800"):  # before the pixels are taken for places outside
        w.drag(reference, "[]", drags_json="[[[400, 400], [900, 400]]]", image=square)
    assert w.drag(reference, "[]", image=square) == ()


def test_a_box_found_on_a_larger_picture_is_noticed(w, caplog):
    _, reference = w.made()
    beyond = {"x": 20, "y": 20, "width": 300, "height": 300}
    target, = w.like("appearance", reference, box=beyond)
    assert target.box == target.reference_box == (20 / 64, 20 / 64, 44 / 64, 44 / 64)
    w.like("identity", reference, reference_box=beyond)
    one, two = (record.message for record in caplog.records)
    assert one.startswith("Appearance Target: more than a fifth of the box {") and "64x64" in one and "300" in one
    assert two.startswith("Identity Target: more than a fifth of the reference_box {")
    caplog.clear()
    w.like("appearance", reference, box={"x": -5, "y": 4, "width": 50, "height": 60})
    cut = Reference(reference.trajectory, reference.conditioning, reference.family, 8)  # its picture had up to 519 pixels
    w.like("appearance", cut, box={"x": 505, "y": 0, "width": 14, "height": 519})
    assert not caplog.records


def test_without_a_head_the_models_own_features_are_compared(w, caplog):
    """One reading of the reference serves all of them, and they act beside heads."""
    _, reference = w.made()
    times = {"weight": 1.0, "start_percent": 0.0, "end_percent": 0.5}
    drag = DragTarget.execute(reference=reference, drags=DRAG, **times).args[0]
    looks = AppearanceTarget.execute(reference=reference, **times, guidance=drag).args[0]
    structure = StructureTarget.execute(reference=reference, **times).args[0]
    with_head = w.drag(reference, guidance=structure)
    results = [w.sample(guidance)[0] for guidance in (drag, looks, structure, with_head, w.drag(reference), ())]
    assert all(torch.isfinite(out).all() for out in results)
    assert all(not torch.equal(a, b) for i, a in enumerate(results) for b in results[:i])
    assert torch.equal(results[1], w.sample(looks)[0]) and not caplog.records
    first = calls(w, lambda: w.sample(StructureTarget.execute(reference=w.made()[1], **times).args[0]))
    assert first - calls(w, lambda: w.sample(structure)) > 0


def test_the_own_features_lead_where_heads_lead(w):
    """The same drag by features lowers the trained head's energy too."""
    _, reference = w.made(steps=8)
    by_head = w.drag(reference, end_percent=0.9)
    drag = DragTarget.execute(reference=reference, drags=DRAG, weight=1.0, start_percent=0.0, end_percent=0.9).args[0]
    watch = w.drag(reference, weight=1e-6, end_percent=0.9)
    before = w.sample(watch, steps=8)[1]
    after = [row for row in w.sample((*drag, *watch), steps=8)[1] if row["target"] == "drag 2"]
    assert after[-1]["energy"][0] < before[-1]["energy"][0] and w.sample(by_head, steps=8)[1]
