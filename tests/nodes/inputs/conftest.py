import pytest

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER


@pytest.fixture(scope="module")
def heads():
    return {kind: load_head(HEADS_FOLDER / f"demo_{kind}.safetensors") for kind in ("pose", "depth", "edge")}
