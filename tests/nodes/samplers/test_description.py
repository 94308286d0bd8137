"""Guidance as plain numbers, out and in again."""
import io
from dataclasses import dataclass, replace

import pytest
import torch

from demo_world import World
from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.nodes.samplers import description
from readout_guidance_pack.nodes.targets.color import ColorTarget
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.likeness import AppearanceTarget, IdentityTarget, StructureTarget
from readout_guidance_pack.rg_core.guidance.targets import Target
from readout_guidance_pack.rg_core.guidance.updates import Move

pytestmark = pytest.mark.usefixtures("inference_mode")
ACTS, DRAGS = (1.0, 0.0, 0.9), "[[[0.3, 0.4], [0.6, 0.5]]]"


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        yield World.with_a_reference()


def head(kind):
    return load_head(HEADS_FOLDER / f"demo_{kind}.safetensors")


GUIDANCE = {
    "pose": lambda w: w.pose(end_percent=0.9, mask=torch.rand(1, 512, 512, generator=torch.Generator().manual_seed(0))),
    "drag by a head, with a mask": lambda w: DragTarget.execute(w.reference, DRAGS, *ACTS, head("correspondence"), mask=torch.ones(1, 64, 64))[0],
    "appearance, identity and structure": lambda w: StructureTarget.execute(
        w.reference, *ACTS, guidance=IdentityTarget.execute(head("identity"), w.reference, *ACTS, guidance=AppearanceTarget.execute(
            w.reference, *ACTS, head("appearance"))[0])[0])[0],
    "pose and a drag without a head": lambda w: DragTarget.execute(w.reference, DRAGS, *ACTS, guidance=w.pose())[0],
    "colors": lambda w: ColorTarget.execute(w.scene[0], w.vae, 8, *ACTS)[0]}


def sent(described: dict) -> dict:
    """As another process gets it: nothing in it needs the pack to be read, or runs code."""
    file = io.BytesIO()
    torch.save(described, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("kind", GUIDANCE)
def test_described_guidance_makes_the_same_image(w, kind):
    guidance, move = GUIDANCE[kind](w), Move(0.08, moves=2)
    own, _ = w.sample(None, model=guided("here", w.model, guidance, move, recompute="on"), steps=6)
    described = sent(description.describe("there", guidance, move, "on"))
    for _ in range(2):  # again: what was read of the references is kept
        assert torch.equal(w.sample(None, model=description.guided_by(w.model, described), steps=6)[0], own)
    assert not torch.equal(own, w.sample(None, steps=6)[0])


def test_heads_and_references_that_targets_share_are_sent_once(w):
    chain = GUIDANCE["appearance, identity and structure"](w)
    described = description.describe("there", chain, Move(), "auto")
    assert len(described["references"]) == 1 and len(described["heads"]) == 3
    built = description.build(sent(described))
    assert len({t.reference for t in built}) == 1 and [t.name for t in built] == [t.name for t in chain]


def test_what_a_reference_never_reads_is_not_sent(w):
    reference = replace(w.reference, conditioning=[[w.positive[0][0], {**w.positive[0][1], "control": object(), "hooks": object()}]])
    described = description.describe("there", [replace(w.pose()[0], reference=reference)], Move(), "auto")
    (_, more), = described["references"][0]["conditioning"]
    assert not {"control", "hooks"} & more.keys()


@dataclass(frozen=True, eq=False, kw_only=True)
class Foreign(Target):
    pass


class ForeignHead(torch.nn.Module):
    kind = "smell"


@pytest.mark.parametrize("changed, said", [
    (lambda t: Foreign(name="smell"), "the smell target is of another pack .*test_description.* Take it out"),
    (lambda t: replace(t, head=ForeignHead()), "the smell head is of another pack"),
    (lambda t: replace(t, mask=object()), "a object of builtins in the guidance")])
def test_what_cannot_be_sent_is_named(w, changed, said):
    with pytest.raises(ValueError, match=f"There: {said}"):
        description.describe("There", [changed(w.pose()[0])], Move(), "auto")


def test_a_description_of_another_version_is_refused(w):
    described = description.describe("There", w.pose(), Move(), "auto") | {"version": 2}
    with pytest.raises(ValueError, match="There: .*another version of Readout Guidance .2.*1.*Install the same version"):
        description.guided_by(w.model, described)
