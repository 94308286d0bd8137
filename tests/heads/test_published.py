"""The published checkpoints, with random weights: their keys, shapes and configs, read as their authors' code reads them."""
import json
import math
import re

import pytest
import torch
from safetensors import safe_open

from published_head import by_the_formulas  # tests/rg_core is on the path
from readout_guidance_pack import heads
from readout_guidance_pack.heads.published import HEADS
from readout_guidance_pack.rg_core.readout.head import ReadoutHead
from tools import convert

TAPS = {"sdv15": [1280] * 6 + [640] * 3 + [320] * 3, "sdxl": [1280] * 3 + [640] * 3 + [320] * 3}
MODELS = {"sdv15": "runwayml/stable-diffusion-v1-5", "sdxl": "stabilityai/stable-diffusion-xl-base-1.0"}
PROJECTION, WIDTH, EMB = 384, 96, 1280
SIZE = (8, 8)
SPATIAL = ("spatial_pose", "spatial_depth", "spatial_edge", "pose_keypoint")


def parts(stem: str) -> tuple[str, str]:
    """The family of models and what the name says of the head."""
    return re.fullmatch("readout_(sdv15|sdxl)_(.*)", stem).groups()


def state_dict(stem: str) -> dict[str, torch.Tensor]:
    """Random weights under the published names, in the layout that is not sequential."""
    family, name = parts(stem)
    rng = torch.Generator().manual_seed(len(stem))
    weights = {"mixing_weights": torch.randn(len(TAPS[family]), generator=rng)}

    def add(key: str, *shape: int) -> None:
        weights[key] = torch.randn(shape, generator=rng) / math.sqrt(math.prod(shape[1:]))

    for layer, channels in enumerate(TAPS[family]):
        at = f"bottleneck_layers.{layer}"
        for conv, shape in (("shortcut", (PROJECTION, channels, 1, 1)), ("conv1", (WIDTH, channels, 1, 1)),
                            ("conv2", (WIDTH, WIDTH, 3, 3)), ("conv3", (PROJECTION, WIDTH, 1, 1))):
            add(f"{at}.{conv}.weight", *shape)
            add(f"{at}.{conv}.norm.weight", shape[0])
            add(f"{at}.{conv}.norm.bias", shape[0])
        add(f"{at}.emb_layers.weight", WIDTH, EMB)
        add(f"{at}.emb_layers.bias", WIDTH)
    if name in SPATIAL:
        channels = 18 if name == "pose_keypoint" else 3
        for index, shape in ((0, (128, PROJECTION, 3, 3)), (2, (32, 128, 3, 3)), (4, (channels, 32, 1, 1))):
            add(f"output_head.{index}.weight", *shape)
            add(f"output_head.{index}.bias", shape[0])
    return weights


def sequential(weights: dict) -> dict:
    return {re.sub(r"(bottleneck_layers\.\d+)\.", r"\1.0.", name): value for name, value in weights.items()}


def config(stem: str) -> dict:
    """As the authors' training code writes it; theirs are of the layout that is not sequential."""
    family, name = parts(stem)
    aggregation, dataset = {"use_output_head": name in SPATIAL, "bottleneck_sequential": False}, {"bucket_root": "data"}
    if name in SPATIAL:
        aggregation["output_head_channels"] = 18 if name == "pose_keypoint" else 3
    if name == "pose_keypoint":
        aggregation["output_head_act"] = False
    elif name in SPATIAL:
        kind = name.removeprefix("spatial_")
        dataset |= {"control_type": kind, "sparse_loss": kind != "depth",
                    "control_range": (-1.0, 1.0) if kind == "depth" else (-0.5, 0.5)}
    return {"model_id": MODELS[family], "diffusion_mode": "generation", "num_timesteps": 1000, "save_timestep": [0], "prompt": "",
            "projection_dim": PROJECTION, "dims": TAPS[family], "aggregation_kwargs": aggregation, "dataset_args": dataset,
            "output_resolution": 64, "load_resolution": 512, "wandb_kwargs": {"name": stem}}


def write(path, weights: dict, config: dict | None) -> None:
    content = {"step": 5000, "aggregation_network": weights, "optimizer_state_dict": {"state": {}, "param_groups": []}}
    torch.save(content | ({} if config is None else {"config": config}), path)


def inputs(family: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Maps as large as the decoder of that family makes them for latents of SIZE, and an embedding."""
    rng = torch.Generator().manual_seed(1)
    levels = len(TAPS[family]) // 3
    features = [torch.randn(2, channels, *(n >> levels - 1 - i // 3 for n in SIZE), generator=rng)
                for i, channels in enumerate(TAPS[family])]
    return features, torch.randn(2, EMB, generator=rng)


def read(head, family: str) -> torch.Tensor:
    return head(*inputs(family), SIZE)


@pytest.mark.parametrize("layout", ["flat", "sequential"])
@pytest.mark.parametrize("stem", HEADS)
def test_every_published_head_reads_what_the_formulas_say_and_converts_exactly(tmp_path, stem, layout):
    family, name = parts(stem)
    weights = state_dict(stem)
    write(tmp_path / f"{stem}.pt", weights if layout == "flat" else sequential(weights), config(stem))
    head = heads.load_head(tmp_path / f"{stem}.pt")
    assert (head.kind, head.channels, head.base_model) == (HEADS[stem].kind, TAPS[family], MODELS[family])
    assert head.control_range == ((-1.0, 1.0) if name == "spatial_depth" else (-0.5, 0.5))

    # The authors' code gives sequential blocks no embedding, nor, at guidance time, the correspondence head.
    without = layout == "sequential" or name == "drag_correspondence"
    applied = {k: v.double() for k, v in weights.items() if not (without and "emb_layers" in k)}
    features, emb = inputs(family)
    expected = by_the_formulas(applied, [f.double() for f in features], emb.double(), SIZE, name in SPATIAL,
                               tanh=name != "pose_keypoint")
    readout = read(head, family)
    assert readout.shape == (2, {"pose_keypoint": 18}.get(name, 3) if name in SPATIAL else PROJECTION, *SIZE)
    assert ((readout - expected).norm() / expected.norm()).item() < 1e-5

    heads.save_head(head, tmp_path / "another name.safetensors", dtype=torch.float32)
    assert torch.equal(read(heads.load_head(tmp_path / "another name.safetensors"), family), readout)


@pytest.fixture(scope="module")
def depth():
    return state_dict("readout_sdxl_spatial_depth")


def test_a_saved_published_head_keeps_its_config_and_says_where_it_is_from(tmp_path, depth):
    stem = "readout_sdxl_spatial_depth"
    write(tmp_path / f"{stem}.pt", sequential(depth), config(stem))
    heads.save_head(heads.load_head(tmp_path / f"{stem}.pt"), tmp_path / "once.safetensors")
    heads.save_head(heads.load_head(tmp_path / "once.safetensors"), tmp_path / "twice.safetensors", quality=0.5)
    with safe_open(tmp_path / "twice.safetensors", "pt") as file:
        said = json.loads(file.metadata()["readout_head"])
    published = config(stem)
    assert {k: said[k] for k in ("num_timesteps", "save_timestep", "output_resolution", "load_resolution", "wandb_kwargs")} == {
        k: published[k] for k in ("num_timesteps", "save_timestep", "output_resolution", "load_resolution", "wandb_kwargs")}
    assert said["dataset_args"] == published["dataset_args"] | {"control_range": [-1.0, 1.0]}
    assert said["aggregation_kwargs"] == published["aggregation_kwargs"] | {"output_head_act": True}
    assert (said["license"], said["source"], said["quality"]) == ("Apache-2.0", HEADS[stem].url, 0.5)


FIELDS = ["model_id", "dims", "projection_dim", "aggregation_kwargs", "dataset_args", "num_timesteps", "wandb_kwargs"]


@pytest.mark.parametrize("given", [None, {}, dict.fromkeys(FIELDS), *({"without": field} for field in FIELDS)], ids=str)
def test_any_field_of_the_config_may_be_missing(tmp_path, depth, given):
    stem = "readout_sdxl_spatial_depth"
    if given and "without" in given:
        given = {k: v for k, v in config(stem).items() if k != given["without"]}
    write(tmp_path / f"{stem}.pt", depth, given)
    head = heads.load_head(tmp_path / f"{stem}.pt")
    model_id = (given or {}).get("model_id") or "Stable Diffusion XL"
    assert (head.kind, head.control_range, head.base_model, head.channels) == ("depth", (-1.0, 1.0), model_id, TAPS["sdxl"])
    assert read(head, "sdxl").abs().max() < 1  # tanh


def test_the_config_says_what_the_weights_and_the_name_cannot(tmp_path, depth):
    said = {"aggregation_kwargs": {"output_head_act": False}, "dataset_args": {"control_range": [0.0, 2.0], "control_type": "edge"}}
    write(tmp_path / "checkpoint_step_5000.pt", depth, said)
    head = heads.load_head(tmp_path / "checkpoint_step_5000.pt")
    assert (head.kind, head.control_range) == ("edge", (0.0, 2.0))
    assert not isinstance(head.output_head[-1], torch.nn.Tanh)
    write(tmp_path / "checkpoint_step_9000.pt", depth, {"wandb_kwargs": {"name": "readout_sdxl_spatial_pose"}})
    assert heads.load_head(tmp_path / "checkpoint_step_9000.pt").kind == "pose"


def test_more_weights_do_no_harm_and_missing_ones_are_named(tmp_path, depth):
    path = tmp_path / "readout_sdxl_spatial_depth.pt"
    write(path, depth, {})
    alone = read(heads.load_head(path), "sdxl")
    write(path, depth | {"logit_scale": torch.tensor(2.66)}, {})
    assert torch.equal(read(heads.load_head(path), "sdxl"), alone)
    for name in ("bottleneck_layers.8.conv3.norm.bias", "output_head.4.weight", "bottleneck_layers.0.emb_layers.weight"):
        write(path, {k: v for k, v in depth.items() if k != name}, {})
        with pytest.raises(heads.HeadFileError, match=f"not a complete readout head: it has no {name}"):
            heads.load_head(path)


def test_heads_of_our_own_keep_their_embedding_whatever_they_read(tmp_path):
    path = tmp_path / "readout_sdv15_drag_correspondence.safetensors"
    heads.save_head(ReadoutHead("correspondence", [32], projection_dim=128, emb_channels=40, out_channels=None), path)
    head = heads.load_head(path)
    assert head.bottleneck_layers[0].emb_layers is not None and "license" not in head.config


def test_convert_writes_beside_and_overwrites_nothing(tmp_path, capsys):
    stem = "readout_sdv15_drag_correspondence"
    path, broken = tmp_path / f"{stem}.pt", tmp_path / "readout_sdv15_spatial_pose.pt"
    write(path, sequential(state_dict(stem)), config(stem))
    broken.write_bytes(path.read_bytes()[:10000])
    assert convert.main([str(broken), str(path)]) == 1
    assert sorted(p.name for p in tmp_path.glob("*.safetensors")) == [f"{stem}.safetensors"]
    head = heads.load_head(tmp_path / f"{stem}.safetensors")
    assert head.config["source"] == HEADS[stem].url
    assert torch.equal(read(head, "sdv15"), read(heads.load_head(path), "sdv15"))
    said = capsys.readouterr().out.splitlines()
    assert f"{broken} was not converted" in said[0] and "reads correspondence" in said[1] and len(said) == 2

    first = (tmp_path / f"{stem}.safetensors").read_bytes()
    assert convert.main([str(path)]) == 1 and "not overwritten" in capsys.readouterr().out
    assert (tmp_path / f"{stem}.safetensors").read_bytes() == first
    assert convert.main([str(path.with_suffix(".safetensors"))]) == 0 and "is converted already" in capsys.readouterr().out
    assert convert.main([str(tmp_path / "no such.safetensors")]) == 1 and "was not converted" in capsys.readouterr().out
    path.with_suffix(".safetensors").unlink()
    assert convert.main([str(path)]) == 0


@pytest.mark.parametrize("family, megabytes", [("sdv15", 33.9), ("sdxl", 23.6)])
def test_a_head_of_the_published_shape_is_as_large_as_the_readme_says(family, megabytes):
    size = sum(weight.numel() * weight.element_size() for weight in ReadoutHead("pose", TAPS[family]).parameters())
    assert round(size / 1e6, 1) == megabytes
