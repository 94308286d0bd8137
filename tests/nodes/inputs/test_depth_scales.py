"""Depth maps of any scale, either way round, with places where nothing is: stretched to what heads know."""
import logging

import pytest
import torch

from readout_guidance_pack.nodes.targets.depth import DepthTarget
from target_inputs import RAMP


@pytest.fixture
def depth(heads):
    return lambda image, **more: DepthTarget.execute(heads["depth"], image, 1.0, 0.0, 0.9, **more)[0][0].image


def test_a_depth_map_is_taken_as_it_is(depth, caplog):
    wanted = RAMP.movedim(-1, 1)
    for image, invert in ((RAMP, False), (1 - RAMP, True), (RAMP[0], False), (RAMP[..., 0], False), (RAMP[0, ..., 0], False),
                          ((RAMP * 255).to(torch.uint8), False)):  # one without a batch, grey ones as masks are, bytes
        assert torch.allclose(depth(image, invert=invert), wanted, atol=1 / 255) and not caplog.records


@pytest.mark.parametrize("image, invert, wanted, said", [
    (80 - 79 * RAMP, True, RAMP, "from 1 to 80"),
    (80 - 79 * RAMP, False, 1 - RAMP, "top"),
    (1 - RAMP, False, 1 - RAMP, "top"),
    (0.4 + 0.06 * RAMP, False, RAMP, "6% of the range"),
    (torch.full((1, 8, 8, 3), 0.5), False, torch.full((1, 8, 8, 3), 0.5), "one value"),
    (RAMP * torch.tensor([1.0, 0.5, 0.0]), False, RAMP / 2, "colored")])
def test_a_depth_map_that_looks_odd_is_used_with_a_warning(depth, caplog, image, invert, wanted, said):
    assert torch.allclose(depth(image, invert=invert), wanted.movedim(-1, 1), atol=1e-5)
    record, = caplog.records
    assert record.levelno == logging.WARNING and "Depth Target" in record.message and said in record.message


@pytest.mark.parametrize("nothing", [[65504.0], [1e10], [1e10, 65504.0, 1e10, 65504.0], [1e10, 5e9, 1e8, 1000.0], [-1.0], [-9999.0], [0.0]])
def test_places_without_depth_flatten_nothing(depth, caplog, nothing):
    """As renderers and cameras write metres, with something else where the sky is; blended with it where they were resized."""
    metres = 10 - 9 * RAMP
    metres[:, :4] = torch.tensor(nothing * (4 // len(nothing))).view(1, 4, 1, 1)
    wanted = ((RAMP - RAMP[:, 4:].min()) / (1 - RAMP[:, 4:].min())).clamp(min=0)
    assert torch.allclose(depth(metres, invert=True), wanted.movedim(-1, 1), atol=1e-5)
    held = "are set to the farthest distance" if nothing[0] > 0 else "are left out"  # what is no measurement, unlike infinitely far
    assert f"{nothing[0]:.3g} are treated as having no depth, and {held}" in caplog.text


def test_what_is_far_beyond_a_map_of_inverse_distance_is_far(depth, caplog):
    """As the message says."""
    near = 1 + 99 * RAMP
    near[:, :4] = 65504.0
    wanted = ((RAMP - RAMP[:, 4:].min()) / (1 - RAMP[:, 4:].min())).clamp(min=0)
    wanted[:, :4] = 0
    assert torch.allclose(depth(near), wanted.movedim(-1, 1), atol=1e-5)
    assert "areas of 6.55e+04 are treated as having no depth, and are set to the farthest distance" in caplog.text


@pytest.mark.parametrize("image", [RAMP * 2 - 1, RAMP * 255, (RAMP * 255).round().clamp(min=3)])
def test_maps_without_such_places_keep_all_of_their_depth(depth, caplog, image):
    assert torch.allclose(depth(image), ((image - image.min()) / (image.max() - image.min())).movedim(-1, 1), atol=1e-5)
    depth(image, invert=True)
    assert "no depth" not in caplog.text


def test_each_depth_map_of_a_batch_is_of_its_own_scale(depth, caplog):
    one, metric, narrow = RAMP, RAMP * 80, RAMP * 0.05 + 0.4
    alone = [depth(image) for image in (one, metric, narrow)]
    caplog.clear()
    together = depth(torch.cat([one, metric, narrow]))
    assert torch.equal(together, torch.cat(alone)) and all(x.max() - x.min() > 0.9 for x in together)
    assert "in image 2 its values from 0 to 80 are stretched" in caplog.text
