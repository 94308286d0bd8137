"""Apply Readout Guidance (Ray). Ray's actors are processes of their own, and neither Ray nor Raylight is here: `ray` below is one that runs in this
process. tools/machines/raylight.py tries the node with both."""
import sys
from types import ModuleType, SimpleNamespace

import folder_paths
import nodes as host_nodes
import pytest
import torch

from readout_guidance_pack import nodes as pack_nodes
from readout_guidance_pack.nodes.samplers import apply_ray
from readout_guidance_pack.nodes.samplers.apply_ray import ApplyReadoutGuidanceRay
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.rg_core.readout.head import ReadoutHead

pytestmark = pytest.mark.usefixtures("inference_mode")


class Remote:
    def __init__(self, method):
        self.remote = method


class Actor:
    """What the node uses of Raylight's."""

    def __init__(self, model, **told):
        self.model, self.told, self.seen = model, told, []

    def __getattr__(self, name):
        return Remote(getattr(type(self), f"_{name}").__get__(self))

    def _get_parallel_dict(self):
        return self.told

    def _model_function_runner(self, run, *args):
        self.model = run(self.model, *args)

    def _common_ksampler(self, *sampling):
        self.seen.append(self.model)
        return host_nodes.common_ksampler(self.model, *sampling)

    def _clear_sampling_vram(self):
        return "cleared"


@pytest.fixture(autouse=True)
def ray(monkeypatch):
    module, registered = ModuleType("ray"), []
    module.get, module.put = lambda x: x, lambda x: x
    module.cloudpickle = SimpleNamespace(register_pickle_by_value=registered.append)
    module.registered = registered
    monkeypatch.setitem(sys.modules, "ray", module)
    return module


def settings(w):
    return 1, 6, 3.0, "euler", "karras", w.positive, w.negative, {"samples": torch.zeros(2, 3, 64, 64)}


def test_workers_are_guided_while_they_sample_with_it(w, ray):
    workers = [Actor(w.model), Actor(w.model)]
    out = ApplyReadoutGuidanceRay.execute({"workers": workers, "more": 1}, w.pose(), 0.1)[0]
    assert ray.registered == [sys.modules[apply_ray.__name__]] and out["more"] == 1
    own, plain = w.sample(w.pose(), steps=6)[0], w.sample(None, steps=6)[0]
    for guided, worker in zip(out["workers"], workers, strict=True):
        assert torch.equal(guided.common_ksampler.remote(*settings(w))[0]["samples"], own)
        assert worker.model is w.model and worker.seen[0] is not w.model
        assert torch.equal(worker.common_ksampler.remote(*settings(w))[0]["samples"], plain)
        assert guided.clear_sampling_vram.remote() == "cleared"


def test_two_nodes_in_a_row_guide_together(w):
    """As two nodes of Apply Readout Guidance do."""
    worker, (pose,) = Actor(w.model), w.pose()
    depth = DepthTarget.execute(head=w.heads["depth"], image=torch.rand(1, 64, 64, 3), weight=1.0, start_percent=0.0, end_percent=0.9)[0]
    first = ApplyReadoutGuidanceRay.execute({"workers": [worker]}, (pose,), 0.1)[0]
    both = ApplyReadoutGuidanceRay.execute(first, depth, 0.1)[0]
    together, _ = w.sample((pose, *depth), steps=6)
    assert torch.equal(both["workers"][0].common_ksampler.remote(*settings(w))[0]["samples"], together)
    assert worker.model is w.model


def test_a_head_that_does_not_fit_is_said_when_the_node_runs(w):
    wrong = ReadoutHead("pose", [8], projection_dim=128, emb_channels=16).eval().requires_grad_(False)
    worker = Actor(w.model)
    with pytest.raises(ValueError, match="Apply Readout Guidance .Ray.: .*pose head"):
        ApplyReadoutGuidanceRay.execute({"workers": [worker]}, w.pose(head=wrong), 0.1)
    assert worker.model is w.model


@pytest.mark.parametrize("told, said", [
    ({"is_fsdp": True}, "FSDP"), ({"cfg_degree": 2}, "CFG parallel"), ({"ulysses_degree": 2}, "sequence parallel"),
    ({"ring_degree": 4}, "sequence parallel"), ({"pipefusion_enabled": True}, "PipeFusion")])
def test_one_image_on_several_workers_is_refused(w, told, said):
    with pytest.raises(ValueError, match=f"{said}.* needs the whole model in each"):
        ApplyReadoutGuidanceRay.execute({"workers": [Actor(w.model, **told)]}, w.pose(), 0.1)


async def offered() -> list[str]:
    return [node.define_schema().node_id for node in await pack_nodes.ReadoutGuidance().get_node_list()]


def test_it_is_there_only_where_raylight_is(tmp_path, monkeypatch):
    import asyncio
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda _name: [str(tmp_path)])
    sys.modules["ray"].__spec__ = SimpleNamespace(origin="ray/__init__.py")  # as of a package that is installed
    assert "ApplyReadoutGuidanceRay" not in asyncio.run(offered())
    (tmp_path / "raylight" / "src" / "raylight").mkdir(parents=True)
    assert "ApplyReadoutGuidanceRay" in asyncio.run(offered())
    sys.modules["ray"].__spec__ = SimpleNamespace(origin=None)  # as of a folder
    assert "ApplyReadoutGuidanceRay" not in asyncio.run(offered())
    monkeypatch.delitem(sys.modules, "ray")
    assert "ApplyReadoutGuidanceRay" not in asyncio.run(offered())
