"""Context windows and tiles: the model called for some of the images, or for parts of one."""
import inspect

import nodes as host_nodes
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_context_windows import ContextWindowsManualNode

from batches import STEPS, close, sampled
from readout_guidance_pack.nodes.engine.batches import windows
from readout_guidance_pack.nodes.make_heads import estimate
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from tools.tables.parts import tiled, windowed

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.mark.parametrize("length, causal, first", [(2, False, "windows"), (3, True, "guidance")])
def test_each_context_window_is_guided_by_its_own_targets(w, length, causal, first):
    """Images of a UNet do not see each other, so windows change nothing."""
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


def test_a_window_with_all_images_in_another_order_is_guided_by_their_own_targets(w):
    """Windows of two that close the loop: images 3 and 1, before which the causal fix puts the second."""
    model = ApplyReadoutGuidance.execute(w.model, w.pose(3), 0.1)[0]
    looped = windowed(model, 2, 0, True, context_schedule="looped_uniform", closed_loop=True)
    assert close(sampled(w, looped, 3), sampled(w, model, 3))


def test_images_that_every_window_is_shown_are_known(w, monkeypatch):
    """latent_retain_index_list: in each window the first image of the batch is in the first place."""
    if "latent_retain_index_list" not in inspect.signature(ContextWindowsManualNode.execute).parameters:
        pytest.skip("this ComfyUI keeps none")
    found, own = [], windows.batch_index

    def known(x, whole, *args):
        places = own(x, whole, *args)
        found.append((places.tolist(), torch.equal(x, whole[places])))
        return places

    monkeypatch.setattr(windows, "batch_index", known)
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
def test_what_reads_single_images_knows_no_windows(w, freenoise):
    images = {"samples": torch.rand(3, 3, 64, 64, generator=torch.manual_seed(5))}

    def read(model):
        return estimate.ReadoutEstimate.execute(model, w.heads["pose"], w.negative, 0.9, 0, latent=images)[0]

    assert torch.equal(read(windowed(w.model, 2, 0, False, freenoise=freenoise)), read(w.model))


def in_halves(executor, model, conds, x, timestep, options):
    outs = [executor(model, conds, part, part_timestep, options) for part, part_timestep in zip(x.chunk(2), timestep.chunk(2))]
    return [torch.cat(pair) for pair in zip(*outs)]


def test_another_packs_windows_are_told_by_their_images(w, caplog):
    model = ApplyReadoutGuidance.execute(w.model, w.pose(4), 0.1)[0]
    halved = w.model.clone()
    halved.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "halves", in_halves)
    halved = ApplyReadoutGuidance.execute(halved, w.pose(4), 0.1)[0]
    assert close(sampled(w, halved, 4), sampled(w, model, 4)) and not caplog.records


def test_images_that_cannot_be_told_apart_are_said_once(w, caplog):
    halved = w.model.clone()
    halved.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "halves", in_halves)
    halved = ApplyReadoutGuidance.execute(halved, w.pose(4), 0.1)[0]
    latent = {"samples": torch.zeros(4, 3, 64, 64), "batch_index": [0, 0, 0, 0]}
    host_nodes.common_ksampler(halved, 1, STEPS, 3.0, "euler", "karras", w.positive, w.negative, latent)
    assert sum("does not say which" in r.message for r in caplog.records) == 1


def test_tiles_of_the_diffusion_model_are_put_together(w):
    """Tiles of a step are read as the whole image, so the gradient is that of the tiled model."""
    model = w.model.clone()
    model.set_model_unet_function_wrapper(tiled)
    guidance, size = w.pose(2, size=(96, 96), end_percent=0.9), (96, 96)
    plain = sampled(w, model, 2, size=size)
    energies = []
    for strength in (1e-9, 0.1):
        out, trace = w.sample(guidance, model=model, size=size, strength=strength, steps=10)
        energies.append(torch.tensor(trace[-1]["energy"]).mean())
    assert not close(out, plain) and energies[1] < 0.7 * energies[0]
