"""Drags as editors, files and trackers give them."""
import json

import pytest
import torch

from readout_guidance_pack.nodes.inputs import drag_paths

SIZE = (256, 512)  # H, W
WANTED = torch.tensor([[0.25, 0.5], [0.5, 0.75]])
IN_PIXELS = [[128, 128], [256, 192]]


@pytest.mark.parametrize("text", [
    json.dumps([WANTED.tolist()]), json.dumps(WANTED.tolist()), json.dumps([IN_PIXELS]), json.dumps(IN_PIXELS),
    json.dumps([{"x": x, "y": y} for x, y in IN_PIXELS]), json.dumps([[{"x": x, "y": y} for x, y in IN_PIXELS]]),
    json.dumps([{"x": x, "y": y} for x, y in WANTED.tolist()])])
def test_shares_and_pixels_lists_and_objects_say_the_same(text):
    path, = drag_paths.from_json("Drag Target", text, SIZE)
    assert torch.allclose(path, WANTED)


def test_the_texts_of_several_editors_come_as_a_list():
    one, two = drag_paths.from_json("Drag Target", [json.dumps(IN_PIXELS), json.dumps([WANTED.tolist()])], SIZE)
    assert torch.allclose(one, WANTED) and torch.allclose(two, WANTED)


@pytest.mark.parametrize("given", [[WANTED.tolist()], WANTED.tolist(), [[{"x": x, "y": y} for x, y in IN_PIXELS]]])
def test_clients_may_give_the_list_itself_for_its_text(given):
    path, = drag_paths.from_json("Drag Target", given, SIZE)
    assert torch.allclose(path, WANTED)


def test_a_drag_that_leaves_the_image_is_not_taken_for_pixels():
    path, = drag_paths.from_json("Drag Target", "[[[0.5, 0.5], [3, 0.5]]]", SIZE)
    assert path[1].tolist() == [3, 0.5]
    with pytest.raises(ValueError, match="an end outside the image"):
        drag_paths.usable("Drag Target", [path])


@pytest.mark.parametrize("text", [
    "", "[", "5", "null", "{}", '{"x": 1}', "[[]]", "[[[0.1, 0.2]]]", "[0.1, 0.2]", '[[["a", "b"], [1, 2]]]', "[[[NaN, 0], [1, 1]]]",
    '[{"x": 1}, {"x": 2}]', "[[[0, 0, 0], [1, 1, 1]]]", "[[[1e999, 0], [1, 1]]]", "[" * 100_000, "[" * 100_000 + "]" * 100_000, None, 5,
    '[[{"x": null, "y": 0}, {"x": 1, "y": 1}]]'])
def test_what_is_no_drag_is_explained_without_jargon(text):
    with pytest.raises(ValueError, match="Drag Target: the drags cannot be read") as said:
        drag_paths.from_json("Drag Target", text, SIZE)
    assert "share" not in str(said.value) and len(str(said.value)) < 500
