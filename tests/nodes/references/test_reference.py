"""A reference: the image and the way that it holds, the runs that it serves, and what it keeps between them."""
import logging
from types import SimpleNamespace

import nodes as host_nodes
import psutil
import pytest
import torch

from batches import close, sampled
from readout_guidance_pack.nodes.references import reference as reference_module
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from relations import BOX, calls
from tools.tables.parts import windowed

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heun"])
def test_the_reference_is_the_stock_samplers_image_and_its_way(w, sampler):
    latent, reference = w.made(sampler=sampler)
    plain, = host_nodes.common_ksampler(w.model, 1, 4, 3.0, sampler, "karras", w.positive, w.negative, w.latent())
    assert torch.equal(latent["samples"], plain["samples"])
    way = reference.trajectory
    assert way.sigmas[0] == 0 and torch.equal(w.model.model.process_latent_out(way.latents[0]), plain["samples"])
    assert (way.sigmas.diff() > 0).all() and len(way.sigmas) == 5
    noise = torch.randn(1, 3, 64, 64, generator=torch.manual_seed(1))
    assert torch.allclose(way.latents[-1], noise * (1 + way.sigmas[-1] ** 2).sqrt(), atol=1e-3)


def test_one_step_is_a_way(w):
    _, reference = w.made(steps=1)
    assert len(reference.trajectory.sigmas) == 2


def test_in_context_windows_each_image_is_compared_with_its_own_reference(w):
    """Images of a UNet do not see each other, so windows change nothing."""
    reference = ReadoutReference.execute(w.model, w.positive, w.scene(batch=4), 3, 64)[0]
    model = ApplyReadoutGuidance.execute(w.model, w.like("appearance", reference), 0.1)[0]
    whole = sampled(w, model, 4)
    assert not close(whole, sampled(w, w.model, 4))
    assert close(sampled(w, windowed(model, 2, 0, False), 4), whole)


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


def test_a_renoised_reference_serves_any_sampler_and_batch(w):
    reference = ReadoutReference.execute(w.model, w.positive, w.scene(), 3, 64)[0]
    for sampler in ("euler_ancestral", "heun", "dpmpp_2m"):
        (out, guided), (_, plain) = (w.sample(w.like("identity", reference, box=BOX), w.latent(2), sampler=sampler, strength=strength)
                                     for strength in (0.1, 1e-7))
        assert out.shape[0] == 2 and sum(guided[-1]["energy"]) < sum(plain[-1]["energy"]), sampler
    detected, _ = w.sample(w.like("identity", reference, box=[[BOX]]), w.latent(2), sampler="dpmpp_2m")
    assert torch.equal(detected, out)
