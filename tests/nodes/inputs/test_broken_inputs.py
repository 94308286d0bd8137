"""Inputs broken at random, seeded: each is used or refused in a sentence that names the node or the file; nothing else happens.

`python run.py test -m slow tests/nodes/inputs/test_broken_inputs.py` breaks 20,000; a part of them runs each time.
"""
import io
import json
import math
import random
import re
import signal
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import comfy.sample
import comfy.samplers
import folder_paths
import latent_preview
import numpy as np
import pytest
import torch
from comfy_extras import nodes_wanmove
from PIL import Image
from safetensors.torch import save_file

from readout_guidance_pack.heads import HeadFileError, load_head
from readout_guidance_pack.heads.config import NAME
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes.common.log import Log
from readout_guidance_pack.nodes.demo import demo_model
from readout_guidance_pack.nodes.engine.live_view import LiveView
from readout_guidance_pack.nodes.engine.trace import Trace
from readout_guidance_pack.nodes.inputs import drag_paths, track_points
from readout_guidance_pack.nodes.inputs.depth_maps import GREYS
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from readout_guidance_pack.nodes.targets import load_tracks as tracks_node
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.edge import EdgeTarget
from readout_guidance_pack.nodes.targets.likeness import AppearanceTarget, IdentityTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget
from readout_guidance_pack.rg_core.images.control_images import draw_pose
from readout_guidance_pack.rg_core.readout.head import ReadoutHead

FEW, ALL = 40, 20_000  # of each kind each time; of all kinds by hand
SECONDS, MEMORY = 20, 2 * 2**30  # that one may take at most, and all together

ODD = [None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e-300, 1e300, 10**400, float("nan"), float("inf"), -float("inf"), "", "x", "1", "ü\x00\ud800",
       "x" * 5000, [], {}, [[]], [None], {"x": None}, [1, 2, 3], (1, 2), b"\x00\xff", np.zeros(3), np.float32(2), np.array(["a"]),
       torch.zeros(0), torch.tensor(float("nan")), torch.zeros(2, 3, dtype=torch.int64), object(), print, {1: 2}, range(5), 2**63, -2**63]
TENSORS = [torch.zeros(0), torch.tensor(3.0), torch.full((3, 4), float("nan")), torch.ones(1).expand(10**7), torch.zeros(3, dtype=torch.bool),
           torch.zeros(3, 3).to_sparse(), torch.zeros(1, 2, 3, 4, 5), torch.zeros(2, dtype=torch.complex64), torch.ones(4, 4).T,
           torch.full((8, 8, 3), 1e38), torch.zeros(1, 8, 8, 0), torch.rand(1, 8, 8, 7),
           torch.zeros(2, 3, device="meta"), torch.zeros(2, 2, dtype=torch.int8), torch.ones(400_000, 1, 1, 1)]


def broken(rng: random.Random, x, depth=0):
    """`x` with something wrong in it: lists, dicts and tensors lose, double or change a part, and anything may be anything."""
    if depth == 0:
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            x = broken(rng, x, 1)
        return x
    if isinstance(x, torch.Tensor) and rng.random() < 0.8:
        return broken_tensor(rng, x)
    if isinstance(x, (dict, list, tuple)) and len(x) and rng.random() < 0.9:
        x = dict(x) if isinstance(x, dict) else list(x)
        key = rng.choice(list(x)) if isinstance(x, dict) else rng.randrange(len(x))
        what = rng.random()
        if what < 0.15:
            del x[key]
        elif what < 0.25 and isinstance(x, list):
            x.insert(key, x[key])
        elif what < 0.3 and isinstance(x, dict):
            x[rng.choice(["", "x", 5, None])] = x.pop(key)
        else:
            x[key] = broken(rng, x[key], depth + 1)
        return x
    return rng.choice(ODD + TENSORS if rng.random() < 0.3 else ODD)


def broken_tensor(rng, x):
    what = rng.randrange(7)
    if what == 0 or not x.numel() or x.layout != torch.strided or x.is_meta:
        return rng.choice(TENSORS)
    if what == 1:
        return x[:rng.randrange(len(x) + 1)] if x.ndim else x[None]
    if what == 2:
        return x[None] if rng.random() < 0.5 or not x.ndim else x[0]
    if what == 3:
        return x.movedim(0, -1) if x.ndim else x
    if what == 4:
        return x.to(rng.choice([torch.uint8, torch.float16, torch.int64, torch.bool, torch.float64]))
    if what == 5:
        return x * rng.choice([-1.0, 255.0, 1e30, float("nan"), 0.0])
    x = x.clone().float()
    x.flatten()[rng.randrange(x.numel())] = rng.choice([float("nan"), float("inf"), -5.0, 1e9])
    return x


def damaged(rng, data: bytes) -> bytes:
    """A file's bytes with some of them changed, lost or doubled; its first hundred, where its header is, more often."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 50])):
        at = rng.randrange(min(len(data), rng.choice([16, 200, 4000, len(data)])) or 1)
        what = rng.random()
        if what < 0.6 and data:
            data[at] = rng.randrange(256)
        elif what < 0.75:
            del data[at:at + rng.choice([1, 8, 1000])]
        elif what < 0.9:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice([1, 8, 100])))
        else:
            data[at:at + 8] = rng.choice([2**62, 2**40, 2**31, 10**9, 0]).to_bytes(8, "little")
    return bytes(data)


@pytest.fixture(scope="module")
def w(tmp_path_factory):
    with torch.inference_mode():
        model, clip, vae = demo_model.load_demo()
        heads = {kind: load_head(HEADS_FOLDER / f"demo_{kind}.safetensors") for kind in
                 ("pose", "depth", "edge", "correspondence", "appearance", "identity")}
        positive = clip.encode_from_tokens_scheduled(clip.tokenize("a figure"))
        reference = ReadoutReference.execute(model, positive, {"samples": torch.zeros(1, 3, 64, 64)}, 0, 64)[0]
        with torch.inference_mode(False):
            torch.manual_seed(0)
            head = ReadoutHead("pose", [32, 64, 32], projection_dim=128, emb_channels=40, hidden=(8, 8)).eval()
        yield SimpleNamespace(model=model, heads=heads, positive=positive, reference=reference, folder=tmp_path_factory.mktemp("files"),
                              weights={k: v.detach().clone() for k, v in head.state_dict().items()})


CONFIG = {"kind": "pose", "model_id": "demo", "dims": [32, 64, 32], "aggregation_kwargs": {"output_head_act": True},
          "dataset_args": {"control_range": [-0.5, 0.5], "control_type": "pose"}, "wandb_kwargs": {"name": "run"}, "output_stride": 2}


def sane(head) -> None:
    """A head that can be used."""
    low, high = head.control_range
    assert low < high and math.isfinite(high - low) and isinstance(head.stride, int) and head.stride >= 1
    assert isinstance(head.base_model, str) and NAME.fullmatch(head.kind)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in head.parameters())
    assert head([torch.ones(1, c, 4, 4) for c in head.channels], torch.ones(1, 40), (4, 4)).ndim == 4


def loaded(path) -> None:
    try:
        head = load_head(path)
    except HeadFileError as error:
        assert path.name in str(error)
        raise
    if any(p.shape[-1] == 40 for p in head.parameters()) or head.bottleneck_layers[0].emb_layers is None:
        sane(head)


def safetensors_bytes(rng, w):
    path = w.folder / "pose.safetensors"
    save_file(w.weights, path, metadata={"readout_head": json.dumps(CONFIG)})
    path.write_bytes(damaged(rng, path.read_bytes()))
    loaded(path)


def safetensors_config(rng, w):
    path = w.folder / "pose.safetensors"
    text = json.dumps(broken(rng, CONFIG), default=str, skipkeys=True)
    save_file(w.weights, path, metadata={"readout_head": text if rng.random() < 0.8 else text[:rng.randrange(len(text))]})
    loaded(path)


def pickle_bytes(rng, w):
    path, buffer = w.folder / "pose.pt", io.BytesIO()
    torch.save({"config": CONFIG, "aggregation_network": w.weights}, buffer, _use_new_zipfile_serialization=rng.random() < 0.7)
    path.write_bytes(damaged(rng, buffer.getvalue()))
    loaded(path)


def pickle_content(rng, w):
    path = w.folder / "pose.pt"
    content = broken(rng, {"config": CONFIG, "aggregation_network": w.weights} if rng.random() < 0.9 else w.weights)
    try:
        torch.save(content, path)
    except Exception:  # not every odd thing can be in a file
        return
    loaded(path)


def keypoints(rng, w):
    person = {"pose_keypoints_2d": [v for k in range(18) for v in (20.0 + 7 * k, 30.0 + 9 * (k % 5), 1.0)]}
    frames = [{"canvas_width": 256, "canvas_height": 192, "people": [person, person]} for _ in range(2)]
    finite(PoseTarget.execute(w.heads["pose"], 1.0, 0.0, 0.9, keypoints=broken(rng, frames)))


def images(rng, w):
    kind = rng.choice(["pose", "depth", "edge"])
    node = {"pose": PoseTarget, "depth": DepthTarget, "edge": EdgeTarget}[kind]
    given = {"image": torch.rand(2, 16, 24, 3), "weight": 1.0, "start_percent": 0.0, "end_percent": 0.9, "mask": torch.ones(2, 16, 24)}
    finite(node.execute(w.heads[kind], **some_broken(rng, given)))


def finite(output) -> None:
    target, = output[0]
    for x in (target.image, target.mask, getattr(target, "known", None)):
        assert x is None or torch.isfinite(x.float()).all()
    size = target.prepared((64, 64), torch.device("cpu"))
    energy = size.energy(torch.zeros(3, 3, *size.size), torch.ones(3), None)
    assert torch.isfinite(energy).all()


def some_broken(rng, given: dict) -> dict:
    key = rng.choice(list(given))
    return given | {key: broken(rng, given[key])}


def drags(rng, w):
    text = json.dumps(broken(rng, [[[0.2, 0.3], [0.5, 0.6]], [{"x": 0.1, "y": 0.2}, {"x": 0.3, "y": 0.2}]]), default=str, skipkeys=True)
    if rng.random() < 0.3:
        at = rng.randrange(len(text) or 1)
        text = text[:at] + rng.choice(["[", "]", "{", ",", "\\", '"', "", "[" * 5000]) + text[at + rng.randrange(3):]
    paths = drag_paths.from_json("Drag Target", text, (64, 64))
    if paths:
        assert torch.isfinite(drag_paths.usable("Drag Target", paths)).all()


def tracks(rng, w):
    given = {"track_path": torch.rand(5, 4, 2) * 60, "track_visibility": torch.ones(5, 4, dtype=torch.bool)}
    paths = track_points.paths("Drag Target", broken(rng, given), (64, 64))
    if paths:
        assert torch.isfinite(drag_paths.usable("Drag Target", paths)).all()


def tracks_file(rng, w):
    path = w.folder / "tracks.npy"
    np.save(path, np.random.default_rng(0).random((1, 5, 4, 2)))
    path.write_bytes(damaged(rng, path.read_bytes()))
    found = tracks_node.LoadTracks.execute("tracks.npy")[0]
    assert torch.isfinite(found["track_path"]).all() and found["track_path"].shape[-1] == 2


def likenesses(rng, w):
    kind = rng.choice(["appearance", "identity"])
    node = {"appearance": AppearanceTarget, "identity": IdentityTarget}[kind]
    box = {"x": 8, "y": 8, "width": 30, "height": 40}
    given = {"weight": 1.0, "start_percent": 0.0, "end_percent": 0.9, "mask": torch.ones(1, 64, 64), "reference_mask": torch.ones(64, 64),
             "box": [box], "reference_box": box}
    target, = node.execute(head=w.heads[kind], reference=w.reference, **some_broken(rng, given))[0]
    assert all(math.isfinite(n) for n in (*target.box, *target.reference_box)) and min(target.box[2:]) > 0


def guidances(rng, w):
    """What reaches the sampler's node."""
    pose = PoseTarget.execute(w.heads["pose"], 1.0, 0.0, 0.9, image=torch.rand(1, 64, 64, 3))[0]
    given = some_broken(rng, {"guidance": pose, "strength": 0.1})
    ApplyReadoutGuidance.execute(w.model, given["guidance"], given["strength"])


def skeletons(rng, w):
    """Drawn on images small and large, with a ground, an alpha channel or another order of channels."""
    points = torch.rand(2, 1, 18, 3, generator=torch.Generator().manual_seed(rng.randrange(9)))
    points[..., 2] = 1
    size = rng.choice([(64, 48), (520, 700), (1030, 600)])
    image = draw_pose(points * torch.tensor([size[1], size[0], 1.0]), size).movedim(1, -1)
    ground = rng.choice([0.0, 0.0, 0.5, 1.0])
    image = torch.where(image.amax(-1, keepdim=True) > 0, image, torch.tensor(ground))
    if rng.random() < 0.3:
        image = torch.cat([image, (image != ground).any(-1, keepdim=True).float()], -1)
    if rng.random() < 0.3:
        image = image[..., [2, 1, 0, *range(3, image.shape[-1])]]
    finite(PoseTarget.execute(w.heads["pose"], 1.0, 0.0, 0.9, image=broken(rng, image) if rng.random() < 0.5 else image))


def depths(rng, w):
    """In all ranges and layouts, some of them whole."""
    image = torch.rand(rng.choice([(2, 16, 24, 3), (2, 16, 24), (16, 24), (1, 16, 24, 1), (16, 24, 4), (3, 16, 3)])) ** rng.choice([1, 4])
    image = image * rng.choice([1, 0.06, 10, 65535, -1, 1e-9, 3e38]) + rng.choice([0, 0.4, 1, -1000])
    finite(DepthTarget.execute(w.heads["depth"], broken(rng, image) if rng.random() < 0.5 else image, 1.0, 0.0, 0.9, rng.random() < 0.3,
                               greys=rng.choice(GREYS)))


def geometries(rng, w):
    """As the host's two nodes make them, with places that hold nothing."""
    shape = rng.choice([(2, 16, 24), (1, 1, 1), (3, 40, 40)])
    depth = torch.rand(shape) * rng.choice([1, 10, 1e-9, 3e38]) + rng.choice([0, 1, -1])
    depth[torch.rand(shape) < rng.choice([0, 0.2, 0.9])] = rng.choice([0.0, torch.inf, torch.nan])
    geometry = {"depth": depth, "image": torch.rand(*shape, 3)} | rng.choice([{}, {"mask": torch.rand(shape) > 0.3}, {"sky": torch.rand(shape)}])
    finite(DepthTarget.execute(w.heads["depth"], geometry=broken(rng, geometry) if rng.random() < 0.5 else geometry))


def lines(rng, w):
    """One pixel wide on large images, on black, grey and white."""
    ground = rng.choice([0.0, 0.3, 1.0])
    image = torch.full((1, *rng.choice([(24, 16), (1100, 530)]), 3), ground)
    image[:, ::rng.choice([7, 300])] = 1 - ground
    finite(EdgeTarget.execute(w.heads["edge"], broken(rng, image) if rng.random() < 0.5 else image, 1.0, 0.0, 0.9))


def scores(rng, w):
    """Of joints, on all scales."""
    points = [[20.0 + 7 * k, 30.0 + 9 * (k % 5), rng.random() * rng.choice([1, 10, 0.01])] for k in range(rng.choice([17, 18, 25]))]
    share = rng.random() < 0.3
    points = [[x / 256 if share else x, y / 192 if share else y, s] for x, y, s in points]
    person = {"pose_keypoints_2d": points if rng.random() < 0.3 else [v for point in points for v in point]}
    frames = [{"canvas_width": 256, "canvas_height": 192, "people": [person]}]
    finite(PoseTarget.execute(w.heads["pose"], 1.0, 0.0, 0.9, keypoints=broken(rng, frames) if rng.random() < 0.6 else frames))


def joined_tracks(rng, w):
    """By the host's own nodes, with and without masks, in pixels and shares; one of them broken before they are joined."""
    def made():
        size, frames = rng.choice([1, 64]), rng.choice([2, 5, 9])
        track = [[{"x": size * rng.random(), "y": size * rng.random()} for _ in range(frames)] for _ in range(rng.choice([1, 3]))]
        mask = torch.rand(frames, 8, 8).round() if rng.random() < 0.5 else None
        return nodes_wanmove.WanMoveTracksFromCoords.execute(json.dumps(track), mask).args[0]

    parts = [made(), made()]
    length = min(len(part["track_path"]) for part in parts)
    parts = [{key: x[:length] for key, x in part.items()} for part in parts]
    try:
        given = nodes_wanmove.WanMoveConcatTrack.execute(*(broken(rng, part) if rng.random() < 0.3 else part for part in parts)).args[0]
    except Exception:  # of the host's own node
        return
    paths = track_points.paths("Drag Target", given, (64, 64))
    assert torch.isfinite(drag_paths.usable("Drag Target", paths)).all()


def track_layouts(rng, w):
    """In files: points or frames first, with and without a batch, in pixels and shares."""
    shape = rng.choice([(5, 4, 2), (1, 5, 4, 2), (4, 12, 2), (2, 2, 2), (12, 2), (5, 4, 3), (2, 5, 4, 2)])
    content = torch.randn(shape).cumsum(rng.randrange(len(shape) - 1)) * rng.choice([0.01, 1, 100])
    content = broken(rng, content) if rng.random() < 0.5 else content
    try:
        (np.savez if rng.random() < 0.1 else np.save)((w.folder / "tracks.npy").open("wb"), content)
    except Exception:  # not every odd thing can be in a file
        return
    found = tracks_node.LoadTracks.execute("tracks.npy")[0]
    assert torch.isfinite(found["track_path"]).all() and found["track_path"].shape[-1] == 2


class Previewer(latent_preview.LatentPreviewer):
    def __init__(self, given):
        self.given = given

    def decode_latent_to_preview(self, x0):
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


def previews(rng, w):
    """What other packs' previewers may give. None of it ends a run."""
    image = Image.new(rng.choice(["RGB", "RGBA", "L", "P", "F", "I;16", "CMYK", "1"]), (rng.choice([0, 1, 8, 3000]), rng.choice([0, 1, 8, 3000])))
    screen = LiveView(Trace(), w.model, Log("KSampler"))
    screen.previewer = Previewer(rng.choice([image, image, rng.choice(ODD + TENSORS), RuntimeError("no preview"), KeyError(5)]))
    shown = screen.shown(0, torch.zeros(1, 3, 8, 8), 4)
    assert shown is None or isinstance(shown, Image.Image) and min(shown.size) > 0


def runs(rng, w):
    """Noise levels and masks, on a guided MODEL. Where the host itself can do nothing with them, nothing is asked for."""
    levels = broken(rng, torch.tensor([14.6, 4.0, 1.0, 0.3, 0.0]))
    levels = levels if isinstance(levels, torch.Tensor) else torch.tensor([1.0, 4.0, 4.0, 0.0, 0.0])
    mask = broken(rng, torch.ones(1, 16, 16)) if rng.random() < 0.5 else None
    sampler = comfy.samplers.sampler_object(rng.choice(["euler", "lcm", "dpmpp_2m", "heun", "dpmpp_sde", "res_multistep"]))
    torch.manual_seed(0)
    pose = PoseTarget.execute(w.heads["pose"], 1.0, 0.0, 0.9, image=torch.rand(1, 16, 16, 3))[0]
    guided = ApplyReadoutGuidance.execute(w.model, pose, 0.1)[0]

    def sampled(model):
        return comfy.sample.sample_custom(model, torch.ones(1, 3, 16, 16), 1.0, sampler, levels, w.positive, w.positive, torch.zeros(1, 3, 16, 16),
                                          noise_mask=mask, disable_pbar=True, seed=0)
    try:
        plain = sampled(w.model)
    except Exception:
        return
    if torch.isfinite(plain).all():
        assert torch.isfinite(sampled(guided)).all()


def latents(rng, w):
    given = broken(rng, {"samples": torch.zeros(1, 3, 16, 16)})
    made = ReadoutReference.execute(w.model, w.positive, given, 0, 1)[0]
    assert torch.isfinite(made.trajectory.latents).all()


EXPLAINED = (safetensors_bytes, safetensors_config, pickle_bytes, pickle_content, keypoints, images, drags, tracks, tracks_file, likenesses,
             guidances, latents, skeletons, depths, geometries, lines, scores, joined_tracks, track_layouts)
KINDS = (*EXPLAINED, previews, runs)


@contextmanager
def alarm(seconds: int):
    def late(*_):
        raise TimeoutError(f"took more than {seconds} s")
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def peak() -> int:
    """Bytes of main memory that this process has held at most since `peak_from_here`."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def peak_from_here() -> int:
    """Has Linux forget the peak; returns what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def tried(kind, w, count: int) -> dict[str, int]:
    """How many of each came out; fails at the first that is neither used nor explained."""
    outcome = {"used": 0, "refused": 0}
    before = peak_from_here()
    for seed in range(count):
        try:
            with alarm(SECONDS), torch.inference_mode():
                kind(random.Random(f"{kind.__name__} {seed}"), w)
            outcome["used"] += 1
        except ValueError as error:
            said = str(error)
            assert said.startswith(("Pose Target:", "Depth Target:", "Edge Target:", "Drag Target:", "Appearance Target:", "Identity Target:",
                                    "Load Tracks", "Apply Readout Guidance:", "Readout Reference:", "pose.")), (seed, said)
            assert type(error) in (ValueError, HeadFileError) and 20 < len(said) < 1500 and said.rstrip().endswith((".", ".)")), (seed, said)
            outcome["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{kind.__name__}, seed {seed}: {type(error).__name__}: {error}") from error
    assert peak() - before < MEMORY
    return outcome


@pytest.fixture(autouse=True)
def input_folder(w, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(w.folder))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_broken_is_used_or_explained(w, kind):
    outcome = tried(kind, w, FEW)
    assert kind not in EXPLAINED or outcome["refused"] > FEW // 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_that_are_broken(w, kind):
    print(kind.__name__, tried(kind, w, ALL // len(KINDS)))
