import torch

from readout_guidance_pack.rg_core.images import control_images
from readout_guidance_pack.rg_core.readout import estimates


def test_from_range_is_the_way_back_and_clamps():
    image = torch.rand(2, 3, 4, 5, generator=torch.manual_seed(0))
    for span in ((-0.5, 0.5), (-1.0, 1.0), (0.0, 2.0)):
        assert torch.allclose(estimates.from_range(control_images.to_range(image, span), span), image, atol=1e-6)
    assert estimates.from_range(torch.tensor([-0.7, 0.0, 0.9]), (-0.5, 0.5)).tolist() == [0.0, 0.5, 1.0]


def test_keypoints_are_the_peaks_pixel_centres_where_the_peak_is_above_the_threshold():
    """Against a search pixel by pixel."""
    rng = torch.Generator().manual_seed(0)
    heatmaps = torch.rand(3, 18, 6, 9, generator=rng) * torch.tensor([0.1, 1.0, 1.5])[torch.randint(3, (3, 18, 1, 1), generator=rng)]
    height, width = 120, 270
    points = estimates.keypoints(heatmaps, (height, width))
    seen = 0
    for b in range(3):
        for k in range(18):
            best, place = -1.0, None
            for row in range(6):
                for column in range(9):
                    value = heatmaps[b, k, row, column].item()
                    if value > best:
                        best, place = value, ((column + 0.5) * 30, (row + 0.5) * 20)
            assert torch.allclose(points[b, k, :2], torch.tensor(place))
            assert abs(points[b, k, 2].item() - (min(best, 1.0) if best > 0.1 else 0.0)) < 1e-6
            seen += best > 0.1
    assert 10 < seen < 44


def test_colors_are_the_principal_components_whatever_turns_the_features():
    rng = torch.Generator().manual_seed(0)
    plane = torch.randn(2, 3, 4, 6, generator=rng) * torch.tensor([9.0, 3.0, 1.0]).view(1, 3, 1, 1)
    turn = torch.linalg.qr(torch.randn(40, 40, generator=rng)).Q[:, :3]
    found = estimates.colors(torch.einsum("ck,bkhw->bchw", turn, plane) + 7.0)
    assert found.shape == plane.shape and found.amin() == 0 and found.amax() == 1
    alone = estimates.colors(torch.cat([plane, torch.zeros(2, 37, 4, 6)], 1))
    for one, two in zip(found.unbind(1), alone.unbind(1)):  # an axis may point either way
        assert min((one - two).abs().max(), (one - (1 - two)).abs().max()) < 1e-4
    x = plane.movedim(1, -1).flatten(0, 2)
    for component, variable in zip(found.movedim(1, -1).flatten(0, 2).T, x.T):
        assert torch.corrcoef(torch.stack([component, variable]))[0, 1].abs() > 0.9


def test_colors_of_the_same_everywhere_are_finite():
    assert torch.isfinite(estimates.colors(torch.ones(1, 8, 2, 2))).all()
