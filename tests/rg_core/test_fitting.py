import pytest
import torch
import torch.nn.functional as F

from readout_guidance_pack.rg_core.fitting import ridge as fitting
from readout_guidance_pack.rg_core.readout.linear_head import from_maps

CHANNELS, SIZE = (6, 4), (5, 7)


def taps(batch: int, seed: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, c, *n, generator=rng) for c, n in zip(CHANNELS, ((3, 4), SIZE))]


def rows(features) -> torch.Tensor:
    return fitting.rows(features, SIZE).flatten(0, 1).double()


def fitted(shared: float = 0.0, ridge: float = 1e-3):
    """Two bands of eight images each with targets that have nothing to do with them; the maps, and all pixels of each band."""
    sums, seen = fitting.Sums(2, sum(CHANNELS), 3, torch.float64), {}
    for band in (0, 1):
        x = rows(taps(8, band))
        y = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(9 + band)) + 2
        seen[band] = x, y.double()
        for part in range(2):  # in any number of pieces
            half = slice(part * len(x) // 2, (part + 1) * len(x) // 2)
            sums.add(band, x[half], y[half])
    return [sums.solve(band, [ridge / 2, ridge], shared)[1] for band in (0, 1)], seen


def test_the_solution_is_that_of_ridge_regression():
    maps, seen = fitted()
    for band, (x, y) in seen.items():
        x, mean = x - x.mean(0), x.mean(0)
        ridge = 1e-3 * x.square().sum(0)
        padded = torch.cat([x, ridge.sqrt().diag()])
        expected = torch.linalg.lstsq(padded, torch.cat([y - y.mean(0), torch.zeros(x.shape[1], 3, dtype=torch.float64)])).solution
        assert torch.allclose(maps[band][0], expected, atol=1e-7) and torch.allclose(maps[band][1], y.mean(0) - mean @ expected)


def test_bands_that_share_all_are_one():
    (one, two), _ = fitted(shared=1.0)
    assert all(map(torch.allclose, one, two))


def head_of(maps):
    return from_maps("floor plan", CHANNELS, maps, torch.eye(5))


def test_a_linear_head_reads_what_was_fitted_up_to_the_middle_of_a_band_and_a_blend_between():
    maps, _ = fitted()
    head, features = head_of(maps), taps(2, 5)
    readouts = [head(features, torch.eye(5)[[level, level]], SIZE) for level in range(5)]
    for levels, (weight, bias) in zip(((0, 1), (3, 4)), maps):
        expected = (rows(features) @ weight + bias).view(2, *SIZE, 3).movedim(-1, 1)
        assert all(torch.allclose(readouts[level].double(), expected, atol=1e-4) for level in levels)
    assert torch.allclose(readouts[2], (readouts[0] + readouts[4]) / 2, atol=1e-5)


def test_images_of_a_batch_may_be_at_different_levels():
    head, features = head_of(fitted()[0]), taps(2, 5)
    both = head(features, torch.eye(5)[[0, 4]], SIZE)
    for i, level in enumerate((0, 4)):
        assert torch.allclose(both[i:i + 1], head([x[i:i + 1] for x in features], torch.eye(5)[[level]], SIZE), atol=1e-5)


def test_what_is_linear_in_the_features_is_found_exactly():
    rng = torch.Generator().manual_seed(3)
    true = torch.randn(sum(CHANNELS), 2, generator=rng, dtype=torch.float64)
    sums = fitting.Sums(1, sum(CHANNELS), 2, torch.float64)
    x = rows(taps(8, 1))
    sums.add(0, x, x @ true + 0.3)
    (weight, bias), = sums.solve(0, [1e-10])
    assert torch.allclose(weight, true, atol=1e-6) and F.l1_loss(bias, torch.full((2,), 0.3, dtype=torch.float64)) < 1e-9


def test_large_means_and_features_that_are_the_same_everywhere_do_no_harm():
    rng = torch.Generator().manual_seed(4)
    x = torch.randn(500, 6, generator=rng)
    y = x[:, :2] @ torch.randn(2, 3, generator=rng)
    found = []
    for shift, more in ((0.0, 0), (1000.0, 2)):
        sums = fitting.Sums(1, 6 + more, 3)
        sums.add(0, F.pad(x + shift, (0, more), value=7.0), y)
        (weight, bias), = sums.solve(0, [1e-3])
        found.append(F.pad(x.double() + shift, (0, more), value=7.0) @ weight + bias)
    assert torch.allclose(*found, atol=2e-3)


@pytest.mark.parametrize("size", [(8, 10), (7, 9)], ids=["whole tokens", "a picture that ends within its last ones"])
def test_what_lies_within_a_token_is_found_exactly(size):
    rng, tokens = torch.Generator().manual_seed(4), (4, 5)
    features = [torch.randn(6, c, *tokens, generator=rng) for c in CHANNELS]
    true = torch.randn(sum(CHANNELS), 3 * 4, generator=rng)
    wanted = F.pixel_shuffle(torch.einsum("fo,bfhw->bohw", true, torch.cat(features, 1)) + 0.5, 2)[..., :size[0], :size[1]]
    sums = fitting.Sums(1, sum(CHANNELS), 3 * 4, torch.float64)
    x, y = fitting.folded(features, wanted, 2)
    assert x.shape[1] == y.shape[1] == (size[0] // 2) * (size[1] // 2)
    sums.add(0, x.flatten(0, 1), y.flatten(0, 1))
    head = from_maps("floor plan", CHANNELS, [sums.solve(0, [1e-9])[0]], torch.eye(1), fold=2)
    assert torch.allclose(head(features, torch.eye(1).expand(6, 1), size), wanted, atol=1e-4)
    assert head(features, torch.eye(1).expand(6, 1), (16, 20)).shape == (6, 3, 16, 20)
