"""Drags as editors, files and trackers give them."""
import json

import pytest
import torch

from readout_guidance_pack.nodes import drag_paths

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


def test_a_drag_that_leaves_the_picture_is_not_taken_for_pixels():
    path, = drag_paths.from_json("Drag Target", "[[[0.5, 0.5], [3, 0.5]]]", SIZE)
    assert path[1].tolist() == [3, 0.5]
    with pytest.raises(ValueError, match="an end outside the picture"):
        drag_paths.usable("Drag Target", [path])


@pytest.mark.parametrize("text", [
    "", "[", "5", "null", "{}", '{"x": 1}', "[[]]", "[[[0.1, 0.2]]]", "[0.1, 0.2]", '[[["a", "b"], [1, 2]]]', "[[[NaN, 0], [1, 1]]]",
    '[{"x": 1}, {"x": 2}]', "[[[0, 0, 0], [1, 1, 1]]]", "[[[1e999, 0], [1, 1]]]", "[" * 100_000, "[" * 100_000 + "]" * 100_000, None, 5,
    '[[{"x": null, "y": 0}, {"x": 1, "y": 1}]]'])
def test_what_is_no_drag_is_explained_without_jargon(text):
    with pytest.raises(ValueError, match="Drag Target: the drags cannot be read") as said:
        drag_paths.from_json("Drag Target", text, SIZE)
    assert "share" not in str(said.value) and len(str(said.value)) < 500


def tracks(path, **more):
    return {"track_path": path} | more


PATH = torch.tensor([[[128.0, 128.0], [10.0, 10.0]], [[256.0, 192.0], [20.0, 20.0]]])


def test_tracks_without_visibility_are_all_visible(caplog):
    paths = drag_paths.from_tracks("Drag Target", tracks(PATH), SIZE)
    assert len(paths) == 2 and torch.allclose(paths[0], WANTED)
    assert not caplog.records


@pytest.mark.parametrize("seen", [[[True, True], [True, False]], [[True, False], [True, True]]])
def test_tracks_that_are_hidden_at_an_end_are_left_out_with_a_warning(caplog, seen):
    path, = drag_paths.from_tracks("Drag Target", tracks(PATH, track_visibility=torch.tensor(seen)), SIZE)
    assert torch.allclose(path, WANTED)
    assert [r.message for r in caplog.records] == ["Drag Target: 1 of 2 tracks are hidden at their first or last frame and left out."]


@pytest.mark.parametrize("given", [tracks(PATH, track_visibility=torch.tensor([[True, False], [False, True]])), tracks(PATH[:, :0])])
def test_where_no_track_is_left_nothing_is_dragged_in_silence(given):
    with pytest.raises(ValueError, match=f"Drag Target: none of the {given['track_path'].shape[1]} tracks is visible at both"):
        drag_paths.from_tracks("Drag Target", given, SIZE)


def test_tracks_of_a_larger_picture_are_noticed(caplog):
    drag_paths.from_tracks("Drag Target", tracks(PATH * 4), SIZE)
    assert "1024x768" in caplog.text and "512x256" in caplog.text


@pytest.mark.parametrize("given, said", [
    (None, "NoneType"), ({}, "dict"), (tracks([1, 2]), "list"), (tracks(torch.zeros(2, 3)), r"\(2, 3\)"), (tracks(PATH / 0), "finite"),
    (tracks(PATH, track_visibility=torch.ones(5, 7)), "visibility"), (tracks(PATH, track_visibility="yes"), "visibility")])
def test_what_are_no_tracks_is_explained(given, said):
    with pytest.raises(ValueError, match=f"Drag Target: .*{said}"):
        drag_paths.from_tracks("Drag Target", given, SIZE)
