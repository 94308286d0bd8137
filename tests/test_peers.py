"""What people would use instead, trained for the demo: `run.py train-peer` and `evaluate --peers`."""
import comfy.model_management
import nodes as host_nodes
import pytest
import torch

from readout_guidance_pack.heads.demo import text
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.rg_core.guidance.updates import Move
from tools import train_peer
from tools.peers import held_out, networks, training
from tools.peers.bench import Applied, PeerBench
from tools.peers.pairs import drawn
from tools.tables import peers
from tools.tables.control import Setting
from tools.train_demo import load_model

WHATS = tuple(networks.UNTRAINED)


@pytest.fixture(scope="module")
def parts():
    return load_model(torch.device("cpu"))


@pytest.fixture
def short(monkeypatch):
    """Trainings of few steps, looked at by few scenes."""
    for name, value in {"EVERY": 2, "PATIENCE": 2, "IN_VAIN": 2, "SCENES": 2, "LOOK": Setting(steps=1, sampler="lcm", scheduler="sgm_uniform",
                                                                                                cfg=1.0)}.items():
        monkeypatch.setattr(held_out, name, value)


@pytest.fixture
def in_training(monkeypatch):
    monkeypatch.setattr(comfy.model_management, "in_training", True)


def given(count: int = 2) -> tuple:
    """Noised images, timesteps, hints and contexts, for training.predicted."""
    pairs, rng = drawn("pose", count), torch.Generator().manual_seed(0)
    x = torch.randn(count * training.LEVELS, 3, 64, 64, generator=rng)
    return x, torch.arange(len(x)) * 100.0, pairs.hints(torch.arange(count)), pairs.tokens.repeat_interleave(training.LEVELS, 0)


def test_fewer_pairs_are_the_first_of_more():
    for kind in ("pose", "depth", "edge"):
        few, many = drawn(kind, 3), drawn(kind, 130)
        assert len(few) == 3 and len(many) == 130 and torch.equal(few.tokens, many.tokens[:3])
        first = torch.tensor([2, 0, 1])
        images, hints = few.images(first), few.hints(first)
        assert torch.equal(images, many.images(first)) and torch.equal(hints, many.hints(first))
        assert hints.shape == images.shape and hints.std() > 0.01


@torch.no_grad()
def test_an_untrained_controlnet_changes_nothing(parts, in_training):
    unet, words = parts
    x, t, hints, tokens = given()
    found = training.predicted("controlnet", networks.UNTRAINED["controlnet"](unet), unet, x, t, hints, words(tokens))
    assert torch.equal(found, unet(x, t, context=words(tokens)))


@torch.no_grad()
@pytest.mark.parametrize("what", WHATS)
def test_a_hint_that_is_read_once_counts_for_each_level(parts, in_training, what):
    unet, words = parts
    torch.manual_seed(1)
    network = networks.UNTRAINED[what](unet)
    for weight in network.parameters():
        weight += torch.randn(weight.shape) * 0.02
    x, t, hints, tokens = given()
    context = words(tokens)
    found = training.predicted(what, network, unet, x, t, hints, context)
    again = hints.repeat_interleave(training.LEVELS, 0)
    control = network(again) if what == "t2i" else network(x=x, hint=again, timesteps=t, context=context)
    assert (found - unet(x, t, context=context, control=control)).abs().max() < 1e-4 * found.abs().max()
    assert (found - unet(x, t, context=context)).abs().max() > 1e-2


def test_levels_cover_the_schedule_for_each_image_and_adapters_learn_more_of_the_early_ones():
    torch.manual_seed(0)
    found = {what: torch.stack([training.levels(what, 1) for _ in range(2000)]) for what in WHATS}
    assert (found["controlnet"].div(1000 // training.LEVELS, rounding_mode="floor") == torch.arange(training.LEVELS)).all()
    # 1 - u^3 is above a half where u is below its third root
    assert abs((found["t2i"] >= 500).float().mean() - 0.5 ** (1 / 3)) < 0.02


@pytest.mark.parametrize("what", WHATS)
def test_a_training_that_was_stopped_ends_as_one_that_was_not(tmp_path, short, what, capsys):
    (tmp_path / "whole").mkdir(), (tmp_path / "stopped").mkdir()
    whole = train_peer.train(what, "depth", 3, tmp_path / "whole")
    train_peer.train(what, "depth", 3, tmp_path / "stopped", at_most=2)
    stopped = train_peer.train(what, "depth", 3, tmp_path / "stopped")
    assert f"{what}_depth_3: goes on at step 2" in capsys.readouterr().out
    one, other = networks.network(whole).state_dict(), networks.network(stopped).state_dict()
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())
    about = networks.about(whole)
    assert about["what"] == what and about["pairs"] == 3 and [look["step"] for look in about["history"]][:2] == [2, 4]
    assert {"loss", "training_loss", "mae", "seconds"} <= set(about["history"][0])
    assert comfy.model_management.in_training is False  # the host is as it was


@pytest.mark.parametrize("kind, history, end, best", [
    ("pose", [(250, 0.1), (3250, 0.1)], True, 250),                             # nothing came
    ("pose", [(250, 0.1), (3000, 0.1)], False, 250),                            # it may still come
    ("pose", [(250, 0.1), (750, 0.6), (1000, 0.9), (2250, 0.901)], False, 1000),
    ("pose", [(250, 0.1), (750, 0.6), (1000, 0.9), (2500, 0.901)], True, 1000),  # too little to count as more
    ("depth", [(250, 0.1), (1000, 0.05), (2000, 0.04)], False, 2000),
    ("depth", [(20000, 0.1)], True, 20000)])
def test_a_training_ends_when_control_no_longer_rises(kind, history, end, best):
    looks = [{"step": step, held_out.MEASURES[kind][0]: value} for step, value in history]
    assert held_out.ended(kind, looks) is end and held_out.best(kind, looks)["step"] == best


@torch.inference_mode()
@pytest.mark.parametrize("what", WHATS)
def test_a_file_goes_through_the_stock_nodes_beside_guidance(tmp_path, parts, what):
    unet, _ = parts
    torch.manual_seed(2)
    with torch.inference_mode(False):
        network = networks.UNTRAINED[what](unet)
        for weight in network.parameters():
            weight.data += torch.randn(weight.shape) * 0.02
        networks.save(network, tmp_path / "peer.safetensors", {"what": what})
    net = networks.control(networks.network(tmp_path / "peer.safetensors"))
    bench, setting = PeerBench(2), Setting(steps=2)
    plain = bench.sample((), setting)
    bench.applied = (Applied(net, "pose", strength=0.0),)
    assert torch.equal(bench.sample((), setting), plain)
    bench.applied = (Applied(net, "pose"),)
    controlled = bench.sample((), setting)
    assert (controlled - plain).abs().max() > 1e-2
    # guided as well, and without strength guided by it alone
    positive, negative = bench.conditions(slice(0, 2))
    chain = bench.guidance(("pose",), 0.8, slice(0, 2))
    images = []
    for strength in (1e-7, 0.1):
        model = guided("test", bench.model, chain, Move(strength))
        latent, = host_nodes.common_ksampler(model, bench.noise_seed, 2, setting.cfg, bench.sampler, bench.scheduler, positive, negative,
                                             {"samples": torch.zeros(2, 3, 64, 64), "batch_index": [0, 1]})
        images.append(bench.vae.decode(latent["samples"]).movedim(-1, 1).cpu())
    assert (images[0] - controlled).abs().max() < 1e-4 < 1e-2 < (images[1] - controlled).abs().max()


def test_the_table_measures_what_is_there_once_and_names_the_rest(tmp_path, short, monkeypatch, capsys):
    monkeypatch.setattr(peers, "KINDS", ("depth",))
    monkeypatch.setattr(peers, "PAIRS", (3, 10))
    monkeypatch.setattr(peers, "MADE", {"fitted": (10,)})
    monkeypatch.setattr(peers, "RUNS", {"4 lcm": Setting(steps=1, **peers.LCM)})
    with torch.inference_mode(False):
        train_peer.train("t2i", "depth", 10, tmp_path, at_most=2)
    first = peers.peers(2, tmp_path)
    said = capsys.readouterr().out
    assert "not trained: python run.py train-peer --what controlnet --kind depth --pairs 3" in said
    assert "--what t2i --kind depth --pairs 10" not in said
    assert set(first["depth"]) == {"unguided, 4 lcm", "shipped head, 1536 pairs, 4 lcm", "fitted head, 10 pairs, 4 lcm",
                                   "T2I-Adapter, 10 pairs, 4 lcm"}
    adapter, head = first["depth"]["T2I-Adapter, 10 pairs, 4 lcm"], first["depth"]["fitted head, 10 pairs, 4 lcm"]
    assert 0 < head["bytes"] < adapter["bytes"] and 0 < head["parameters"] < adapter["parameters"]
    assert first["depth"]["unguided, 4 lcm"]["bytes"] == 0
    monkeypatch.setattr(PeerBench, "measure", lambda *args: pytest.fail("measured again"))
    assert peers.peers(2, tmp_path) == first
    peers.draw(first, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes()[:4] == b"\x89PNG"


def test_half_of_the_prompts_are_left_out_for_controlnets_alone(parts, monkeypatch):
    unet, words = parts
    pairs, said = drawn("edge", 256), []
    monkeypatch.setattr(training, "predicted", lambda what, network, unet, x, t, hints, context: torch.zeros_like(x))
    for what in WHATS:
        one = training.Training(what, unet, lambda tokens: said.append(tokens) or words(tokens), pairs)
        torch.manual_seed(0)
        one.loss(one.network, pairs, torch.arange(256), training.levels(what, 256))
    empty = {what: (tokens == text.EMPTY).all(1).float().mean() for what, tokens in zip(WHATS, said)}
    assert abs(empty["t2i"] - 0.1) < 0.03 and abs(empty["controlnet"] - 0.55) < 0.03  # a tenth is left open in the demo anyway
