"""Nodes that load a file of a name that another node may give."""
import pytest

from readout_guidance_pack.nodes.make_heads.load_save import LoadReadoutHead
from readout_guidance_pack.nodes.targets.load_tracks import LoadTracks


@pytest.mark.parametrize("node", [LoadReadoutHead, LoadTracks])
def test_a_file_that_another_node_names_is_loaded_in_every_run(node):
    """The host keeps what a node gave while this is the same; where a name is linked, it gives None."""
    known = {(node.fingerprint_inputs(None),)}
    assert (node.fingerprint_inputs(None),) not in known
