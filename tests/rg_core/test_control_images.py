import torch

from readout_guidance_pack.rg_core.images import control_images


def person(**points) -> torch.Tensor:
    keypoints = torch.zeros(1, 1, 18, 3)
    for index, (x, y) in points.items():
        keypoints[0, 0, int(index[1:])] = torch.tensor([x, y, 1.0])
    return keypoints


def test_a_limb_has_its_openpose_color_between_its_joints_and_nothing_elsewhere():
    canvas = control_images.draw_pose(person(k1=(100.5, 100.5), k2=(300.5, 100.5)), (512, 512))
    assert torch.allclose(canvas[0, :, 100, 200], torch.tensor([1.0, 0, 0]) * 0.6, atol=1e-5)  # neck - right shoulder
    assert torch.allclose(canvas[0, :, 100, 100], torch.tensor([255.0, 85, 0]) / 255, atol=1e-5)  # the neck's dot
    assert torch.allclose(canvas[0, :, 100, 300], torch.tensor([255.0, 170, 0]) / 255, atol=1e-5)
    assert canvas[0, :, 110].sum() == 0 and canvas[0, :, 100, :90].sum() == 0


def test_points_that_were_not_seen_are_left_out():
    keypoints = person(k1=(100.5, 100.5), k2=(300.5, 100.5))
    keypoints[0, 0, 2, 2] = 0
    canvas = control_images.draw_pose(keypoints, (512, 512))
    assert canvas[0, :, 100, 200].sum() == 0 and canvas[0, :, 100, 300].sum() == 0
    assert canvas[0, :, 100, 100].sum() > 0


def test_the_canvas_that_keypoints_refer_to_may_have_another_size():
    small = control_images.draw_pose(person(k1=(10, 20), k4=(30, 40)), (512, 256), (100, 50))
    large = control_images.draw_pose(person(k1=(51.2, 102.4), k4=(153.6, 204.8)), (512, 256))
    assert torch.allclose(small, large, atol=1e-4) and small.sum() > 0


def test_fit_cuts_around_the_middle_and_keeps_the_mean():
    wide = torch.zeros(1, 1, 40, 120)
    wide[..., 40:80] = 1  # the middle square
    assert torch.allclose(control_images.fit(wide, (40, 40)), torch.ones(1, 1, 40, 40))
    assert torch.allclose(control_images.fit(wide, (10, 10)), torch.ones(1, 1, 10, 10))
    noise = torch.rand(1, 3, 845, 845, generator=torch.Generator().manual_seed(0))
    assert torch.isclose(control_images.fit(noise, (64, 64)).mean(), noise.mean(), atol=2e-3)
    assert control_images.fit(noise, (64, 64)).std() < 0.1 * noise.std()  # smoothed, not sampled


def test_range_maps_black_and_white_to_its_ends():
    assert control_images.to_range(torch.tensor([0.0, 0.5, 1.0]), (-1.0, 1.0)).tolist() == [-1.0, 0.0, 1.0]


def test_a_limb_of_any_length_stays_within_a_joint_of_its_ends():
    for length in (0.0, 1e-3, 1.0, 3.0, 7.9, 8.1, 40.0):
        canvas = control_images.draw_pose(person(k1=(100.5, 100.5), k2=(100.5 + length, 100.5)), (512, 512))
        painted = canvas[0].amax(0).nonzero()
        assert painted[:, 0].min() >= 95 and painted[:, 0].max() <= 106, length
        assert painted[:, 1].min() >= 95 and painted[:, 1].max() <= 106 + length, length
