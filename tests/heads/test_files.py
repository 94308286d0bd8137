import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from readout_guidance_pack import heads
from readout_guidance_pack.rg_core.readout.head import ReadoutHead
from readout_guidance_pack.rg_core.readout.linear_head import from_maps

CHANNELS = [32, 64, 32]


def published(sequential: bool, spatial: bool, projection_dim: int = 128) -> OrderedDict:
    """Random weights under the published names (design of the authors' aggregation network)."""
    head = ReadoutHead("pose", CHANNELS, projection_dim=projection_dim, emb_channels=None if sequential else 40,
                       out_channels=3 if spatial else None)
    rng = torch.Generator().manual_seed(0)
    weights = OrderedDict((k, torch.randn(v.shape, generator=rng)) for k, v in head.state_dict().items())
    if sequential:
        def renamed(key: str) -> str:
            parts = key.split(".")
            return ".".join([*parts[:2], "0", *parts[2:]]) if parts[0] == "bottleneck_layers" else key
        weights = OrderedDict((renamed(k), v) for k, v in weights.items())
    return weights


def reads_alike(one: ReadoutHead, two: ReadoutHead) -> bool:
    features = [torch.ones(1, c, 4, 4) * torch.arange(4.0) for c in CHANNELS]
    return torch.equal(one(features, torch.ones(1, 40), (8, 8)), two(features, torch.ones(1, 40), (8, 8)))


@pytest.mark.parametrize("sequential", [False, True])
def test_published_pickles_load_by_their_weights_and_name(tmp_path, sequential):
    path = tmp_path / "readout_sdv15_spatial_depth.pt"
    torch.save({"config": {"model_id": "some/model"}, "step": 5000, "optimizer_state_dict": {},
                "aggregation_network": published(sequential, True)}, path)
    head = heads.load_head(path)
    assert (head.kind, head.channels, head.control_range, head.base_model) == ("depth", CHANNELS, (-1.0, 1.0), "some/model")
    assert (head.bottleneck_layers[0].emb_layers is None) == sequential
    assert head([torch.ones(1, c, 4, 4) for c in CHANNELS], torch.ones(1, 40), (8, 8)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("name,kind", [("readout_sdxl_spatial_pose", "pose"), ("readout_sdv15_spatial_edge", "edge"),
                                       ("readout_sdxl_drag_appearance", "appearance"),
                                       ("readout_sdv15_drag_correspondence", "correspondence"),
                                       ("readout_sdv15_pose_keypoint", "keypoints")])
def test_the_kind_comes_from_the_published_name(tmp_path, name, kind):
    torch.save({"aggregation_network": published(True, kind not in ("appearance", "correspondence"))}, tmp_path / f"{name}.pt")
    assert heads.load_head(tmp_path / f"{name}.pt").kind == kind


def test_a_saved_head_comes_back_the_same(tmp_path):
    torch.manual_seed(0)
    head = ReadoutHead("edge", CHANNELS, projection_dim=128, emb_channels=40, hidden=(24, 8), tanh=False,
                       control_range=(-0.25, 0.5), base_model="demo").eval()
    heads.save_head(head, tmp_path / "any name.safetensors", dtype=torch.float32)
    again = heads.load_head(tmp_path / "any name.safetensors")
    assert (again.kind, again.control_range, again.base_model) == ("edge", (-0.25, 0.5), "demo")
    assert reads_alike(head, again)


def test_a_head_is_written_whole_or_not_at_all_and_the_place_is_named(tmp_path):
    head, path = ReadoutHead("edge", CHANNELS, projection_dim=128, emb_channels=40).eval(), tmp_path / "edge.safetensors"
    heads.save_head(head, path)
    before = path.read_bytes()
    heads.save_head(heads.load_head(path), path)  # a head that was loaded does not hold on to its file
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["edge.safetensors"]
    folder = tmp_path / "taken.safetensors"
    folder.mkdir()
    for place in (folder, tmp_path / "none" / "edge.safetensors", tmp_path / ("x" * 300 + ".safetensors")):
        with pytest.raises(heads.HeadFileError, match=f"{place.name} cannot be written"):
            heads.save_head(head, place)
    assert folder.is_dir() and {p.name for p in tmp_path.iterdir()} == {"edge.safetensors", "taken.safetensors"}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not show what is mapped")
def test_no_loaded_head_keeps_its_file_mapped(tmp_path):
    """Windows replaces and deletes no file that is."""
    path = tmp_path / "edge.safetensors"
    heads.save_head(ReadoutHead("edge", CHANNELS, projection_dim=128, emb_channels=40), path, state={"dice": torch.arange(9)})
    head, (state, _) = heads.load_head(path), heads.load_training(path)
    assert path.name not in Path("/proc/self/maps").read_text() and head.kind == "edge" and state["dice"].sum() == 36


def test_a_suffix_in_capitals_is_the_same_suffix(tmp_path):
    path = tmp_path / "MINE.SAFETENSORS"
    heads.save_head(ReadoutHead("edge", CHANNELS, projection_dim=128, emb_channels=40), path)
    assert heads.load_head(path).kind == "edge"


def test_a_head_of_rescaled_features_comes_back_with_their_sizes(tmp_path):
    torch.manual_seed(0)
    head = ReadoutHead("edge", CHANNELS, projection_dim=128, emb_channels=40).eval()
    for block, count in zip(head.bottleneck_layers, CHANNELS):
        block.rescale(torch.linspace(-2, 3e5, count), torch.linspace(1e-3, 1e5, count))  # half precision ends at 65,504
    path = tmp_path / "edge.safetensors"
    heads.save_head(head, path, dtype=torch.float32)
    assert reads_alike(head, heads.load_head(path))
    heads.save_head(head, path)
    assert torch.equal(heads.load_head(path).bottleneck_layers[1].mean, head.bottleneck_layers[1].mean)


def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(tmp_path):
    witness, path = tmp_path / "witness", tmp_path / "readout_sdv15_spatial_pose.pt"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch '{witness}'",)

    for write in (lambda: torch.save({"aggregation_network": Attack()}, path),
                  lambda: path.write_bytes(pickle.dumps({"aggregation_network": Attack()}))):
        write()
        with pytest.raises(heads.HeadFileError, match="readout_sdv15_spatial_pose.pt was refused"):
            heads.load_head(path)
        assert not witness.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_truncated_empty_and_foreign_files_say_so(tmp_path, suffix):
    path = tmp_path / f"readout_sdv15_spatial_pose{suffix}"
    if suffix == ".pt":
        torch.save({"aggregation_network": published(False, True)}, path)
    else:
        save_file(dict(published(False, True)), path)
    whole = path.read_bytes()
    for content in (whole[:len(whole) // 2], whole[:4], b"", b"not a head at all" * 100):
        path.write_bytes(content)
        with pytest.raises(heads.HeadFileError, match=path.name):
            heads.load_head(path)


def test_other_networks_and_incomplete_heads_are_named(tmp_path):
    lora = tmp_path / "pose_lora.safetensors"
    save_file({"lora_up.weight": torch.ones(2, 2)}, lora)
    with pytest.raises(heads.HeadFileError, match="not a readout head.*lora_up.weight"):
        heads.load_head(lora)
    partial = dict(published(False, True))
    del partial["bottleneck_layers.1.conv2.weight"]
    save_file(partial, tmp_path / "pose.safetensors")
    with pytest.raises(heads.HeadFileError, match="not a complete readout head.*conv2"):
        heads.load_head(tmp_path / "pose.safetensors")
    save_file(dict(published(False, True)), tmp_path / "mystery.safetensors")
    with pytest.raises(heads.HeadFileError, match="does not say what it reads"):
        heads.load_head(tmp_path / "mystery.safetensors")


def test_bundled_heads_load_and_say_what_they_are():
    from readout_guidance_pack.heads.demo import HEADS_FOLDER
    found = {path.stem: heads.load_head(path) for path in HEADS_FOLDER.glob("*.safetensors")}
    assert {name: head.kind for name, head in found.items()} == {
        f"demo_{k}": k for k in ("pose", "depth", "edge", "correspondence", "appearance", "identity")}
    assert all(head.base_model == "demo" for head in found.values())
    assert all(head.channels == [128] * 4 + [64] * 3 for head in found.values())


@pytest.mark.parametrize("name, kind", [("purpose_depth", "depth"), ("my-pose.v2", "pose"), ("Depth Head", "depth"), ("soft_edges_1", "edge"),
                                        ("sdxl.drag_appearance", "appearance"), ("pose_keypoint_x", "keypoints"), ("keypoints", "keypoints"),
                                        ("suppose", None), ("knowledge", None), ("poseidon", None)])
def test_a_name_says_the_kind_by_its_words(name, kind):
    assert heads.kind_of(name) == kind


def test_the_files_own_word_outranks_its_name_and_the_user_both(tmp_path):
    path = tmp_path / "pose.pt"
    torch.save({"config": {"dataset_args": {"control_type": "depth"}}, "aggregation_network": published(False, True)}, path)
    assert heads.load_head(path).kind == "depth" and heads.load_head(path).control_range == (-1.0, 1.0)
    assert heads.load_head(path, "edge").kind == "edge" and heads.load_head(path, "edge").control_range == (-0.5, 0.5)


def test_a_head_that_does_not_say_its_kind_can_be_told(tmp_path):
    path = tmp_path / "checkpoint_step_5000.pt"  # as the authors' training scripts name them
    torch.save({"config": {"wandb_kwargs": {"name": "run 7"}}, "aggregation_network": published(False, False)}, path)
    with pytest.raises(heads.HeadFileError, match="Choose kind in Load Readout Head"):
        heads.load_head(path)
    assert heads.load_head(path, "identity").kind == "identity"


WRONG_FIELDS = {
    "config": ([1], "field config is"), "stride of text": ({"output_stride": "x"}, "output_stride"),
    "stride of 0": ({"output_stride": 0}, "output_stride"),
    "stride of 10^9": ({"output_stride": 10**9}, "output_stride"), "range of text": ({"dataset_args": {"control_range": "x"}}, "control_range"),
    "range of one text": ({"dataset_args": {"control_range": ["x"]}}, "control_range"),
    "range upside down": ({"dataset_args": {"control_range": [1, -1]}}, "control_range"),
    "range of NaN": ({"dataset_args": {"control_range": [float("nan"), 1]}}, "control_range"),
    "empty range": ({"dataset_args": {"control_range": [0, 0]}}, "control_range"),
    "dataset": ({"dataset_args": "x"}, "dataset_args"), "aggregation": ({"aggregation_kwargs": 5}, "aggregation_kwargs"),
    "run": ({"wandb_kwargs": []}, "wandb_kwargs"), "kind": ({"kind": 3}, "kind"), "model": ({"model_id": {}}, "model_id")}


@pytest.mark.parametrize("case", WRONG_FIELDS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_field_of_the_wrong_type_is_named(tmp_path, suffix, case):
    config, said = WRONG_FIELDS[case]
    path = tmp_path / f"pose{suffix}"
    if suffix == ".pt":
        torch.save({"config": config, "aggregation_network": published(False, True)}, path)
    else:
        save_file(dict(published(False, True)), path, metadata={"readout_head": json.dumps(config)})
    with pytest.raises(heads.HeadFileError, match=f"pose{suffix} is not a complete readout head: .*{said}"):
        heads.load_head(path)


def test_weights_that_are_none_are_named(tmp_path):
    def said(**changes):
        weights = dict(published(False, True)) | changes
        torch.save({"aggregation_network": weights}, tmp_path / "pose.pt")
        with pytest.raises(heads.HeadFileError) as failure:
            heads.load_head(tmp_path / "pose.pt")
        return str(failure.value)

    name = "bottleneck_layers.0.conv3.weight"
    right = published(False, True)[name]
    assert "conv3.weight contains NaN" in said(**{name: right * float("nan")})
    assert "conv3.weight is not a tensor" in said(**{name: 5}) and "conv3.weight is not a tensor" in said(**{name: right.int()})
    assert "conv3.weight has the shape" in said(**{name: right[0]}) and "it has no bottleneck" in said(**{name: None})
    assert "mixing_weights has the shape" in said(mixing_weights=torch.tensor(3.0))
    # What would take memory by its shape alone: one number, said to be a hundred thousand channels of projections.
    assert "fewer numbers" in said(**{name: torch.zeros(1).expand(400_000, 32, 1, 1)})
    assert "conv1.weight" in said(**{name: torch.zeros(400_000, 1, 1, 1)})
    assert "it has no bottleneck_layers.3.conv1.weight" in said(mixing_weights=torch.zeros(10**6))


def test_a_compressed_pickle_is_not_opened(tmp_path):
    torch.save({"aggregation_network": published(False, True)}, tmp_path / "pose.pt")
    with zipfile.ZipFile(tmp_path / "pose.pt") as whole, zipfile.ZipFile(tmp_path / "bomb_pose.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in whole.infolist():
            bomb.writestr(entry.filename, bytes(len(whole.read(entry))))
    with pytest.raises(heads.HeadFileError, match="bomb_pose.pt was refused: it is compressed"):
        heads.load_head(tmp_path / "bomb_pose.pt")


def test_what_training_goes_on_with_is_kept_to_the_bit_beside_the_head(tmp_path):
    head, path = ReadoutHead("edge", CHANNELS, projection_dim=128, emb_channels=40, start=0.4).eval(), tmp_path / "edge.safetensors"
    state = {"head.mixing_weights.exp_avg": torch.randn(3, dtype=torch.float64), "dice": torch.arange(9, dtype=torch.uint8)}
    heads.save_head(head, path, state=state, training={"done": 7})
    again, (found, config) = heads.load_head(path), heads.load_training(path)
    assert again.start == 0.4 and again.state_dict().keys() == head.state_dict().keys()
    assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state) and config["training"] == {"done": 7}
    heads.save_head(again, path)
    with pytest.raises(heads.HeadFileError, match="edge.safetensors contains a head, but no training state to continue from"):
        heads.load_training(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(heads.HeadFileError, match="edge.safetensors cannot be read"):
        heads.load_training(path)


def linear(**changes):
    rng = torch.Generator().manual_seed(1)
    maps = [(torch.randn(sum(CHANNELS), 3, generator=rng), torch.randn(3, generator=rng)) for _ in range(4)]
    return from_maps("floor plan", CHANNELS, maps, torch.randn(6, 40, generator=rng), control_range=(-0.5, 0.5), base_model="SD15", start=0.4,
                     config={"fitted_on": {"pictures": 25}, "text_width": 768}, **changes)


@pytest.mark.parametrize("changes", [{}, {"stride": 1}, {"pooled": True}])
def test_a_fitted_head_comes_back_the_same(tmp_path, changes):
    head = linear(**changes)
    heads.save_head(head, tmp_path / "pose by name.safetensors", dtype=torch.float32)
    again = heads.load_head(tmp_path / "pose by name.safetensors")
    for name in ("kind", "channels", "control_range", "base_model", "start", "stride", "pooled", "output_head"):
        assert getattr(again, name) == getattr(head, name), name
    assert again.config["fitted_on"] == {"pictures": 25} and again.config["text_width"] == 768
    assert reads_alike(head, again) and not any(p.requires_grad for p in again.parameters())


BROKEN = {
    "a tap without a map": (lambda weights, config: weights.pop("weights.1"), "it has no weights.1"),
    "bands that differ": (lambda weights, config: weights.update({"weights.2": torch.zeros(3, 3, 32)}), r"weights.2 has the shape \(3, 3, 32\)"),
    "flat": (lambda weights, config: weights.update(bias=torch.zeros(12)), "bias has the shape"),
    "nan": (lambda weights, config: weights.update(levels=torch.full((6, 40), torch.nan)), "levels contains NaN"),
    "whole numbers": (lambda weights, config: weights.update(levels=torch.zeros(6, 40, dtype=torch.int32)),
                      "levels is not a tensor of floating-point"),
    "start": (lambda weights, config: config.update(start=1.5), "start is 1.5"),
    "pooled": (lambda weights, config: config.update(pooled="yes"), 'pooled is "yes"'),
    "kind": (lambda weights, config: config.update(kind="../../x"), 'kind is "../../x"'),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_fitted_head_is_refused_by_the_field(tmp_path, case):
    heads.save_head(linear(), tmp_path / "a.safetensors", dtype=torch.float32)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        config, weights = json.loads(file.metadata()["readout_head"]), {name: file.get_tensor(name) for name in file.keys()}
    change, message = BROKEN[case]
    change(weights, config)
    save_file(weights, tmp_path / "a.safetensors", metadata={"readout_head": json.dumps(config)})
    with pytest.raises(heads.HeadFileError, match=f"^a.safetensors is not a complete readout head: .*{message}"):
        heads.load_head(tmp_path / "a.safetensors")
