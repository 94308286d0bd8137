import torch
import torch.nn.functional as F

from readout_guidance_pack.rg_core.features.raw_features import Features


def test_features_equal_their_formula_in_float64():
    rng = torch.Generator().manual_seed(0)
    taps = [torch.randn(2, c, n, n + 2, generator=rng) * 3 + 1 for c, n in ((6, 3), (4, 5), (4, 8))]
    readout = Features()(taps, torch.zeros(2, 7), (4, 5))
    expected = []
    for x in taps:
        x = x.double()
        x = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        expected.append(F.interpolate(x, (4, 5), mode="bilinear") / x.shape[1] ** 0.5)
    assert torch.allclose(readout.double(), torch.cat(expected, 1), atol=1e-5)


def test_no_channel_counts_more_for_its_size_and_a_constant_one_counts_nothing():
    rng = torch.Generator().manual_seed(0)
    tap = torch.randn(1, 4, 6, 6, generator=rng)
    larger = tap * torch.tensor([1.0, 10, 100, 1000]).view(1, 4, 1, 1) + 5
    assert torch.allclose(Features()([tap], None, (3, 3)), Features()([larger], None, (3, 3)), atol=1e-3)
    assert Features()([torch.full((1, 4, 6, 6), 7.0)], None, (3, 3)).abs().max() == 0
    assert torch.isfinite(Features()([torch.randn(1, 4, 1, 1)], None, (3, 3))).all()
