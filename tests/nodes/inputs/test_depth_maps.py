"""Depth as other nodes give it: what its greys stand for, the host's geometry, and places that hold no measurement."""
import logging

import pytest
import torch
import torch.nn.functional as F
from comfy_execution.validation import validate_node_input
from PIL import Image

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER, world
from readout_guidance_pack.nodes.common.types import Geometry
from readout_guidance_pack.nodes.inputs import depth_maps
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.edge import EdgeTarget
from readout_guidance_pack.nodes.targets.map import MapTarget
from readout_guidance_pack.rg_core.guidance.targets import Spatial
from tools.tables import depths

METRES = torch.linspace(10, 1, 64)[None, :, None].expand(2, 64, 64)  # nearer downwards
WANTED = (1 / METRES - 0.1) / 0.9


@pytest.fixture(scope="module")
def heads():
    return {kind: load_head(HEADS_FOLDER / f"demo_{kind}.safetensors") for kind in ("depth", "edge")}


@pytest.fixture
def depth(heads):
    def target(image=None, **more) -> Spatial:
        if image is not None:
            more["image"] = depths.image(image)
        return DepthTarget.execute(head=heads["depth"], weight=1.0, start_percent=0.0, end_percent=0.8, **more)[0][0]
    return target


def holes(share=0.07):
    return depths.holes(METRES, share)


@pytest.mark.parametrize("made", [{"mode": "mono"}, {"mask": torch.ones(2, 64, 64, dtype=torch.bool)}, {"sky": torch.zeros(2, 64, 64)}])
def test_geometry_is_inverse_distance_stretched(depth, caplog, made):
    target = depth(geometry={"depth": METRES, "image": torch.zeros(2, 64, 64, 3), **made})
    assert torch.allclose(target.image[:, 0], WANTED, atol=1e-6) and target.known is None and not caplog.records
    assert target.image[0, 0, 56, 0] == pytest.approx((1 / 2 - 0.1) / 0.9, abs=1e-6)  # 2 m of 1 to 10 m: 0.444, where distance itself is 0.889


def test_geometry_is_as_moge_draws_it(depth):
    render = pytest.importorskip("comfy_extras.nodes_moge").MoGeRender
    rng = torch.Generator().manual_seed(0)
    geometry = {"depth": torch.rand(2, 200, 300, generator=rng) * 9 + 1}
    assert torch.allclose(depth(geometry=geometry).image.movedim(1, -1), render.execute(geometry, "depth")[0], atol=1e-4)


def test_the_sky_that_depth_anything_names_is_far(depth):
    sky = torch.zeros_like(METRES)
    sky[:, :3] = 0.9
    target = depth(geometry={"depth": METRES.masked_fill(sky > 0, 0.2), "sky": sky})
    assert target.known is None and (target.image[:, :, :3] == 0).all() and target.image[0, 0, 3, 0] == 0 and target.image.max() == 1


@pytest.mark.parametrize("value, masked", [(0.0, False), (torch.inf, True), (torch.nan, False), (5.0, True), (-1.0, False)])
def test_what_geometry_does_not_know_is_left_out(depth, value, masked):
    none = holes()
    given = {"depth": METRES.masked_fill(none, value)} | ({"mask": ~none} if masked else {})
    target = depth(geometry=given)
    assert torch.equal(target.known[:, 0] > 0, ~none)
    assert torch.allclose(target.image[:, 0][~none], WANTED[~none], atol=0.02)  # the nearest and the farthest may be among the holes


def test_a_large_empty_place_is_the_ground(depth):
    mask = torch.ones(2, 64, 64, dtype=torch.bool)
    mask[:, :20] = False
    target = depth(geometry={"depth": METRES.masked_fill(~mask, torch.inf), "mask": mask})
    assert target.known is None and (target.image[:, :, :20] == 0).all() and target.image[0, 0, -1, 0] == 1


@pytest.mark.parametrize("geometry", [
    {}, {"points": METRES}, {"depth": METRES[0]}, {"depth": METRES, "mask": torch.ones(2, 8, 8)}, "none", [METRES],
    {"depth": METRES, "sky": 1}, {"depth": METRES[:0]}])
def test_geometry_that_is_none_is_refused(depth, geometry):
    with pytest.raises(ValueError, match="^Depth Target: the geometry"):
        depth(geometry=geometry)


def test_one_of_image_and_geometry_is_given(depth):
    with pytest.raises(ValueError, match="^Depth Target: got neither image nor geometry"):
        depth()
    with pytest.raises(ValueError, match="^Depth Target: got both image and geometry"):
        depth(METRES, geometry={"depth": METRES})


def test_an_image_without_any_depth_is_not_guided(depth, heads, caplog):
    given = METRES.clone()
    given[1] = torch.inf
    target = depth(geometry={"depth": given}).prepared((64, 64), torch.device("cpu"))
    assert "there is no depth in image 2, so the target does not act there" in caplog.text
    energy = target.energy(torch.zeros(2, 3, *target.size), torch.ones(2), None)
    assert energy[0] > 0 and energy[1] == 0
    for nothing in ({"geometry": {"depth": given[1:]}}, {"image": given[1:]}):
        with pytest.raises(ValueError, match="^Depth Target: the depth map contains no depth anywhere"):
            depth(**nothing)


def test_both_of_the_hosts_types_fit():
    for given in ("MOGE_GEOMETRY", "DA3_GEOMETRY"):
        assert validate_node_input(given, Geometry.io_type)
    assert not validate_node_input("IMAGE", Geometry.io_type)


@pytest.mark.parametrize("image, how, wanted", [
    (WANTED, {}, WANTED),
    (METRES, {"greys": "distance, near black"}, WANTED), (METRES, {"greys": "distance, near black", "invert": True}, WANTED),
    (METRES, {"greys": "distance", "invert": True}, WANTED), (METRES, {"greys": "distance"}, WANTED),  # no drawing goes to 10
    (METRES / 10, {"greys": "distance, near black"}, WANTED), (METRES * 1000 / 65535, {"greys": "distance, near black"}, WANTED),
    ((10 - METRES) / 9, {"greys": "distance"}, None), ((METRES - 1) / 9, {"greys": "distance, near black"}, None),
    ((METRES - 1) / 9, {"greys": "distance", "invert": True}, None)])
def test_greys_say_what_they_stand_for(depth, image, how, wanted):
    if wanted is None:  # of 1 to 5 m, which it does not say
        far = 1 + 4 * (METRES - 1) / 9
        wanted = (1 / far - 1 / 5) / (1 - 1 / 5)
    assert torch.allclose(depth(image, **how).image[:, 0], wanted, atol=1e-5)


def test_a_map_without_holes_stays_to_the_bit(depth):
    image = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    target = depth(image)
    assert torch.equal(target.image[:, 0], depths.image(image).mean(-1)) and target.known is None
    assert torch.equal(depth(image, invert=True).image, 1 - target.image)


@pytest.mark.parametrize("how", [{"greys": "distance, near black"}, {"invert": True}])
@pytest.mark.parametrize("value", [0.0, torch.inf, torch.nan])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_holes_of_sensors_are_left_out(depth, caplog, how, value, scale):
    none = holes()
    target, whole = depth((METRES * scale).masked_fill(none, value), **how), depth(METRES * scale, **how)
    assert torch.equal(target.known[:, 0] > 0, ~none) and "as having no depth, and are left out" in caplog.text
    assert torch.allclose(target.image[:, 0][~none], whole.image[:, 0][~none], atol=0.02)


def test_black_holes_in_nearness_are_left_out(depth, heads, caplog):
    none = holes(0.22)
    image = (WANTED * 0.8 + 0.2).masked_fill(none, 0)
    target = depth(image)
    assert torch.equal(target.known[:, 0] > 0, ~none) and "areas of 0 are treated as having no depth" in caplog.text
    same, = MapTarget.execute(heads["depth"], depths.image(image), 1.0, 0.0, 0.8)[0]
    assert torch.equal(same.known, target.known) and torch.equal(same.image, target.image)


def test_black_grounds_are_no_holes(depth, caplog):
    """Figures on black, walls at the back, and maps that go down to black."""
    scene = world.draw(24, 64, 64, seed=0)
    on_black = torch.where(scene.figure, 0.5 + scene.nearness / 2, 0.0)
    for image in (on_black, scene.nearness, torch.stack([depths.stretched(x[None])[0] for x in scene.nearness])):
        for invert in (False, True):
            assert depth(image, invert=invert).known is None
    assert "no depth" not in caplog.text


def test_holes_are_not_mixed_into_what_is_beside_them(depth):
    none = holes(0.22)
    image = torch.full_like(METRES, 0.5).masked_fill(none, 0)
    image[:, 0], image[:, -1] = 0.45, 0.55
    target = depth(image).prepared((16, 16), torch.device("cpu"))
    known = target.known[:, 0, 1:-1] > 0
    assert torch.allclose(target.image[:, 0, 1:-1][known], torch.tensor(0.0), atol=0.02)  # 0.5 in the head's -1 to 1
    readout = torch.randn(2, 3, *target.size, generator=torch.Generator().manual_seed(1))
    changed = torch.where(target.known > 0, readout, readout + 5)
    span = torch.ones(2)
    assert torch.equal(target.energy(readout, span, None), target.energy(changed, span, None))
    alone = target.select(torch.tensor([1]))
    assert torch.allclose(alone.energy(readout[1:], span[1:], None), target.energy(readout, span, None)[1:])


def test_a_mask_and_holes_both_hold(depth):
    none, mask = holes(), torch.zeros(1, 64, 64)
    mask[:, 32:] = 1
    target = depth(METRES.masked_fill(none, 0), greys="distance, near black", mask=mask).prepared((64, 64), torch.device("cpu"))
    wanted = target.image.clone()
    wanted[:, :, :target.size[0] // 2 - 1] += 1
    assert target.energy(wanted, torch.ones(2), None).abs().max() == 0


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_a_map_that_was_enlarged_is_taken_as_it_is(depth, caplog, mode):
    small = (torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(3)) > 0.5).float() * 0.7 + 0.2
    small[:, 8:] += 0.1
    large = F.interpolate(small[None], scale_factor=8, mode=mode)[0]
    assert mode == "bilinear" or large.min() < -0.02 and large.max() > 1.1
    assert torch.allclose(depth(large).image[:, 0], large) and not caplog.records


def test_16_bits_cut_to_8_are_told(depth, caplog, tmp_path):
    dataset = pytest.importorskip("comfy_extras.nodes_dataset")
    grey = (WANTED[0] * 1.2 - 0.2).clamp(0, 1) * 65535
    Image.fromarray(grey.numpy().astype("uint16")).save(tmp_path / "depth.png")
    image, = dataset.load_and_process_images(["depth.png"], str(tmp_path))
    depth(image.mean(-1))
    record, = caplog.records
    assert "almost entirely black and white" in record.message and "Load Image keeps all 16 bits" in record.message


def test_a_ground_that_is_nearest_is_told(depth, caplog):
    """Load 3D's Depth view has the model dark before a grey ground."""
    view = torch.full((1, 64, 64), 0.4)
    view[:, 16:60, 20:44] = torch.linspace(0.02, 0.2, 44).view(1, 44, 1)
    depth(view)
    assert "its background is one gray that is nearer than everything in front of it" in caplog.text
    caplog.clear()
    mask = (view == 0.4).float()
    depth(1 - view, mask=mask)
    assert "one value wherever the mask is white" in caplog.text and "Invert Mask" in caplog.text
    caplog.clear()
    depth(1 - view, mask=1 - mask)
    assert not caplog.records


def test_edges_that_are_all_black_are_refused(heads, caplog):
    edges = torch.zeros(2, 64, 64, 3)
    edges[0, 20] = 1

    def target(node, image, **more):
        return node.execute(head=heads["edge"], image=image, weight=1.0, start_percent=0.0, end_percent=0.8, **more)[0][0]
    for node, name in ((EdgeTarget, "Edge Target"), (MapTarget, "Map Target")):
        with pytest.raises(ValueError, match=f"^{name}: the edges are all black, so there is nothing to draw"):
            target(node, edges[1:])
        caplog.clear()
        found = target(node, edges, mask=torch.ones(1, 64, 64)).prepared((64, 64), torch.device("cpu"))
        assert f"{name}: there are no edges in image 2, so the target does not act there" in caplog.text
        energy = found.energy(torch.full((2, 3, *found.size), 0.3), torch.ones(2), None)
        assert energy[0] > 0 and energy[1] == 0
        caplog.clear()
        assert target(node, edges[:1]).mask is None and not caplog.records


def test_the_figures_of_the_docs(heads, caplog):
    """What is asked for, at most this far from what is there: docs/measurements/inputs.md."""
    pytest.importorskip("comfy_extras.nodes_depth_anything_3")
    caplog.set_level(logging.ERROR)
    truth = depths.stretched(world.draw(8, 64, 64, seed=1000).nearness)
    for name, how in depths.given(truth).items():
        error = depths.asked(heads["depth"], how, truth)
        if "geometry" in name or "near black" in name or name in ("true nearness", "MoGe's drawing"):
            assert error < 0.002, name
        elif "holes" in name:
            assert error < {"nearness": 0.08, "invert": 0.16}[name.split()[-1]], name  # the same without holes
    far = {name: depths.asked(heads["depth"], how, truth) for name, how in depths.given(truth).items() if "DA3's drawing" in name}
    assert far["DA3's drawing"] > 0.15 > 0.1 > far["DA3's drawing, distance"]
    assert depth_maps.INVERSE == depth_maps.GREYS[0]
