"""The closed form against independent computations in float64, and the changed copies against what is known of them."""

import pytest
import torch
import torch.nn.functional as F

from readout_guidance_pack.rg_core.fitting import comparing, pairs
from readout_guidance_pack.rg_core.guidance import energies
from readout_guidance_pack.rg_core.images import copies
from readout_guidance_pack.rg_core.readout.linear_head import from_maps

FEATURES = 6


def drawn(seed: int, count: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features whose first two tell what a thing is, under changes that are large in the others: of things, of the same and of others."""
    rng = torch.Generator().manual_seed(seed)
    what, other = torch.randn(2, count, 2, generator=rng, dtype=torch.float64)
    change = torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    change[:2] *= 0.1

    def seen(thing):
        return F.pad(thing, (0, FEATURES - 2)) + torch.randn(count, FEATURES, generator=rng, dtype=torch.float64) @ change.mT + 5

    return seen(what), seen(what), seen(other)


def summed(bands: int = 1) -> tuple[comparing.Differences, list]:
    differences, given = comparing.Differences(bands, FEATURES, torch.float64), []
    for band in range(bands):
        given.append(drawn(band))
        for part in zip(*(x.split(150) for x in given[-1])):  # in any number of pieces
            differences.add(band, *part)
    return differences, given


def test_directions_are_those_of_the_generalised_eigenvectors():
    differences, ((x, same, other),) = summed()
    (weight, bias), = differences.maps(3, 0.1)
    within, between = ((d.mT @ d) / len(d) for d in (x - same, x - other))
    within = within + 0.1 * within.diagonal().diag()
    ratios, axes = torch.linalg.eig(torch.linalg.inv(within) @ between)
    order = ratios.real.argsort(descending=True)[:3]
    for k, (ratio, axis) in enumerate(zip(ratios.real[order], axes.real[:, order].mT)):
        axis = axis / (axis @ within @ axis).sqrt() * ((ratio - 1) / (2 * ratio - 1)).sqrt()
        assert torch.allclose(weight[:, k] * (weight[:, k] @ axis).sign(), axis, atol=1e-6)
    assert torch.allclose(bias, -x.mean(0) @ weight)


def test_only_what_should_matter_is_compared():
    differences, _ = summed()
    (weight, bias), = differences.maps(2, 1e-6)
    x, same, other = (F.normalize(x @ weight + bias, dim=1) for x in drawn(7))
    raw = [F.cosine_similarity(x - 5, y - 5) for x, y in zip((drawn(7)[0],) * 2, drawn(7)[1:])]
    assert ((x * same).sum(1) > (x * other).sum(1)).double().mean() > 0.9 > 0.7 > (raw[0] > raw[1]).double().mean()


def test_scales_do_not_matter():
    one, (given,) = summed()
    scales = torch.logspace(-0.5, 0.5, FEATURES, dtype=torch.float64)
    two = comparing.Differences(1, FEATURES, torch.float64)
    two.add(0, *(x * scales for x in given))
    (weight, _), (scaled, _) = one.maps(2, 0.1)[0], two.maps(2, 0.1)[0]
    scaled = scales[:, None] * scaled
    assert torch.allclose(weight @ weight.mT, scaled @ scaled.mT, rtol=1e-3, atol=1e-5)


def test_bands_that_share_all_are_one_and_neighbours_are_turned_alike():
    differences, given = summed(3)
    same = differences.maps(2, 0.1, shared=1.0)
    assert all(torch.allclose(x, y, atol=1e-8) for x, y in zip(same[0], same[2]))
    apart = differences.maps(2, 0.1, shared=0.0)
    for band, ((weight, _), (before, _)) in enumerate(zip(apart[1:], apart), 1):
        d = given[band][0] - given[band][2]
        product = (d @ weight).mT @ (d @ before)  # symmetric and positive: no turn brings them nearer
        assert torch.allclose(product, product.mT, atol=1e-6 * product.abs().max()) and torch.linalg.eigvalsh(product).min() > 0
        alone = comparing.Differences(1, FEATURES, torch.float64)
        alone.add(0, *given[band])
        assert torch.allclose(weight @ weight.mT, alone.maps(2, 0.1)[0][0] @ alone.maps(2, 0.1)[0][0].mT, atol=1e-8)  # cosines stay


def test_features_that_never_change_do_no_harm():
    x, same, other = (F.pad(x, (0, 1), value=3.0) for x in drawn(0))
    differences = comparing.Differences(1, FEATURES + 1, torch.float64)
    differences.add(0, x, same, other)
    assert torch.isfinite(differences.maps(4, 0.1)[0][0]).all()


@pytest.mark.parametrize("size", [(40, 64), (64, 40)])
@pytest.mark.parametrize("seed", range(4))
def test_points_of_a_copy_are_where_it_says(seed, size):
    rng = torch.Generator().manual_seed(seed)
    way, places = copies.similarity(rng, 30, 1.3, 0.15, flip=True), copies.centres(size)
    smooth = lambda p: torch.stack([(3 * p[:, 0]).sin(), (4 * p[:, 1]).cos(), (2 * p.sum(1)).sin()])  # noqa: E731
    copy = way.copy(smooth(places).view(1, 3, *size))
    points = torch.rand(200, 2, generator=rng)
    there = way.of(points, size)
    inside = ((there > 0.05) & (there < 0.95) & (points > 0.05) & (points < 0.95)).all(1)
    assert inside.sum() > 30
    assert torch.allclose(energies.at(copy, there[inside][None])[0].mT, smooth(points[inside]), atol=0.02)


def test_a_similarity_keeps_shapes_on_images_that_are_not_square():
    way, size = copies.similarity(torch.Generator().manual_seed(1), 30, 1.3, 0.1, flip=False), (40, 80)
    pixels = torch.tensor([80.0, 40.0])
    corner = way.of(torch.tensor([[0.5, 0.5], [0.6, 0.5], [0.5, 0.7]]), size) * pixels
    one, two = corner[1] - corner[0], corner[2] - corner[0]  # both eight pixels long, at a right angle
    assert one.norm() == pytest.approx(two.norm().item(), rel=1e-4) and (one @ two).abs() < 1e-3


def test_grey_stays_grey_and_colors_turn():
    rng = torch.Generator().manual_seed(0)
    grey, red = torch.full((1, 3, 2, 2), 0.4), torch.tensor([0.7, 0.3, 0.3]).view(1, 3, 1, 1)
    assert torch.allclose(copies.recolored(grey, rng, 60, 180, 1.0), grey, atol=1e-6)
    turned = copies.recolored(red, rng, 120, 120, 1.0).flatten()
    assert sorted(turned.tolist()) == pytest.approx([0.3, 0.3, 0.7], abs=1e-5) and turned[0] < 0.5
    assert torch.allclose(copies.recolored(red, rng, 0, 0, 1.0), red, atol=1e-6)


def test_points_found_and_triplets_ordered():
    """Readouts that are the images themselves: a copy shifted by a quarter finds all its points; a near copy is nearer than another."""
    rng = torch.Generator().manual_seed(3)
    image = torch.randn(1, 8, 16, 16, generator=rng)
    cells = copies.centres((16, 16)).view(16, 16, 2)[:, :12].flatten(0, 1)
    points = torch.stack([cells, cells + torch.tensor([0.25, 0.0])])
    both = torch.cat([image, image.roll(4, 3)])
    assert pairs.RULES["correspondence"].right(both, points) == 1.0
    assert pairs.RULES["correspondence"].right(both, torch.stack([points[0], points[1].roll(7, 0)])) < 0.2
    trio = torch.cat([image, image * 1.1, torch.randn(1, 8, 16, 16, generator=rng)])
    for kind in ("appearance", "identity"):
        assert pairs.RULES[kind].right(trio, None) == 1.0 and pairs.RULES[kind].right(trio[[0, 2, 1]], None) == 0.0


@pytest.mark.parametrize("kind", pairs.RULES)
def test_comparisons_are_images_of_the_given_size(kind):
    rng = torch.Generator().manual_seed(2)
    image, other = torch.rand(2, 1, 3, 24, 40, generator=rng)
    made = pairs.RULES[kind].comparison(image, other, rng)
    assert made.images.shape == (2 if kind == "correspondence" else 3, 3, 24, 40) and torch.equal(made.images[:1], image)
    assert 0 <= made.images.min() and made.images.max() <= 1
    if kind == "identity":  # its own ground stays beside the one in other colors, and goes beside the one that is the same
        assert torch.equal(made.images[2:, ..., :3], image[..., :3]) and not torch.equal(made.images[1:2], image)
    rows = pairs.RULES[kind].rows(torch.rand(len(made.images), 5, 12, 20, generator=rng), made.points, rng)
    assert len(rows) == 3 and all(x.shape == rows[0].shape and x.shape[1] == 5 for x in rows)


def test_a_head_of_the_maps_reads_what_was_fitted():
    differences, ((x, _, _),) = summed()
    (weight, bias), = differences.maps(2, 0.1)
    head = from_maps("identity", (4, 2), [(weight, bias)], torch.eye(3), compares=True)
    assert head.output_head is None
    features = [x[:12, :4].mT.view(1, 4, 3, 4).float(), x[:12, 4:].mT.view(1, 2, 3, 4).float()]
    assert torch.allclose(head(features, torch.eye(3)[:1], (3, 4))[0].flatten(1).mT.double(), x[:12] @ weight + bias, atol=1e-4)
    assert head.start == 0.0 and from_maps("identity", (4, 2), [(weight, bias)], torch.eye(3), compares=True, start=0.4).start == 0.4
