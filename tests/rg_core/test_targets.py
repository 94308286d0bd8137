"""Targets to gradients: checked against gradients taken directly, in float64."""
import torch
from torch import nn

from readout_guidance_pack.rg_core import energies, gradients, regions, taps, targets
from readout_guidance_pack.rg_core.head import ReadoutHead

CHANNELS = [32, 32]
CPU = torch.device("cpu")


def reading(batch=2, seed=0) -> taps.Reading:
    rng = torch.Generator().manual_seed(seed)
    return taps.Reading(torch.randn(batch, 16, generator=rng),
                        [torch.randn(batch, 32, *s, generator=rng) for s in ((4, 4), (8, 8))])


def target(seed: int, **kwargs) -> targets.Spatial:
    torch.manual_seed(seed)
    head = ReadoutHead("pose", CHANNELS, projection_dim=128, emb_channels=16).eval().requires_grad_(False)
    return targets.Spatial(name="pose", head=head, image=torch.rand(1, 3, 8, 8), **kwargs).at((8, 8), CPU)


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


def test_one_picture_of_a_batch_does_not_feel_the_others():
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


def test_models_without_decoder_blocks_are_named():
    try:
        taps.modules(nn.Linear(2, 2))
    except taps.NoTaps as error:
        assert "Linear" in str(error)
    else:
        raise AssertionError("a Linear has no taps")


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


def test_a_drag_along_its_path_stops_where_each_picture_says():
    paths = torch.tensor([[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0]]])
    drag = targets.Drag(name="drag", head=target(1).head, paths=paths, stops=(0.0, 0.25, 0.75, 1.0)).at((8, 8), CPU)
    start, end, counts = drag.points
    assert torch.allclose(end[:, 0], torch.tensor([[0.0, 0.0], [0.25, 0.0], [0.5, 0.5], [0.5, 1.0]]))
    assert (start == 0).all() and counts[:, 0].tolist() == [0, 1, 1, 1]  # nothing is dragged in the first picture
