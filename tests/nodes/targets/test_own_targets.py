"""What docs/own_targets.md tells authors of other packs, run as it stands there."""
import asyncio
import re
import runpy

import nodes as host_nodes
import pytest
import torch

from readout_guidance_pack.nodes.engine.run_targets import as_normal
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from readout_guidance_pack.nodes.targets import extension
from readout_guidance_pack.rg_core.guidance.targets import Color
from tools import ROOT

pytestmark = pytest.mark.usefixtures("inference_mode")

COMPLETE, CLASSES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own_targets.md").read_text(), re.S)


def ran(path, code: str, **names) -> dict:
    """What `code` defines, beside the `names` that it is given."""
    path.write_text(code)
    return runpy.run_path(str(path), names)


def test_the_node_balances_images(w, monkeypatch, tmp_path):
    """Loaded before this pack, as a host may."""
    monkeypatch.delitem(host_nodes.NODE_CLASS_MAPPINGS, "ApplyReadoutGuidance", raising=False)
    pack = ran(tmp_path / "balance.py", COMPLETE)
    node, = asyncio.run(asyncio.run(pack["comfy_entrypoint"]()).get_node_list())
    assert node.GET_SCHEMA().node_id == "BalanceTarget"
    monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, "ApplyReadoutGuidance", ApplyReadoutGuidance)

    def imbalance(latents):
        coarse = torch.nn.functional.avg_pool2d(latents, 8)
        return (coarse - coarse.flip(-1)).abs().mean((1, 2, 3))

    plain, _ = w.sample(batch=4, steps=8)
    balanced, trace = w.sample(node.execute(1.0, 0.9)[0], batch=4, steps=8)
    assert (imbalance(balanced) < 0.7 * imbalance(plain)).all() and trace[0]["target"] == "balance"
    _, trace = w.sample(node.execute(1.0, 0.9, w.pose(4))[0], batch=4, steps=2)
    assert [row["target"] for row in trace[:2]] == ["pose", "balance"]


def test_the_classes_act_on_readouts_and_taps(w, tmp_path):
    names = ran(tmp_path / "classes.py", CLASSES, F=torch.nn.functional, head=w.heads["depth"],
                **{name: getattr(extension, name) for name in extension.__all__})
    assert {t.name for t in names["targets"]} == {"flat", "alike"}
    for target in names["targets"]:
        last = [torch.tensor(w.sample((target,), steps=8, strength=strength)[1][-1]["energy"]) for strength in (1e-6, 0.1)]
        assert last[1].mean() < 0.9 * last[0].mean(), target.name


class First(torch.nn.Module):
    """A head with what the docs ask of one, and no more."""
    kind, channels, taps, base_model, stride = "own", None, None, "", 2

    def forward(self, features, emb, size):
        return torch.nn.functional.interpolate(features[0], size)


def test_a_head_of_ones_own(w, tmp_path):
    names = ran(tmp_path / "classes.py", CLASSES, F=torch.nn.functional, head=w.heads["depth"],
                **{name: getattr(extension, name) for name in extension.__all__})
    target = names["Alike"](name="alike", head=First())
    last = [torch.tensor(w.sample((target,), steps=8, strength=strength)[1][-1]["energy"]) for strength in (1e-6, 0.1)]
    assert last[1].mean() < 0.9 * last[0].mean()


def test_every_name_in_the_docs_is_there():
    text = (ROOT / "docs" / "own_targets.md").read_text()
    assert all(f"`{name}" in text for name in extension.__all__)
    assert ApplyReadoutGuidance.extension is extension


def test_what_a_target_keeps_beside_its_fields_is_no_hindrance():
    """Such as a tensor that it has computed once."""
    with torch.inference_mode():
        target = Color(name="mine", image=torch.rand(1, 3, 4, 4), cells=2)
        object.__setattr__(target, "computed", torch.ones(1))
    with torch.inference_mode(False):  # as prepare calls it
        ready = as_normal(target)
    assert torch.equal(ready.image, target.image) and not ready.image.is_inference()
