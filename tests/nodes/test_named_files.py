"""Nodes that load a file of a name that another node may give."""
import shutil

import folder_paths
import pytest

from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes.make_heads.load_save import FOLDER, LoadReadoutHead
from readout_guidance_pack.nodes.targets.load_tracks import LoadTracks


@pytest.mark.parametrize("node", [LoadReadoutHead, LoadTracks])
def test_a_file_that_another_node_names_is_loaded_in_every_run(node):
    """The host keeps what a node gave while this is the same; where a name is linked, it gives None."""
    known = {(node.fingerprint_inputs(None),)}
    assert (node.fingerprint_inputs(None),) not in known


def test_a_head_is_loaded_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(tmp_path)], {".safetensors"}))
    shutil.copy(HEADS_FOLDER / "demo_pose.safetensors", tmp_path / "mine.safetensors")
    assert LoadReadoutHead.execute("mine.safetensors")[0].kind == "pose"
    with pytest.raises(ValueError, match="^Load Readout Head: .*yours.safetensors"):
        LoadReadoutHead.execute("yours.safetensors")
