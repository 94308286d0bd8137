"""Images and masks, whichever target takes them: read right, or refused by name."""
import folder_paths
import nodes as host_nodes
import numpy as np
import pytest
import torch
from PIL import Image

from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.edge import EdgeTarget
from readout_guidance_pack.nodes.targets.map import MapTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget
from target_inputs import RAMP, drawn, frame, person


def test_a_map_target_takes_poses_depths_and_edges_as_their_own_targets_do(heads, caplog):
    skeleton = drawn(person()).movedim(1, -1)
    on_white = torch.where(skeleton.amax(-1, keepdim=True) > 0, skeleton, torch.tensor(1.0))
    for kind, image, own in (("pose", on_white, PoseTarget), ("depth", RAMP * 0.05 + 0.4, DepthTarget),
                             ("edge", torch.eye(1024).expand(1, -1, -1), EdgeTarget)):
        one, = MapTarget.execute(heads[kind], image, 1.0, 0.0, 0.9)[0]
        two, = own.execute(head=heads[kind], image=image, weight=1.0, start_percent=0.0, end_percent=0.9)[0]
        assert torch.equal(one.image, two.image)


@pytest.mark.parametrize("image, said", [
    (None, "NoneType"), (np.zeros((1, 8, 8, 3)), "ndarray"), (torch.zeros(1, 0, 8, 3), "empty"), (torch.zeros(8), "shape"),
    (torch.zeros(1, 3, 64, 64), "shape"), (torch.full((1, 8, 8, 3), float("nan")), "NaN"), (torch.full((1, 8, 8, 3), 200.0), "200")])
def test_what_is_no_image_is_explained(heads, image, said):
    with pytest.raises(ValueError, match=f"Edge Target: .*{said}"):
        EdgeTarget.execute(heads["edge"], image, 1.0, 0.0, 0.9)


def test_a_mask_that_is_empty_for_some_images_is_said_once(heads, pose, caplog):
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
    """The host's Load Image of an image that was saved under this name, whose suffix says how: (IMAGE, MASK)."""
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))

    def load(name, image, **options):
        image.save(tmp_path / name, **options)
        return host_nodes.LoadImage().load_image(name)
    return load


@pytest.mark.parametrize("name, mode", [("opaque.webp", "RGB"), ("opaque.gif", "P"), ("grey.png", "LA"), ("opaque.png", "RGBA")])
def test_the_mask_of_an_opaque_image_is_empty(heads, loaded, name, mode):
    image = Image.fromarray((RAMP[0] * 255).byte().numpy())
    image, mask = loaded(name, (image.convert("L") if mode == "LA" else image).convert(mode))
    assert mask.shape == image.shape[:3] and mask.max() < 0.005  # of some formats it is not 0
    with pytest.raises(ValueError, match="Depth Target: the mask is empty.*the transparent area"):
        DepthTarget.execute(heads["depth"], image, 1.0, 0.0, 0.9, mask=mask)


def test_what_is_transparent_in_a_grey_image_is_all_of_its_mask(heads, loaded):
    """ComfyUI 0.30 leaves 0.0039 where it is opaque."""
    image = Image.fromarray((RAMP[0, ..., 0] * 255).byte().numpy()).convert("LA")
    image.putalpha(Image.fromarray(np.repeat(np.repeat(np.uint8([[0, 255], [255, 255]]), 32, 0), 32, 1)))
    image, mask = loaded("grey.png", image)
    target, = DepthTarget.execute(heads["depth"], RAMP, 1.0, 0.0, 0.9, mask=mask)[0]
    assert target.mask[0, 0, :32, :32].min() > 0.99 and target.mask.sum() == target.mask[..., :32, :32].sum()
