"""The demo's heads, and a pose target."""
import pytest

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes.targets.pose import PoseTarget


@pytest.fixture(scope="module")
def heads():
    return {kind: load_head(HEADS_FOLDER / f"demo_{kind}.safetensors") for kind in ("pose", "depth", "edge")}


@pytest.fixture
def pose(heads):
    return lambda keypoints=None, **more: PoseTarget.execute(heads["pose"], 1.0, 0.0, 0.9, keypoints=keypoints, **more)[0][0]
