"""Edges as detectors draw them: of any width and color, as bright in a readout as in their image."""
import pytest
import torch
import torch.nn.functional as F

from readout_guidance_pack.heads.demo import world
from readout_guidance_pack.nodes.targets.edge import EdgeTarget
from readout_guidance_pack.rg_core.images.control_images import fit
from readout_guidance_pack.rg_core.readout.estimates import from_range


@pytest.mark.parametrize("ground, said", [(1.0, "mostly white"), (0.4, "on gray")])
def test_edges_that_are_not_on_black_are_noticed(heads, caplog, ground, said):
    EdgeTarget.execute(heads["edge"], torch.full((1, 8, 8, 3), ground), 1.0, 0.0, 0.9)
    assert f"Edge Target: the edges are {said}" in caplog.text and "white lines on black" in caplog.text


def edges_at(heads, image, size=(64, 64)):
    """What an Edge Target of `image` asks for in readouts of `size`, 0 to 1, [B, H, W]."""
    target = EdgeTarget.execute(heads["edge"], image, 1.0, 0.0, 0.9)[0][0].prepared([n * heads["edge"].stride for n in size], "cpu")
    return from_range(target.image, heads["edge"].control_range)[:, 0]


@pytest.mark.parametrize("side", [128, 512, 1024, 3000])
def test_edges_a_pixel_wide_are_as_bright_in_a_readout_as_in_their_image(heads, side):
    """As Canny draws them at any size."""
    image, wanted = torch.zeros(1, side, side, 1), torch.zeros(1, 64, 64)
    image[:, side // 4] = image[:, :, side // 2] = 1
    wanted[:, 16] = wanted[:, :, 32] = 1
    assert torch.allclose(edges_at(heads, image), wanted, atol=1e-6)


def test_wide_edges_are_made_smaller_as_images_are(heads):
    """As HED's: a thin one beside them changes nothing."""
    soft = torch.rand(1, 1, 64, 64, generator=torch.manual_seed(0)).pow(4)
    soft = F.interpolate(soft, (1024, 1024), mode="bilinear")
    soft[..., 512, :] = 1
    assert torch.allclose(edges_at(heads, soft.movedim(1, -1)), fit(soft, (64, 64))[:, 0], atol=1e-6)


def test_edges_may_be_of_any_color(heads):
    """As the host's MediaPipe node draws them, green by default."""
    white = world.edges(world.draw(1, 64, 64, seed=0).image)[..., None].expand(-1, -1, -1, 3)
    for color in [(0, 255, 0), (255, 0, 0), (0, 0, 255)]:
        assert torch.allclose(edges_at(heads, white * torch.tensor(color) / 255), edges_at(heads, white), atol=1e-6)
