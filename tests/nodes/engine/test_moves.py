"""Several moves at one noise level: how many, how long, and what they leave alone."""
import json
from types import SimpleNamespace

import comfy.samplers
import nodes as host_nodes
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras import nodes_pag

from readout_guidance_pack.heads.demo import TRANSFORMER_FILE
from readout_guidance_pack.nodes.demo import demo_model, demo_nodes
from readout_guidance_pack.nodes.engine import Trace, guided
from readout_guidance_pack.nodes.engine.run import Run
from readout_guidance_pack.nodes.engine.schedule.landing import euler
from readout_guidance_pack.nodes.engine.schedule.moves import planned
from readout_guidance_pack.nodes.engine.schedule.noise_levels import known_range, latent_scale, prediction_scale
from readout_guidance_pack.nodes.samplers import guided_ksampler
from readout_guidance_pack.rg_core.guidance.updates import Move

pytestmark = pytest.mark.usefixtures("inference_mode")


@pytest.fixture(scope="module")
def history(w):
    """The host's noise levels of the demo's UNet, which are those of Stable Diffusion, and of its transformer."""
    transformer, _, _ = demo_model.load_demo(TRANSFORMER_FILE)
    return {"unet": w.model.get_model_object("model_sampling"), "transformer": transformer.get_model_object("model_sampling")}


def plan(sampling, steps, end=0.8, wanted=0, scheduler="simple", start=0.0):
    """[(sigma, Moves)] of the guided levels of an Euler run."""
    model, sigmas = SimpleNamespace(model_sampling=sampling), comfy.samplers.calculate_sigmas(sampling, scheduler, steps)
    first, last = (float(sampling.percent_to_sigma(percent)) for percent in (start, end))
    return [(s, planned(model, euler(s, sigmas), sigmas, (first, last), known_range(sampling), wanted)) for s in sigmas[:-1].tolist()
            if first >= s >= last and prediction_scale(model, s)]


@pytest.mark.parametrize("kind", ["unet", "transformer"])
@pytest.mark.parametrize("steps", [20, 30, 50])
def test_twenty_steps_and_more_make_one_move_each_of_the_size_that_they_always_had(history, kind, steps):
    model = SimpleNamespace(model_sampling=history[kind])
    found = plan(history[kind], steps)
    assert found and all(moves.count == 1 and moves.prediction == prediction_scale(model, sigma) for sigma, moves in found)


def way(sampling, steps, wanted=0, start=0.0):
    """What all moves of an Euler run come to, in units of the variance-preserving latent and of the strength: written out here once more."""
    model, total = SimpleNamespace(model_sampling=sampling), 0.0
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", steps)
    for sigma, moves in plan(sampling, steps, wanted=wanted, start=start):
        after = float(max(sigmas[sigmas < sigma]))
        shift = 0.0 if moves.prediction is None else moves.prediction * (1 - after / sigma) / latent_scale(model, after)
        total += shift + (moves.count - (moves.prediction is not None)) * moves.latent / latent_scale(model, sigma)
    return total


def test_schedules_that_begin_with_less_noise_are_moved_from_there_on(history):
    """ddim_uniform in four steps begins at a sigma of 4.1 of 14.6."""
    sampling = history["unet"]
    found = plan(sampling, 4, scheduler="ddim_uniform")
    assert found[0][0] < 5 and found[0][1].count > 1 and all(moves.count for _, moves in found)
    assert 0.5 < sum(moves.count for _, moves in found) / sum(moves.count for _, moves in plan(sampling, 4)) <= 1


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_images_in_few_steps_are_moved_as_far_as_in_many(history, kind):
    ways = [way(history[kind], steps) for steps in (4, 6, 8, 12, 20)]
    assert max(ways) < 1.15 * min(ways), ways


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_targets_that_begin_later_lose_no_more_of_their_way_in_few_steps(history, kind):
    """Four levels lie far apart: what lies between the beginning and the first level after it is gone there. 40 Euler steps are the measure."""
    for start in (0.1, 0.2, 0.3, 0.4):
        ways = [way(history[kind], steps, start=start) for steps in (4, 6, 8, 40)]
        assert max(ways) < 1.2 * min(ways), (start, ways)


@pytest.mark.parametrize("wanted", [0, 4])
def test_where_a_sampler_makes_short_steps_of_its_own_each_is_moved_as_in_many_steps(w, wanted):
    """dpm_adaptive asks at fifty levels between the six that it was given; with several moves at each the image was lost."""
    asked, trace = [], Trace()
    model = guided("test", w.model, w.pose(1), Move(moves=wanted), trace)
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "count", lambda executor, *args, **kwargs: asked.append(1) or executor(*args, **kwargs))
    latent = {"samples": torch.zeros(1, 3, 64, 64)}
    image, = host_nodes.common_ksampler(model, 1, 6, 3.0, "dpm_adaptive", "karras", w.positive, w.negative, latent)
    assert torch.isfinite(image["samples"]).all() and image["samples"].std() < 1.5
    assert len(asked) > 12 and {row["move"] for row in trace.rows} == {1}


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_few_steps_make_more_moves_and_each_is_short(history, kind):
    model = SimpleNamespace(model_sampling=history[kind])
    for steps in (4, 6, 8):
        found = plan(history[kind], steps)
        assert 8 <= sum(moves.count for _, moves in found) <= 20 and all(moves.count for _, moves in found)
        assert all(moves.latent / latent_scale(model, sigma) < 0.5 for sigma, moves in found if moves.count > 1)


def test_the_level_that_ends_without_noise_is_guided_by_moves_of_its_latents_alone(history):
    sigma, moves = plan(history["unet"], 4)[-1]
    assert moves.count and moves.prediction is None and euler(sigma, torch.tensor([sigma, 0.0])).after == 0
    assert plan(history["unet"], 20, end=1.0)[-1][1].count == 0               # in many steps it is not
    assert plan(history["unet"], 4, end=1.0, scheduler="karras")[-1][1].count == 0  # nor where too little noise is left to mend anything


def test_a_number_that_was_asked_for_is_made_and_comes_to_the_same(history):
    for steps in (4, 8, 20):
        for (_, own), (_, four) in zip(plan(history["unet"], steps), plan(history["unet"], steps, wanted=4)):
            assert four.count == 4 and four.prediction == (own.prediction and pytest.approx(own.prediction * four.latent / own.latent))
    totals = [way(history["unet"], 6, wanted) for wanted in (0, 1, 4, 9)]
    assert totals == pytest.approx(totals[:1] * 4, rel=1e-6)


def test_the_trace_has_every_move_and_the_readouts_an_image_of_each(w):
    latent = {"samples": torch.zeros(1, 3, 64, 64)}
    _, trace, readouts = guided_ksampler.KSamplerReadoutGuidance.execute(w.model, 1, 4, 1.0, "lcm", "sgm_uniform", w.positive, w.negative, latent,
                                                                         1.0, w.pose(1, end_percent=0.8), 0.1, moves=2).args
    rows = json.loads(trace)
    assert [row["move"] for row in rows] == [1, 2] * 4 and len({row["sigma"] for row in rows}) == 4 and len(readouts) == 8


def test_each_further_move_lowers_the_energy(w):
    _, trace = w.sample(w.pose(4, end_percent=0.8), batch=4, steps=6, sampler="lcm", cfg=1.0)
    levels = {}
    for row in trace:
        levels.setdefault(row["sigma"], []).append(sum(row["energy"]))
    several = [values for values in levels.values() if len(values) > 1]
    assert several and all(values[-1] < values[0] for values in several)


@pytest.mark.parametrize("sampler", ["euler", "lcm", "dpmpp_2m"])
def test_moves_of_no_strength_are_the_plain_image(w, sampler):
    plain, _ = w.sample(batch=1, sampler=sampler)
    nearly, _ = w.sample(w.pose(1, end_percent=0.9), batch=1, sampler=sampler, strength=1e-8)  # four steps make a thousand times as much of it
    assert (plain - nearly).abs().max() < 1e-4


def test_a_guided_prediction_has_its_own_shift_and_what_earlier_ones_lack(w, monkeypatch):
    """A sampler that looks back takes some of earlier shifts away again."""
    own, off = Run.shifted, []

    def shifted(self, step, branches, outs, shift):
        lacking = self.landed.again(self.landing, step.x, step.batch_index)
        found = own(self, step, branches, outs, shift)
        if shift is not None and lacking is not None:
            off.extend((after - before - shift - lacking).abs().max() / lacking.abs().max() for before, after in zip(outs, found))
        return found

    monkeypatch.setattr(Run, "shifted", shifted)
    w.sample(w.pose(1, end_percent=0.9), batch=1, sampler="dpmpp_2m", steps=12)
    assert off and max(off) < 1e-4


def seen_by(model):
    """MODEL, and the latents by noise level that its network is then shown."""
    shown, model = {}, model.clone()

    def see(executor, x, timestep, *args, **kwargs):
        shown.setdefault(float(timestep[0]), []).append(x.detach().clone())
        return executor(x, timestep, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "see", see)
    return model, shown


def test_what_a_mask_holds_fast_is_not_moved_before_the_model_looks_again(w):
    """Outside the mask the model is shown the given image with its noise, at every move."""
    image, mask = demo_nodes.DemoScene.execute(9, 64, 64, 1).args[0].movedim(-1, 1) * 2 - 1, torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    model, shown = seen_by(w.model)
    w.sample(w.pose(1, end_percent=0.9), batch=1, model=model, samples=image, noise_mask=mask, cfg=1.0)
    assert max(map(len, shown.values())) > 2
    for first, *others in shown.values():
        assert all(torch.equal(first[..., :32], other[..., :32]) and not torch.equal(first, other) for other in others)


def test_what_a_guider_asks_besides_is_asked_at_the_same_latents(w):
    """Perturbed attention asks once more after each prediction."""
    perturbed = nodes_pag.PerturbedAttentionGuidance.execute(w.model, 2.0)[0]
    model, shown = seen_by(perturbed)
    w.sample(w.pose(1, end_percent=0.5), batch=1, model=model)
    *moves, positive, negative, besides = shown[max(shown)]
    assert moves and torch.equal(positive, negative) and torch.equal(positive, besides) and not torch.equal(moves[0], besides)


def test_blocks_computed_again_make_the_same_moves(w):
    latent = {"samples": torch.zeros(2, 3, 64, 64)}
    made = [guided_ksampler.KSamplerReadoutGuidance.execute(w.model, 1, 4, 1.0, "lcm", "sgm_uniform", w.positive, w.negative, latent, 1.0,
                                                  w.pose(2, end_percent=0.8), 0.1, recompute).args[0]["samples"] for recompute in ("off", "on")]
    assert (made[0] - made[1]).abs().max() < 1e-3


def test_seeds_repeat_to_the_bit(w):
    made = [w.sample(w.pose(2, end_percent=0.8), sampler="dpmpp_2m_sde", steps=4)[0] for _ in range(2)]
    assert torch.equal(*made)


def test_of_two_nodes_in_a_chain_the_larger_number_of_moves_counts(w):
    once = guided("first", w.model, w.pose(1), Move(0.1, moves=3))
    both = guided("second", once, w.pose(1), Move(0.1, moves=2))
    assert both.get_attachment("readout_guidance").move.moves == 3
