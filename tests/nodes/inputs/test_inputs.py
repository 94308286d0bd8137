"""Poses, depth maps, edges and masks as people have them: read right, or refused by name."""
import copy
import itertools
import logging
from inspect import signature

import folder_paths
import nodes as host_nodes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comfy_extras.nodes_sdpose import SDPoseDrawKeypoints
from PIL import Image

from readout_guidance_pack.heads.demo import world
from readout_guidance_pack.nodes.make_heads.load_save import LoadReadoutHead
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.edge import EdgeTarget
from readout_guidance_pack.nodes.targets.load_tracks import LoadTracks
from readout_guidance_pack.nodes.targets.map import MapTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget
from readout_guidance_pack.rg_core.images.pictures import draw_pose, fit
from readout_guidance_pack.rg_core.images.skeletons import in_order
from readout_guidance_pack.rg_core.readout.estimates import from_range
from skeletons import skeleton

RNG = np.random.default_rng(0)
XY = RNG.uniform(60, 450, (18, 2)).round(1)
XY[1] = XY[[2, 5]].mean(0)  # the neck, as COCO's layout has it
TO_25 = [0, 1, 2, 3, 4, 5, 6, 7, None, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17] + [None] * 6  # the 18 in OpenPose's BODY_25
TO_17 = [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]                       # and in COCO's


def person(xy=XY, confidence=1.0) -> list[float]:
    return [float(n) for x, y in xy for n in (x, y, confidence)]


def frame(*people, width=512, height=512) -> dict:
    return {"canvas_width": width, "canvas_height": height, "people": [{"pose_keypoints_2d": points} for points in people]}


@pytest.fixture
def pose(heads):
    return lambda keypoints=None, **more: PoseTarget.execute(heads["pose"], 1.0, 0.0, 0.9, keypoints=keypoints, **more)[0][0]


def drawn(*people, size=(512, 512)):
    points = torch.zeros(1, len(people), 18, 3)
    for p, points_of_one in enumerate(people):
        points[0, p] = torch.tensor(points_of_one).view(18, 3)
    return draw_pose(points, size)


def arranged(places, points=None):
    """A person's points in another layout."""
    rows = np.reshape(points or person(), (18, 3))
    return [float(n) for k in places for n in (rows[k] if k is not None else (0, 0, 0))]


HIDDEN = XY.copy()
HIDDEN[4] = 0
WITHOUT_4 = person()
WITHOUT_4[12:15] = 0, 0, 0


def with_point_4(*values):
    return [*person()[:12], *values, *person()[15:]]


AS_PEOPLE_HAVE_IT = {
    "as detectors give it": ([frame(person())], person()),
    "a single frame": (frame(person()), person()),
    "shares of the canvas": ([frame(person(XY / 512))], person()),
    "shares, one hidden joint far outside": ([frame([*person(XY / 512)[:12], 9.0, 9.0, 0.0, *person(XY / 512)[15:]])], WITHOUT_4),
    "shares, one joint beyond the canvas": ([frame([*person(XY / 512)[:12], 1.2, 0.5, 1.0, *person(XY / 512)[15:]])],
                                            with_point_4(1.2 * 512, 256.0, 1.0)),
    "null for a point": ([frame(with_point_4(None, None, None))], WITHOUT_4),
    "point by point": ([frame([[x, y, 1.0] for x, y in XY])], person()),
    "point by point, null among them": ([frame([None if k == 4 else [x, y] for k, (x, y) in enumerate(XY)])], WITHOUT_4),
    "without confidences": ([frame([n for point in XY for n in point])], person()),
    "a joint of confidence 0": ([frame(with_point_4(100.0, 100.0, 0.0))], WITHOUT_4),
    "NaN at a joint of confidence 0": ([frame(with_point_4(float("nan"), float("nan"), 0.0))], WITHOUT_4),
    "a joint of a tiny score": ([frame(with_point_4(100.0, 100.0, 0.03))], WITHOUT_4),
    "a joint at 0, 0": ([frame(with_point_4(0.0, 0.0, 1.0))], WITHOUT_4),
    "a joint at -1, -1": ([frame(with_point_4(-1.0, -1.0, 1.0))], WITHOUT_4),
    "arrays of NumPy": (np.array([frame(np.array(person()))], dtype=object), person()),
    "null for a person and for a list": ([{**frame(person()), "people": [None, {"pose_keypoints_2d": None}, {"pose_keypoints_2d": person()}]}],
                                         person()),
    "OpenPose's 25 points": ([frame(arranged(TO_25))], person()),
    "COCO's 17 points": ([frame(arranged(TO_17))], person()),
    "text for the canvas": ([frame(person(), width="512", height="512")], person()),
}


@pytest.mark.parametrize("case", AS_PEOPLE_HAVE_IT)
def test_a_pose_is_read(pose, case):
    given, wanted = AS_PEOPLE_HAVE_IT[case]
    before = copy.deepcopy(given)
    assert torch.allclose(pose(given).image, drawn(wanted), atol=2e-4)
    assert repr(given) == repr(before)  # it belongs to the host's cache


REFUSED = {
    "no canvas": ([{"people": [{"pose_keypoints_2d": person()}]}], "no canvas size"),
    "a canvas of nothing": ([frame(person(), width=0)], "no canvas size"),
    "a canvas that is NaN": ([frame(person(), height=float("nan"))], "no canvas size"),
    "nobody": ([frame()], "nobody in it"),
    "another editor's": ([{"width": 640, "height": 640, "keypoints": [[[1, 2]]]}], "contain .*keypoints"),
    "no people at all": ([{"canvas_width": 64, "canvas_height": 64}], "nobody in it"),
    "no frames": ([], "nobody in it"),
    "a null frame": ([None], "nobody in it"),
    "all hidden": ([frame(person(confidence=0.0))], "confidence below 0.1"),
    "all tiny scores": ([frame(person(confidence=0.01))], "use another scale, convert them to 0 to 1"),
    "scores below 0": ([frame(person(confidence=-3.0))], "use another scale, convert them to 0 to 1"),
    "animals": ([{"canvas_width": 64, "canvas_height": 64, "animals": [[0.0] * 51]}], "animals"),
    "text": ("a pose", "list of frames"),
    "frames of text": (["a"], "list of frames"),
    "people of text": ([{**frame(), "people": "x"}], "people in frame 1"),
    "16 points": ([frame(person()[:48])], "18 or 25 body points"),
    "a number too few": ([frame(person()[:53])], "18 or 25 body points"),
    "words for numbers": ([frame(["x"] * 54)], "18 or 25 body points"),
    "an object for points": ([frame({"0": [1, 2, 3]})], "18 or 25 body points"),
    "NaN": ([frame(with_point_4(float("nan"), 1.0, 1.0))], "NaN"),
    "a confidence that is NaN": ([frame(with_point_4(100.0, 100.0, float("nan")))], "NaN"),
    "infinite": ([frame(with_point_4(float("inf"), 1.0, 1.0))], "infinite"),
    "1e300": ([frame(with_point_4(1e300, 1.0, 1.0))], "far outside"),
    "all outside of the canvas": ([frame(person(XY + 2000))], "all black"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_pose_is_explained(pose, case):
    given, said = REFUSED[case]
    with pytest.raises(ValueError, match=f"Pose Target: .*{said}"):
        pose(given)


def test_each_frame_has_its_own_canvas(pose, caplog):
    frames = [frame(person()), frame(person(XY * 2), width=1024, height=1024), frame(person(XY / 4), width=128, height=128)]
    image = pose(frames).image
    assert all(torch.allclose(one, drawn(person())[0], atol=2e-4) for one in image) and not caplog.records
    wide = frame(person(XY + [100, 0]), width=712)
    assert torch.allclose(pose([frame(person()), wide]).image[1], drawn(person())[0], atol=2e-4)  # cut around the middle
    assert "different shapes" in caplog.text


def test_a_frame_with_nobody_in_it_does_not_guide_its_picture(pose, caplog):
    target = pose([frame(person()), frame(), frame(person())])
    assert target.mask.shape[0] == 3 and target.mask.amax((1, 2, 3)).tolist() == [1, 0, 1]
    assert "nobody in image 2" in caplog.text
    masked = pose([frame(person()), frame()], mask=torch.stack([torch.ones(512, 512), torch.zeros(512, 512), torch.ones(512, 512)]))
    there = [m and p for m, p in zip(itertools.cycle([1, 0, 1]), [1, 0] * 3)]
    assert masked.mask.amax((1, 2, 3)).tolist() == there


def test_a_wide_canvas_takes_little_memory(pose):
    assert pose([frame(person(XY / 8), width=8192, height=64)]).image.shape == (1, 3, 16, 2048)


def test_a_mask_is_fitted_to_the_canvas_of_keypoints(pose):
    mask = torch.zeros(100, 100)
    mask[:50] = 1
    fitted = pose([frame(person())], mask=mask).mask
    assert fitted.shape[-2:] == (512, 512) and fitted[0, 0, 128, 256] == 1 and fitted[0, 0, 400, 256] == 0


def test_points_from_minus_one_to_one_are_told(pose, caplog):
    target = pose([frame(person(XY / 256 - 1))])
    assert torch.allclose(target.image, drawn(person()), atol=1e-2) and "-1 (left, top) to 1 (right, bottom)" in caplog.text
    caplog.clear()
    pose([frame(person(XY / 512 - [0.3, 0]))])  # shares, of somebody who is partly outside
    assert not caplog.records


@pytest.fixture
def depth(heads):
    return lambda image, **more: DepthTarget.execute(heads["depth"], image, 1.0, 0.0, 0.9, **more)[0][0].image


RAMP = torch.linspace(0, 1, 64).view(1, 64, 1, 1).expand(1, 64, 64, 3)  # nearer downwards


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


@pytest.mark.parametrize("image", [RAMP * 2 - 1, RAMP * 255, (RAMP * 255).round().clamp(min=3)])
def test_maps_without_such_places_keep_all_of_their_depth(depth, caplog, image):
    assert torch.allclose(depth(image), ((image - image.min()) / (image.max() - image.min())).movedim(-1, 1), atol=1e-5)
    depth(image, invert=True)
    assert "no depth" not in caplog.text


def test_a_map_target_takes_poses_depths_and_edges_as_their_own_targets_do(heads, caplog):
    skeleton = drawn(person()).movedim(1, -1)
    on_white = torch.where(skeleton.amax(-1, keepdim=True) > 0, skeleton, torch.tensor(1.0))
    for kind, image, own in (("pose", on_white, PoseTarget), ("depth", RAMP * 0.05 + 0.4, DepthTarget),
                             ("edge", torch.eye(1024).expand(1, -1, -1), EdgeTarget)):
        one, = MapTarget.execute(heads[kind], image, 1.0, 0.0, 0.9)[0]
        two, = own.execute(head=heads[kind], image=image, weight=1.0, start_percent=0.0, end_percent=0.9)[0]
        assert torch.equal(one.image, two.image)


def test_each_depth_map_of_a_batch_is_of_its_own_scale(depth, caplog):
    one, metric, narrow = RAMP, RAMP * 80, RAMP * 0.05 + 0.4
    alone = [depth(image) for image in (one, metric, narrow)]
    caplog.clear()
    together = depth(torch.cat([one, metric, narrow]))
    assert torch.equal(together, torch.cat(alone)) and all(x.max() - x.min() > 0.9 for x in together)
    assert "in image 2 its values from 0 to 80 are stretched" in caplog.text


@pytest.mark.parametrize("ground, said", [(1.0, "mostly white"), (0.4, "on gray")])
def test_edges_that_are_not_on_black_are_noticed(heads, caplog, ground, said):
    EdgeTarget.execute(heads["edge"], torch.full((1, 8, 8, 3), ground), 1.0, 0.0, 0.9)
    assert f"Edge Target: the edges are {said}" in caplog.text and "white lines on black" in caplog.text


def edges_at(heads, image, size=(64, 64)):
    """What an Edge Target of `image` asks for in readouts of `size`, 0 to 1, [B, H, W]."""
    target = EdgeTarget.execute(heads["edge"], image, 1.0, 0.0, 0.9)[0][0].prepared([n * heads["edge"].stride for n in size], "cpu")
    return from_range(target.image, heads["edge"].control_range)[:, 0]


@pytest.mark.parametrize("side", [128, 512, 1024, 3000])
def test_edges_a_pixel_wide_are_as_bright_in_a_readout_as_in_their_picture(heads, side):
    """As Canny draws them at any size."""
    image, wanted = torch.zeros(1, side, side, 1), torch.zeros(1, 64, 64)
    image[:, side // 4] = image[:, :, side // 2] = 1
    wanted[:, 16] = wanted[:, :, 32] = 1
    assert torch.allclose(edges_at(heads, image), wanted, atol=1e-6)


def test_wide_edges_are_made_smaller_as_pictures_are(heads):
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


def as_read(heads, image, **more):
    return fit(PoseTarget.execute(heads["pose"], 1.0, 0.0, 0.9, image=image, **more)[0][0].image, (64, 64))


@pytest.mark.parametrize("size, stick, dark", [(768, 4, True), (1024, 4, True), (2048, 4, True), (512, 10, True), (1024, 4, False), (512, 10, False)])
def test_sticks_are_as_thick_as_heads_know_them_whatever_the_canvas(heads, caplog, size, stick, dark):
    small, given = skeleton(512, dark=dark), skeleton(size, stick, dark)
    wanted = as_read(heads, small)
    assert torch.allclose(wanted, fit(small.movedim(-1, 1), (64, 64)))  # which are left alone
    found = as_read(heads, given)
    off, before = ((x - wanted).abs().mean() / wanted.mean() for x in (found, fit(given.movedim(-1, 1), (64, 64))))
    assert off < 0.45 and off < 0.75 * before and 0.75 < found.mean() / wanted.mean() < 1.5 and not caplog.records


@pytest.mark.parametrize("ground", [1.0, 0.5])
def test_a_skeleton_on_white_or_grey_is_one_on_black(heads, caplog, ground):
    black = skeleton(512)
    cover, wanted = (black.amax(-1, keepdim=True) > 0).float(), as_read(heads, black)
    assert not caplog.records
    assert torch.allclose(as_read(heads, torch.lerp(torch.tensor(ground), black, cover)), wanted, atol=1e-6)
    assert "Pose Target: the skeleton is not on black" in caplog.text
    caplog.clear()
    assert torch.allclose(as_read(heads, torch.cat([torch.lerp(torch.tensor(1.0), black, cover), cover], -1)), wanted) and not caplog.records


@pytest.mark.parametrize("joints, limbs, said", [(True, True, "all colors"), (True, False, "the joint colors"), (False, False, None)])
def test_swapped_red_and_blue_are_swapped_back(heads, caplog, joints, limbs, said):
    """OpenCV's order of channels: of whole pictures, and in rtmlib of the joints."""
    ours = draw_pose(world.draw(4, 64, 64, seed=1).keypoints[:, None], (512, 512), (64, 64)).movedim(1, -1)
    for image in (skeleton(512), ours):
        plain = image.movedim(-1, 1)
        caplog.clear()
        assert torch.allclose(as_read(heads, in_order(plain, joints, limbs).movedim(1, -1)), as_read(heads, image), atol=1e-6)
        assert [f"red and blue are swapped in {said} of the skeletons" in message for message in caplog.messages] == [True] * bool(said)


def test_swapped_colors_of_drawers_with_bright_limbs_are_swapped_back(heads, caplog):
    image = skeleton(512, dark=False)
    assert torch.allclose(as_read(heads, image.flip(-1)), as_read(heads, image)) and "swapped back" in caplog.text
    caplog.clear()
    for picture in image:  # one person is enough not to be taken for a swapped one
        as_read(heads, picture)
    assert not caplog.records


def test_joints_count_by_the_scale_of_their_detectors_scores(pose):
    """Scores of some detectors reach 6."""
    for scale in (1.0, 0.5, 6.0):
        points = person()
        points[2::3] = [scale * (0.2 if k == 4 else 0.95) for k in range(18)]
        unseen = person()
        unseen[4 * 3 + 2] = 0
        assert torch.equal(pose([frame(points)]).image, pose([frame(unseen)]).image)


def test_joints_that_the_hosts_own_node_does_not_draw_are_hidden(pose):
    """Of its SDPose Keypoint Extractor, whatever the person's other scores are; from 0.3 on they are drawn."""
    def of_the_host(scores):
        people = [{"pose_keypoints_2d": np.column_stack([XY, scores]).flatten().tolist()} | {
            f"{part}_keypoints_2d": [0.0] * 3 * count for part, count in (("foot", 6), ("face", 70), ("hand_right", 21), ("hand_left", 21))}]
        return [{"canvas_width": 512, "canvas_height": 512, "people": people}]

    scores = np.full(18, 0.5)
    scores[4], scores[7] = 0.29, 0.3
    body_alone = (True, False, False, False, 4, 3, 0.3, True)[:len(signature(SDPoseDrawKeypoints.execute).parameters) - 1]  # draw_head is of 0.30
    shown = SDPoseDrawKeypoints.execute(of_the_host(scores), *body_alone).args[0]
    unseen = person()
    unseen[4 * 3 + 2] = 0
    assert torch.equal(pose(of_the_host(scores)).image, pose([frame(unseen)]).image)
    drawn_there = [bool(shown[0, int(XY[k][1]), int(XY[k][0])].any()) for k in (4, 7)]
    assert drawn_there == [False, True]
    with pytest.raises(ValueError, match="Pose Target: the pose is empty.*0.3 from SDPose"):
        pose(of_the_host(np.full(18, 0.29)))


@pytest.mark.parametrize("image, said", [
    (None, "NoneType"), (np.zeros((1, 8, 8, 3)), "ndarray"), (torch.zeros(1, 0, 8, 3), "empty"), (torch.zeros(8), "shape"),
    (torch.zeros(1, 3, 64, 64), "shape"), (torch.full((1, 8, 8, 3), float("nan")), "NaN"), (torch.full((1, 8, 8, 3), 200.0), "200")])
def test_what_is_no_picture_is_explained(heads, image, said):
    with pytest.raises(ValueError, match=f"Edge Target: .*{said}"):
        EdgeTarget.execute(heads["edge"], image, 1.0, 0.0, 0.9)


def test_a_mask_that_is_empty_for_some_pictures_is_said_once(heads, pose, caplog):
    mask = torch.zeros(3, 64, 64)
    mask[1, 8:, 8:] = 1
    said = "the mask is empty for image 1, 3 of 3, so this target does nothing there"
    DepthTarget.execute(heads["depth"], RAMP, 1.0, 0.0, 0.9, mask=mask)
    pose([frame(person())], mask=mask)
    assert [record.getMessage().split(". Paint")[0] for record in caplog.records] == [f"Depth Target: {said}", f"Pose Target: {said}"]
    caplog.clear()
    DepthTarget.execute(heads["depth"], RAMP, 1.0, 0.0, 0.9, mask=mask[1:2])
    assert not caplog.records


@pytest.mark.parametrize("mask, said", [
    (torch.zeros(8, 8), "empty"), (torch.ones(1, 8, 8, 3), "shape"), (torch.ones(8), "shape"), (np.ones((8, 8)), "ndarray"),
    (torch.full((8, 8), float("nan")), "NaN"), (torch.ones(4, 4), "4x4")])
def test_what_is_no_mask_is_explained(heads, mask, said):
    with pytest.raises(ValueError, match=f"Depth Target: .*{said}"):
        DepthTarget.execute(heads["depth"], RAMP[:, ::8, ::8], 1.0, 0.0, 0.9, mask=mask)


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """The host's Load Image of a picture that was saved under this name, whose suffix says how: (IMAGE, MASK)."""
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))

    def load(name, picture, **options):
        picture.save(tmp_path / name, **options)
        return host_nodes.LoadImage().load_image(name)
    return load


@pytest.mark.parametrize("name, mode", [("opaque.webp", "RGB"), ("opaque.gif", "P"), ("grey.png", "LA"), ("opaque.png", "RGBA")])
def test_the_mask_of_an_opaque_picture_is_empty(heads, loaded, name, mode):
    picture = Image.fromarray((RAMP[0] * 255).byte().numpy())
    image, mask = loaded(name, (picture.convert("L") if mode == "LA" else picture).convert(mode))
    assert mask.shape == image.shape[:3] and mask.max() < 0.005  # of some formats it is not 0
    with pytest.raises(ValueError, match="Depth Target: the mask is empty.*the transparent area"):
        DepthTarget.execute(heads["depth"], image, 1.0, 0.0, 0.9, mask=mask)


def test_what_is_transparent_in_a_grey_picture_is_all_of_its_mask(heads, loaded):
    """ComfyUI 0.30 leaves 0.0039 where it is opaque."""
    picture = Image.fromarray((RAMP[0, ..., 0] * 255).byte().numpy()).convert("LA")
    picture.putalpha(Image.fromarray(np.repeat(np.repeat(np.uint8([[0, 255], [255, 255]]), 32, 0), 32, 1)))
    image, mask = loaded("grey.png", picture)
    target, = DepthTarget.execute(heads["depth"], RAMP, 1.0, 0.0, 0.9, mask=mask)[0]
    assert target.mask[0, 0, :32, :32].min() > 0.99 and target.mask.sum() == target.mask[..., :32, :32].sum()


@pytest.mark.parametrize("node", [LoadReadoutHead, LoadTracks])
def test_a_file_that_another_node_names_is_loaded_in_every_run(node):
    """The host keeps what a node gave while this is the same; where a name is linked, it gives None."""
    known = {(node.fingerprint_inputs(None),)}
    assert (node.fingerprint_inputs(None),) not in known
