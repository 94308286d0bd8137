"""Bars at the edges of an image, as nodes pad with, are no part of it."""
import functools

import nodes as host_nodes
import pytest
import torch
import torch.nn.functional as F
from comfy_extras.nodes_images import ResizeAndPadImage

from readout_guidance_pack.heads.demo import world
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.edge import EdgeTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget
from readout_guidance_pack.rg_core.images.control_images import draw_pose


def padded(image, width, height, color="white", interpolation="area"):
    return ResizeAndPadImage.execute(image, width, height, color, interpolation).args[0]


@pytest.mark.parametrize("kind", ["pose", "edge", "depth"])
@pytest.mark.parametrize("size, mode", [((96, 64), "area"), ((64, 96), "bicubic"), ((97, 64), "nearest-exact")])
def test_bars_are_no_image(heads, caplog, kind, size, mode):
    """Resize And Pad Image's, white and left and right or above and below."""
    nodes = {"pose": PoseTarget, "edge": EdgeTarget, "depth": DepthTarget}
    scene = world.draw(1, 64, 64, seed=0)
    image = {"pose": draw_pose(scene.keypoints[:, None], (64, 64)).movedim(1, -1), "depth": scene.nearness[..., None],
             "edge": world.edges(scene.image)[..., None]}[kind].expand(-1, -1, -1, 3)
    made = functools.partial(nodes[kind].execute, head=heads[kind], weight=1.0, start_percent=0.0, end_percent=0.9)
    wanted, = made(image=image)[0]
    caplog.clear()
    image = padded(image, *size, interpolation=mode)
    target, = made(image=image)[0]
    assert f"{kind.capitalize()} Target: the image has bars of one color at its edges" in caplog.text
    bars = [(n - 64) // 2 for n in size[::-1]]
    inside = target.mask[0, 0] > 0
    rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
    for found, low in ((rows, bars[0]), (columns, bars[1])):  # but for a line, which resizing may have mixed with a bar
        assert found[0] == low + (low > 0) and found[-1] == low + 63 - (low > 0)
    assert inside.sum() == len(rows) * len(columns) and target.mask[0, 0, inside].min() == 1
    there = wanted.image[..., rows[0] - bars[0]:rows[-1] - bars[0] + 1, columns[0] - bars[1]:columns[-1] - bars[1] + 1]
    assert torch.allclose(target.image[..., inside].flatten(), there.flatten(), atol=1e-5)
    half = torch.zeros(1, *size[::-1])
    half[:, :, :size[0] // 2] = 1
    masked, = made(image=image, mask=half)[0]
    assert torch.equal(masked.mask, target.mask * half)
    with pytest.raises(ValueError, match="the mask is 8x8"):
        made(image=image, mask=torch.ones(1, 8, 8))


def test_bars_around_some_images_and_of_other_colors(heads, caplog):
    """Pad Image for Outpainting's are grey, on any side; black ones ask for nothing in lines on black, and for what is far in a depth map."""
    scene = world.draw(2, 64, 64, seed=0)
    edges, depth = (x[..., None].expand(-1, -1, -1, 3) for x in (world.edges(scene.image), scene.nearness))
    outpainted, _ = host_nodes.ImagePadForOutpaint().expand_image(edges, 32, 0, 0, 0, 0)
    mixed = torch.cat([outpainted[:1], F.pad(edges[1:], (0, 0, 32, 0))])
    target, = EdgeTarget.execute(heads["edge"], mixed, 1.0, 0.0, 0.9)[0]
    assert target.mask[0].sum() == 64 * 63 and target.mask[1].min() == 1 and caplog.text.count("bars of one color") == 1
    target, = DepthTarget.execute(heads["depth"], padded(depth, 96, 64, "black"), 1.0, 0.0, 0.9)[0]
    assert target.mask.shape[0] == 2 and (target.mask.flatten(1).sum(1) == 64 * 62).all()


def no_bars():
    """Images that end in one color by themselves."""
    wall, ball, ground = torch.zeros(1, 64, 64, 3), torch.zeros(1, 64, 64, 3), torch.linspace(-1, 2, 64).clamp(0, 1).view(1, 64, 1, 1)
    wall[:, :, :20] = 1
    ball[:, 20:44, 20:44] = 1
    steps = torch.zeros(1, 64, 64, 3)
    steps[:, :, :20], steps[:, :, 44:] = 0.3, 1
    frame = torch.ones(1, 64, 64, 3)
    frame[:, 30:40, 10:54] = 0
    return {"a wall on one side": wall, "something on black": ball, "a sky and a ground": ground.expand(1, 64, 64, 3), "three walls": steps,
            "something far in a wall": frame, "one value": torch.ones(1, 64, 64, 3), "a pixel": torch.ones(1, 1, 1, 3)}


@pytest.mark.parametrize("case", no_bars())
def test_a_depth_map_that_ends_in_one_value_has_no_bars(heads, caplog, case):
    target, = DepthTarget.execute(heads["depth"], no_bars()[case], 1.0, 0.0, 0.9)[0]
    assert target.mask is None and "bars" not in caplog.text
