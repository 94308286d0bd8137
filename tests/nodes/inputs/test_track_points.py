"""Tracks as trackers, files and stock nodes give them."""
import json
import math

import numpy as np
import pytest
import torch
from comfy_extras.nodes_wanmove import GenerateTracks, WanMoveConcatTrack, WanMoveTracksFromCoords

from readout_guidance_pack.nodes.inputs import track_points
from readout_guidance_pack.nodes.targets.load_tracks import LoadTracks

SIZE = (256, 512)  # H, W
WANTED = torch.tensor([[0.25, 0.5], [0.5, 0.75]])


def tracks(path, **more):
    return {"track_path": path} | more


PATH = torch.tensor([[[128.0, 128.0], [10.0, 10.0]], [[256.0, 192.0], [20.0, 20.0]]])


def test_tracks_without_visibility_are_all_visible(caplog):
    paths = track_points.paths("Drag Target", tracks(PATH), SIZE)
    assert len(paths) == 2 and torch.allclose(paths[0], WANTED)
    assert not caplog.records


@pytest.mark.parametrize("seen", [[[True, True], [True, False]], [[True, False], [True, True]]])
def test_tracks_that_are_hidden_at_an_end_are_left_out_with_a_warning(caplog, seen):
    path, = track_points.paths("Drag Target", tracks(PATH, track_visibility=torch.tensor(seen)), SIZE)
    assert torch.allclose(path, WANTED)
    assert [r.message for r in caplog.records] == ["Drag Target: 1 of 2 tracks are hidden at their first or last frame and are left out."]


@pytest.mark.parametrize("given", [tracks(PATH, track_visibility=torch.tensor([[True, False], [False, True]])), tracks(PATH[:, :0])])
def test_where_no_track_is_left_nothing_is_dragged_in_silence(given):
    with pytest.raises(ValueError, match=f"Drag Target: none of the {given['track_path'].shape[1]} tracks is visible at both"):
        track_points.paths("Drag Target", given, SIZE)


@pytest.mark.parametrize("seen", [[0.9, 0.02], [9.0, -5.0]])
def test_how_sure_a_tracker_is_says_what_is_visible(seen):
    path, = track_points.paths("Drag Target", tracks(PATH, track_visibility=torch.tensor([seen, seen])), SIZE)
    assert torch.allclose(path, WANTED)


def test_tracks_from_minus_one_to_one_are_told(caplog):
    scale = torch.tensor(SIZE[::-1])
    path = torch.tensor([[[-0.5, 0.0], [0.2, -0.6]], [[0.0, 0.5], [0.5, -0.2]]])
    one, two = track_points.paths("Drag Target", tracks(path), SIZE)
    assert torch.allclose(one, WANTED) and torch.allclose(two, torch.tensor([[0.6, 0.2], [0.75, 0.4]]))
    assert [r.message for r in caplog.records] == ["Drag Target: the tracks have many values below 0, so they are read as going from "
                                                   "-1 (left, top) to 1 (right, bottom)."]
    caplog.clear()
    beside = torch.tensor([[[-0.2, 0.5]], [[0.5, 0.5]]])
    assert torch.allclose(track_points.points("Drag Target", tracks(beside), SIZE)[0], beside * scale) and not caplog.records


@pytest.mark.parametrize("nowhere", [0.0, -1.0])
def test_places_of_hidden_points_say_nothing_of_the_unit(nowhere, caplog):
    path, seen = PATH[:, :1].repeat(1, 5, 1).clone(), torch.zeros(2, 5, dtype=torch.bool)
    path[:, 1:], seen[:, 0] = nowhere, True
    one, = track_points.paths("Drag Target", tracks(path, track_visibility=seen), SIZE)
    assert torch.allclose(one, WANTED) and len(caplog.records) == 1  # that four are hidden


def test_shares_of_points_that_leave_the_image_are_shares(caplog):
    """A camera that goes nearer, twice as near in the end."""
    start = torch.cartesian_prod(torch.linspace(0.05, 0.95, 5), torch.linspace(0.05, 0.95, 5))
    path = torch.stack([0.5 + (start - 0.5) * zoom for zoom in torch.linspace(1, 2, 8)])
    found, _ = track_points.points("Drag Target", tracks(path), SIZE)
    assert torch.allclose(found, path * torch.tensor(SIZE[::-1])) and not caplog.records


def test_visibility_with_points_first_is_turned():
    path, seen = PATH.repeat(3, 1, 1), torch.ones(1, 2, 6, dtype=torch.bool)
    seen[0, 1] = False
    assert track_points.points("Drag Target", tracks(path, track_visibility=seen), SIZE)[1].tolist() == [[True, False]] * 6


@pytest.mark.parametrize("given", [tracks(PATH.flip(-1).numpy()[..., ::-1]), tracks(PATH.numpy().astype(">f4")), tracks(PATH.numpy()),
                                   tracks(PATH[None]), tracks(PATH, track_visibility=torch.ones(1, 2, 2)),
                                   tracks(PATH, track_visibility=torch.ones(2, 2, 1)), tracks(PATH, track_visibility=np.ones((2, 2)))])
def test_tracks_in_other_containers_are_read(given):
    assert torch.allclose(torch.stack(track_points.paths("Drag Target", given, SIZE))[0], WANTED)


def test_tracks_of_a_larger_image_are_noticed(caplog):
    track_points.paths("Drag Target", tracks(PATH * 4), SIZE)
    assert "1024x768" in caplog.text and "512x256" in caplog.text


@pytest.mark.parametrize("given, said", [
    (None, "NoneType"), ({}, "dict"), (tracks([1, 2]), "list"), (tracks(torch.zeros(2, 3)), r"\(2, 3\)"), (tracks(PATH / 0), "finite"),
    (tracks(PATH, track_visibility=torch.ones(5, 7)), "visibility"), (tracks(PATH, track_visibility="yes"), "visibility")])
def test_what_are_no_tracks_is_explained(given, said):
    with pytest.raises(ValueError, match=f"Drag Target: .*{said}"):
        track_points.paths("Drag Target", given, SIZE)


def walking(frames: int, count: int, seed: int = 0) -> torch.Tensor:
    """Points [F, K, 2] at random places of the image that go ways of 10 to 60 pixels, as followed by a tracker that wavers by a tenth of one."""
    rng = torch.Generator().manual_seed(seed)
    start, way = torch.rand(count, 2, generator=rng) * torch.tensor([400, 150]) + 20, torch.randn(count, 2, generator=rng) * 20 + 10
    share = (1 - (torch.linspace(0, 1, frames) * math.pi).cos()[:, None, None]) / 2
    return start + share * way + 0.1 * torch.randn(frames, count, 2, generator=rng)


def test_tracks_in_shares_are_told_from_pixels():
    one, two = (track_points.paths("Drag Target", tracks(path), SIZE) for path in (PATH, PATH / torch.tensor([512, 256])))
    assert torch.allclose(torch.stack(one), torch.stack(two), atol=1e-6)


@pytest.mark.parametrize("frames, wavers", [(2, 0.1), (16, 0.1), (16, 1.0), (80, 1.0)])
def test_tracks_that_stand_still_but_for_the_trackers_noise_are_no_drags(caplog, frames, wavers):
    rng = torch.Generator().manual_seed(1)
    standing = torch.rand(32, 2, generator=rng) * 200 + wavers * torch.randn(frames, 32, 2, generator=rng)
    moving = walking(frames, 5)
    found = track_points.paths("Drag Target", tracks(torch.cat([standing, moving], 1)), SIZE)
    wanted = [path / torch.tensor([512, 256]) for path in moving.unbind(1)]
    assert all(any(torch.equal(path, drag) for drag in found) for path in wanted)
    assert len(found) <= 5 + 1, len(found)  # of wider wavering now and then one ends elsewhere than it began
    assert "stand still and are left out" in caplog.text
    with pytest.raises(ValueError, match="none of the 32 tracks moves"):
        track_points.paths("Drag Target", tracks(standing[:, :] * 0 + standing[:1]), SIZE)


def test_ways_that_turn_or_slow_down_are_drags():
    slowing = torch.tensor([0.0, 30, 50, 58, 60])[:, None, None].expand(5, 1, 2)
    there_and_back = torch.tensor([0.0, 20, 40, 20, 4])[:, None, None].expand(5, 1, 2)
    assert len(track_points.paths("Drag Target", tracks(torch.cat([slowing, there_and_back], 1)), SIZE)) == 2


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("frames, count", [(5, 12), (16, 4), (16, 49), (80, 12)])
def test_saved_tracks_of_either_order_are_read_alike(tmp_path, monkeypatch, seed, frames, count):
    monkeypatch.setattr("folder_paths.get_input_directory", lambda: str(tmp_path))
    path = walking(frames, count, seed)
    for name, saved in (("frames", path), ("points", path.transpose(0, 1)), ("batch", path.transpose(0, 1)[None])):
        np.save(tmp_path / f"{name}.npy", saved.numpy())
        found = LoadTracks.execute(f"{name}.npy")[0]
        assert torch.equal(found["track_path"], path) and torch.equal(found["track_visibility"], torch.ones(path.shape[:2], dtype=torch.bool)), name


@pytest.mark.parametrize("moves", ["rigidly", "in a circle", "not at all"])
def test_a_row_of_points_is_not_taken_for_a_way(moves):
    """Along an even row places change as smoothly as along a way."""
    row = torch.stack([torch.arange(8) * 12.0 + 30, torch.full((8,), 90.0)], 1)
    turn = torch.linspace(0, 3, 16)[:, None, None]
    way = {"rigidly": torch.cat([turn * 20, turn * 5], 2), "in a circle": 30 * torch.cat([turn.cos(), turn.sin()], 2), "not at all": 0 * turn}[moves]
    path = row + way + 0.1 * torch.randn(16, 8, 2, generator=torch.manual_seed(0))
    assert track_points.frames_first(path) is path


def test_tracks_that_stock_nodes_made_with_a_mask_and_joined():
    """Those made with a mask have one column of visibility for all of their points."""
    coords = json.dumps([[{"x": 10 + 3 * k + 4 * i, "y": 20 + 9 * k} for i in range(6)] for k in range(3)])
    mask = torch.ones(6, 8, 8)
    mask[-1] = 0  # hidden at its end
    masked, _ = WanMoveTracksFromCoords.execute(coords, mask).args
    free, _ = GenerateTracks.execute(512, 256, 0.1, 0.2, 0.5, 0.5, 0.8, 0.7, 6, 4, 0.1).args
    for first, second, kept in ((masked, free, slice(3, None)), (free, masked, slice(4))):
        both, = WanMoveConcatTrack.execute(first, second).args
        assert both["track_visibility"].shape == (6, 5) and both["track_path"].shape == (6, 7, 2)
        _, seen = track_points.points("Drag Target", both, SIZE)
        assert seen[0].all() and seen[-1].nonzero()[:, 0].tolist() == list(range(7))[kept]
    twice, = WanMoveConcatTrack.execute(masked, both).args
    with pytest.raises(ValueError, match="made with a track_mask, leave out the track_mask"):
        track_points.points("Drag Target", twice, SIZE)
