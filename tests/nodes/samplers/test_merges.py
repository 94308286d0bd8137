"""A guided MODEL whose weights alone are wanted."""
import copy

import pytest
from comfy_api.latest import io
from comfy_extras.nodes_model_merging import ModelMergeSimple

from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT = {"1": {"class_type": "LoadReadoutDemoModel", "inputs": {}},
          "2": {"class_type": "ApplyReadoutGuidance", "inputs": {"model": ["1", 0], "strength": 0.1}},
          "3": {"class_type": "ModelSamplingDiscrete", "inputs": {"model": ["2", 0], "zsnr": False}},
          "4": {"class_type": "ModelMergeSimple", "inputs": {"model1": ["1", 0], "model2": ["3", 0], "ratio": 0.5}},
          "5": {"class_type": "KSampler", "inputs": {"model": ["4", 0]}}}


def applied(w, **sources):
    """By the node as the host runs it where the merge, or the sampler, has other models."""
    prompt = copy.deepcopy(PROMPT)
    for name, source in sources.items():
        prompt["5" if name == "model" else "4"]["inputs"][name] = [source, 0]
    node = ApplyReadoutGuidance.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: "2", io.Hidden.prompt: prompt}})
    return node.execute(w.model, w.pose(1), 0.1)[0]


@pytest.mark.parametrize("source", ["2", "3"])
def test_a_guided_model_that_gives_a_merge_its_weights_is_warned_of(w, caplog, source):
    merged = ModelMergeSimple().merge(w.model, applied(w, model2=source), 0.5)[0]
    assert [r.message for r in caplog.records] == ["Apply Readout Guidance: its model becomes model2 of a merge, which uses the weights but not the "
                                                   "guidance. Put this node after the merge."]
    assert not any(merged.wrappers.values())


def test_a_guided_model_that_is_merged_into_or_not_merged_is_not(w, caplog):
    merged = ModelMergeSimple().merge(applied(w, model1="3", model2="1"), w.model, 0.5)[0]
    assert any(merged.wrappers.values())
    applied(w, model2="1", model="3")
    assert not caplog.records
