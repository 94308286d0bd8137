"""Targets to gradients: checked against gradients taken directly, in float64."""
from dataclasses import replace

import pytest
import torch
from torch import nn

from readout_guidance_pack.rg_core.features import architectures, taps
from readout_guidance_pack.rg_core.guidance import energies, gradients, targets
from readout_guidance_pack.rg_core.guidance.updates import Move
from readout_guidance_pack.rg_core.images import regions
from readout_guidance_pack.rg_core.readout.head import ReadoutHead

CHANNELS = [32, 32]
CPU = torch.device("cpu")


def reading(batch=2, seed=0) -> taps.Reading:
    rng = torch.Generator().manual_seed(seed)
    return taps.Reading(torch.randn(batch, 16, generator=rng),
                        [torch.randn(batch, 32, *s, generator=rng) for s in ((4, 4), (8, 8))])


def target(seed: int, **kwargs) -> targets.Spatial:
    torch.manual_seed(seed)
    head = ReadoutHead("pose", CHANNELS, projection_dim=128, emb_channels=16).eval().requires_grad_(False)
    return targets.Spatial(name="pose", head=head, image=torch.rand(1, 3, 8, 8), **kwargs).prepared((8, 8), CPU)


def test_gradient_points_along_each_energys_gradient_with_its_weight_as_size():
    wanted, span = target(1, weight=2.5), torch.tensor([3.0, 4.0])
    seen = reading()
    gradient, values, _ = gradients.at_taps(seen, [wanted], span, [None])
    head = wanted.head.double()
    features = [f.double().requires_grad_() for f in seen.features]
    energy = energies.spatial(head(features, seen.emb.double(), (8, 8)), wanted.image.double().expand(2, -1, -1, -1),
                              span.double(), head.control_range)
    direct = torch.autograd.grad(energy.sum(), features)
    assert torch.allclose(values[0].double(), energy.detach(), rtol=1e-5)
    for b in range(2):
        ours, theirs = (torch.cat([g[b].double().flatten() for g in gs]) for gs in (gradient, direct))
        assert torch.cosine_similarity(ours, theirs, dim=0) > 1 - 1e-9
        assert torch.isclose(ours.square().mean().sqrt(), torch.tensor(2.5, dtype=torch.float64), rtol=1e-5)


def test_targets_add_whatever_the_size_of_their_energies():
    one, two = target(1), target(2, weight=0.5)
    seen, span = reading(), torch.ones(2)
    both, values, _ = gradients.at_taps(seen, [one, two], span, [None, None])
    alone = [gradients.at_taps(seen, [t], span, [None])[0] for t in (one, two)]
    assert len(values) == 2
    for b, x, y in zip(both, *alone):
        assert torch.allclose(b, x + y, atol=1e-5)


def test_one_image_of_a_batch_does_not_feel_the_others():
    wanted, span = target(1), torch.tensor([3.0, 4.0])
    seen = reading()
    both, values, _ = gradients.at_taps(seen, [wanted], span, [None])
    first = taps.Reading(seen.emb[:1], [f[:1] for f in seen.features])
    alone, value, _ = gradients.at_taps(first, [wanted], span[:1], [None])
    assert torch.allclose(values[0][:1], value[0], rtol=1e-5)
    for x, y in zip(both, alone):
        assert torch.allclose(x[:1], y, rtol=1e-3, atol=1e-5)


def test_half_precision_features_get_half_precision_gradients_that_are_not_lost():
    wanted = target(1)
    seen = reading()
    half = taps.Reading(seen.emb.half(), [f.half() for f in seen.features])
    gradient, _, _ = gradients.at_taps(half, [wanted], torch.tensor([1e-6, 1e-6]), [None])
    assert all(g.dtype == torch.float16 for g in gradient)
    assert all((g != 0).float().mean() > 0.9 for g in gradient)


def test_models_that_no_row_is_of_are_named():
    with pytest.raises(architectures.NoTaps, match="Linear"):
        taps.names(nn.Linear(2, 2))


def test_boxes_and_masks_restrict_a_likeness():
    mask = regions.boxed(None, (0.25, 0.0, 0.5, 0.5), torch.zeros(1, 1, 4, 8))
    assert mask.sum() == 2 * 4 and (mask[0, 0, :2, 2:6] == 1).all()
    half = regions.boxed(torch.full((1, 1, 4, 8), 0.5), (0.0, 0.0, 0.3125, 1.0), torch.zeros(1, 1, 4, 8))
    assert torch.allclose(half[0, 0, 0], torch.tensor([0.5, 0.5, 0.25, 0, 0, 0, 0, 0]))  # 2.5 of 8 pixels wide


def test_what_is_in_one_box_is_moved_into_another():
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 1:3, 1:3] = 1.0
    moved = regions.moved(x, (1 / 8, 1 / 8, 2 / 8, 2 / 8), (4 / 8, 5 / 8, 2 / 8, 2 / 8))
    wanted = torch.zeros(1, 1, 8, 8)
    wanted[0, 0, 5:7, 4:6] = 1.0
    assert torch.allclose(moved, wanted, atol=1e-5)


def test_a_drag_along_its_path_stops_where_each_image_says():
    paths = torch.tensor([[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0]]])
    drag = targets.Drag(name="drag", head=target(1).head, paths=paths, stops=(0.0, 0.25, 0.75, 1.0)).prepared((8, 8), CPU)
    start, end, counts = drag.points
    assert torch.allclose(end[:, 0], torch.tensor([[0.0, 0.0], [0.25, 0.0], [0.5, 0.5], [0.5, 1.0]]))
    assert (start == 0).all() and counts[:, 0].tolist() == [0, 1, 1, 1]  # nothing is dragged in the first image


class Away(targets.Target):
    """Without a head: how far the image is from a constant, squared."""

    def energy(self, readout, span, reference):
        return (readout - (0.5 if reference is None else reference)).square().flatten(1).sum(1)


def image(batch=2, seed=3):
    return torch.randn(batch, 4, 6, 10, generator=torch.Generator().manual_seed(seed))


def seen(x):
    return x / 0.2 + 0.1


def test_the_gradient_at_a_prediction_is_that_of_the_energy_seen_through_the_latents_scale():
    x, wanted = image(), targets.Color(name="color", image=image(1, 5), cells=3, mask=torch.rand(1, 1, 6, 10)).prepared((6, 10), CPU)
    (gradient,), (energy,) = gradients.at_prediction(x, seen, [wanted], torch.ones(2), [None])
    exact = replace(wanted, image=wanted.image.double(), mask=wanted.mask.double())
    step, rng = 1e-4, torch.Generator().manual_seed(0)
    for b in range(2):
        along = torch.randn(x.shape[1:], generator=rng, dtype=torch.float64)
        ends = [exact.energy(seen(x[b:b + 1].double() + side * step * along), torch.ones(1), None) for side in (1, -1)]
        assert torch.isclose((ends[0] - ends[1]) / (2 * step), (gradient[b].double() * along).sum(), rtol=1e-4)
        assert torch.isclose(exact.energy(seen(x[b:b + 1].double()), torch.ones(1), None), energy[b].double(), rtol=1e-5)


def test_a_shift_is_as_long_as_the_strength_says_but_never_beyond_the_goal():
    x, target = image(), Away(name="away")
    found = gradients.at_prediction(x, seen, [target], torch.ones(2), [None])
    short = Move(1e-3).approach(found[0][0], found[1][0], scale=5.0, weight=2.0)
    assert torch.allclose(short.square().mean((1, 2, 3)).sqrt(), torch.full((2,), 1e-2))
    long = Move(1e3).approach(found[0][0], found[1][0], scale=5.0, weight=2.0)
    assert torch.allclose(seen(x + long), torch.full_like(x, 0.5), atol=1e-5)  # exactly there, whatever the strength
    there = gradients.at_prediction(x + long, seen, [target], torch.ones(2), [None])
    assert (Move().approach(there[0][0], there[1][0], 5.0, 1.0).abs() < 1e-5).all()


def test_a_reference_is_seen_as_the_prediction_is():
    x, other = image(), image(1, 8)
    _, (energy,) = gradients.at_prediction(x, seen, [Away(name="away")], torch.ones(2), [other])
    assert torch.allclose(energy, (seen(x) - seen(other)).square().flatten(1).sum(1))


def test_colors_are_compared_cell_by_cell_where_the_mask_is_white():
    x, wanted = image().double(), image(1, 5).double()
    cells = [(slice(0, 3), slice(0, 4)), (slice(0, 3), slice(3, 7)), (slice(0, 3), slice(6, 10)),
             (slice(3, 6), slice(0, 4)), (slice(3, 6), slice(3, 7)), (slice(3, 6), slice(6, 10))]  # 2 x 3 of 6 x 10; shared columns are in both
    by_hand = torch.stack([(x[:, :, r, c] - wanted[:, :, r, c]).mean((2, 3)).square().mean(1) for r, c in cells]).mean(0)
    assert torch.allclose(energies.color(x, wanted, 2), by_hand)
    assert torch.allclose(energies.color(x, wanted, 2, torch.ones(1, 1, 6, 10).double()), by_hand)
    mask = torch.zeros(1, 1, 6, 10).double()
    mask[..., 1:3, 7:9] = 1
    inside = (x - wanted)[:, :, 1:3, 7:9].mean((2, 3)).square().mean(1)
    assert torch.allclose(energies.color(x, wanted, 2, mask), inside)
    x.requires_grad_()
    gradient, = torch.autograd.grad(energies.color(x, wanted, 2, mask).sum(), x)
    assert (gradient[:, :, 1:3, 7:9] != 0).all() and (gradient * (1 - mask) == 0).all()


@pytest.mark.parametrize("energy, said", [
    (lambda x: x.square().mean(), r"own target is of shape \(\), .* of shape \(2,\)"), (lambda x: 1.0, "is a float"),
    (lambda x: x.detach().flatten(1).mean(1), "has a gradient"), (lambda x: -x.square().flatten(1).mean(1), "never less"),
    (lambda x: (0 * x).square().flatten(1).sum(1).sqrt(), "NaN or infinite")])
def test_energies_that_cannot_be_are_named(energy, said):
    class Own(targets.Target):
        def energy(self, readout, span, reference):
            return energy(readout)
    with pytest.raises(gradients.EnergyError, match=said):
        gradients.at_prediction(image(), seen, [Own(name="own")], torch.ones(2), [None])
