"""Poses as people have them, in keypoints or drawn: read right, or refused by name."""
import copy
import itertools
from inspect import signature

import numpy as np
import pytest
import torch
from comfy_extras.nodes_sdpose import SDPoseDrawKeypoints

from readout_guidance_pack.heads.demo import world
from readout_guidance_pack.nodes.targets.pose import PoseTarget
from readout_guidance_pack.rg_core.images.control_images import draw_pose, fit
from readout_guidance_pack.rg_core.images.skeletons import in_order
from skeletons import skeleton
from target_inputs import XY, drawn, frame, person

TO_25 = [0, 1, 2, 3, 4, 5, 6, 7, None, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17] + [None] * 6  # the 18 in OpenPose's BODY_25
TO_17 = [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]                       # and in COCO's


def arranged(places, points=None):
    """A person's points in another layout."""
    rows = np.reshape(points or person(), (18, 3))
    return [float(n) for k in places for n in (rows[k] if k is not None else (0, 0, 0))]


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


def test_a_frame_with_nobody_in_it_does_not_guide_its_image(pose, caplog):
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
    """OpenCV's order of channels: of whole images, and in rtmlib of the joints."""
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
    for one in image:  # one person is enough not to be taken for a swapped one
        as_read(heads, one)
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
