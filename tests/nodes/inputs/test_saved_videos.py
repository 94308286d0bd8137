"""Frames of saved videos, in which black and flat areas are hardly so."""
from fractions import Fraction

import pytest
import torch
from comfy_api.latest import InputImpl, Types

from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget
from skeletons import skeleton


def saved_as_video(frames, folder):
    """[B, H, W, 3] as the host saves and loads it."""
    path = str(folder / "frames.mp4")
    InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=Fraction(24))).save_to(path)
    return InputImpl.VideoFromFile(path).get_components().images


def test_a_frame_of_a_saved_video_with_nobody_in_it_does_not_guide_its_image(heads, tmp_path, caplog):
    frames = skeleton(512)[:2]
    frames = saved_as_video(torch.stack([frames[0], torch.zeros_like(frames[0]), frames[1]]), tmp_path)
    assert 1 / 255 < frames[1].max() < 0.03  # what is left of black
    target, = PoseTarget.execute(heads["pose"], 1.0, 0.0, 0.9, image=frames)[0]
    assert target.mask.amax((1, 2, 3)).tolist() == [1, 0, 1] and "nobody in image 2" in caplog.text
    with pytest.raises(ValueError, match="Pose Target: .*all black"):
        PoseTarget.execute(heads["pose"], 1.0, 0.0, 0.9, image=frames[1:2])


def test_a_flat_frame_of_a_saved_video_is_a_flat_wall(heads, tmp_path, caplog):
    """And not what the video's coding left of it, stretched from black to white."""
    frames = saved_as_video(torch.stack([skeleton(512)[0], torch.full((512, 512, 3), 0.5)]), tmp_path)
    assert frames[1].mean(-1).max() - frames[1].mean(-1).min() > 1 / 255
    target, = DepthTarget.execute(heads["depth"], frames[1:], 1.0, 0.0, 0.9)[0]
    assert (target.image - 0.5).abs().max() < 0.02 and "one value everywhere" in caplog.text
