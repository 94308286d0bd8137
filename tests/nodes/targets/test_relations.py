"""Targets that relate an image to a reference (drags, appearance, structure, identity), inside the real host, on the demo model."""
import json
import logging

import nodes as host_nodes
import pytest
import torch

from readout_guidance_pack.nodes.demo import demo_nodes
from readout_guidance_pack.nodes.references import recording_ksampler
from readout_guidance_pack.nodes.references.invert import ReadoutInvert
from readout_guidance_pack.nodes.references.reference import Reference
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from readout_guidance_pack.nodes.targets import color
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.drag_path import DragPath
from readout_guidance_pack.nodes.targets.likeness import AppearanceTarget, StructureTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget
from relations import BOX, DRAG, World, calls, said

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        yield World()


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


def test_outside_its_mask_a_drag_leaves_the_reference_as_it_was(w):
    for sampler in ("euler", "dpmpp_2m"):
        latent, reference = w.made(sampler=sampler)
        mask = torch.zeros(1, 64, 64)
        mask[:, :, 32:] = 1
        dragged, _ = w.sample(w.drag(reference, mask=mask), sampler=sampler)
        assert torch.allclose(dragged[..., :32], latent["samples"][..., :32], atol=1e-4)
        assert (dragged - latent["samples"])[..., 32:].abs().max() > 0.05


def test_a_target_for_more_images_than_are_sampled_says_so(w, caplog):
    """As where a batch is rebatched, or one image of a batch is sampled again: which of them it is, nobody tells the MODEL."""
    _, reference = recording_ksampler.KSamplerReadoutReference.execute(w.model, 1, 2, 3.0, "euler", "karras", w.positive, w.negative, w.latent(3),
                                                                       1.0, 64).args
    colors = color.ColorTarget.execute(demo_nodes.DemoScene.execute(5, 64, 64, 3).args[0], w.vae, 8, 1.0, 0.0, 0.75)[0]
    guidance = (*w.drag(reference), *colors)
    for batch, times in ((3, 0), (4, 0), (2, 2), (1, 2)):
        caplog.clear()
        w.sample(guidance, w.latent(batch), steps=2)
        heard = [line for line in caplog.messages if "at a time" in line]
        assert len(heard) == times and all(f"for 3 images, but {batch} {'is' if batch == 1 else 'are'} sampled at a time" in line for line in heard)
    assert "the reference of the drag target" in heard[0] and "the color target" in heard[1]


def test_a_drag_path_is_a_batch_that_starts_with_the_reference(w):
    latent, reference = w.made()
    guidance, batch = DragPath.execute(w.drag(reference), w.latent(), 3).args
    frames, _ = w.sample(guidance, batch)
    assert frames.shape[0] == 3 and batch["batch_index"] == [0, 0, 0]
    assert torch.allclose(frames[:1], latent["samples"], atol=2e-3)
    assert torch.allclose(frames[2:], w.sample(w.drag(reference))[0], atol=2e-2)
    assert (frames[1] - frames[0]).abs().max() > 0.02 and (frames[2] - frames[1]).abs().max() > 0.02


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
