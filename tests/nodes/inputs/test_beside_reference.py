"""What users give for a place in a reference's image: boxes, and the image that drags are drawn on."""
import numpy as np
import pytest
import torch

from readout_guidance_pack.nodes.references.reference import Reference
from relations import BOX, World, said

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        yield World()


def test_a_box_in_shares_of_the_image_is_that_in_pixels(w):
    _, reference = w.made()
    shares = {name: value / 64 for name, value in BOX.items()}
    (one,), (two,), (whole,) = (w.like("identity", reference, box=box) for box in (BOX, shares, {"x": 0, "y": 0, "width": 1, "height": 1}))
    assert one.box == pytest.approx(two.box) and whole.box == (0, 0, 1, 1)
    beside, = w.like("identity", reference, box={"x": -0.01, "y": 0.52, "width": 0.5, "height": 0.5})
    assert beside.box == pytest.approx((0, 0.52, 0.49, 0.48))
    far, = w.like("identity", reference, box={"x": 0.6, "y": 0.2, "width": 1.0, "height": 0.6})
    assert far.box == pytest.approx((0.6, 0.2, 0.4, 0.6))


@pytest.mark.parametrize("box", [[10, 20, 40, 50], [[10, 20, 40, 50]], (10, 20, 40, 50), np.array([10, 20, 40, 50])])
def test_a_box_in_another_form_is_shown_as_it_is(w, box):
    message = said(lambda: w.like("identity", w.made()[1], box=box))
    assert message.startswith("Identity Target: the box is ") and "10" in message and "an object with x, y, width and height" in message


def test_drags_are_drawn_on_an_image_of_the_references_shape(w):
    _, reference = w.made(size=(48, 64))
    arrow, = w.drag(reference)
    for height, width in ((48, 64), (600, 800), (599, 801), (47, 64)):
        drawn, = w.drag(reference, image=torch.zeros(1, height, width, 3))
        assert torch.equal(drawn.paths, arrow.paths)
    square = torch.zeros(1, 800, 800, 3)
    with pytest.raises(ValueError, match="^Drag Target: the image is 800x800 pixels, but the reference image is 64x48, .* misplaced"):
        w.drag(reference, image=square)
    with pytest.raises(ValueError, match="the image is 800x800"):  # before the pixels are taken for places outside
        w.drag(reference, "[]", drags_json="[[[400, 400], [900, 400]]]", image=square)
    assert w.drag(reference, "[]", image=square) == ()


def test_a_box_found_on_a_larger_image_is_noticed(w, caplog):
    _, reference = w.made()
    beyond = {"x": 20, "y": 20, "width": 300, "height": 300}
    target, = w.like("appearance", reference, box=beyond)
    assert target.box == target.reference_box == (20 / 64, 20 / 64, 44 / 64, 44 / 64)
    w.like("identity", reference, reference_box=beyond)
    one, two = (record.message for record in caplog.records)
    assert one.startswith("Appearance Target: more than a fifth of the box {") and "64x64" in one and "300" in one
    assert two.startswith("Identity Target: more than a fifth of the reference_box {")
    caplog.clear()
    w.like("appearance", reference, box={"x": -5, "y": 4, "width": 50, "height": 60})
    cut = Reference(reference.trajectory, reference.conditioning, reference.family, 8)  # its image had up to 519 pixels
    w.like("appearance", cut, box={"x": 505, "y": 0, "width": 14, "height": 519})
    assert not caplog.records
