"""Training can stop anywhere and go on as if it had not."""
import copy

import pytest
import torch

from readout_guidance_pack.rg_core.features.taps import Reading
from readout_guidance_pack.rg_core.readout.head import ReadoutHead
from readout_guidance_pack.rg_core.training.trainer import WARM_UP, Diverged, Trainer, constant, cosine
from readout_guidance_pack.rg_core.training.training import readout, spatial_loss

SIZE, STEPS = (4, 4), 8
GIVEN = torch.Generator().manual_seed(0)
FEATURES, WANTED = torch.randn(12, 8, *SIZE, generator=GIVEN), torch.rand(12, 3, *SIZE, generator=GIVEN) - 0.5


def head() -> ReadoutHead:
    torch.manual_seed(1)
    return ReadoutHead("edge", [8], projection_dim=128, emb_channels=None, hidden=(8, 4))


def reading(pick) -> Reading:
    return Reading(torch.zeros(len(pick), 4), [FEATURES[pick]])


def trainer(network: ReadoutHead, parts: int = 1, broken: int | None = None, **changes) -> Trainer:
    """Its step `broken` fails after the dice were rolled."""
    steps = []

    def losses(rng):
        pick = torch.randint(12, (4,), generator=rng)
        steps.append(pick)
        if len(steps) == broken:
            raise InterruptedError
        for some in pick.chunk(parts):
            yield {"head": spatial_loss(network, reading(some), WANTED[some]) / parts}

    return Trainer({"head": network}, losses, STEPS, **changes)


def weights(network) -> torch.Tensor:
    return torch.cat([x.flatten() for x in network.state_dict().values()])


def run(training: Trainer) -> list[float]:
    curve = []
    while training.done < STEPS:
        curve.append(training.step()["head"])
    return curve


def test_after_a_step_that_broke_off_it_goes_on_as_if_nothing_had_been():
    whole = head()
    curve = run(trainer(whole))
    for broken in range(2, STEPS + 1):
        first, second = head(), head()
        one = trainer(first, broken=broken)
        with pytest.raises(InterruptedError):
            run(one)
        state = copy.deepcopy(one.state())
        two = trainer(second, seed=99)  # all dice come from the state
        second.load_state_dict(first.state_dict())
        two.restore(one.done, state)
        assert run(two) == curve[broken - 1:] and torch.equal(weights(second), weights(whole))


def test_a_batch_in_parts_gives_the_same_step():
    whole, parted = head(), head()
    curves = run(trainer(whole)), run(trainer(parted, parts=2))
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


def test_a_step_is_adams_with_the_rate_of_the_schedule():
    network = head()
    before, training = weights(network), trainer(network, lr=1e-2, schedule=constant)
    training.step()
    grads = torch.cat([p.grad.flatten() for p in network.parameters()])
    moved = torch.cat([p.detach().flatten() for p in network.parameters()]) - before
    assert torch.allclose(moved, -1e-2 * grads / (grads.abs() + 1e-8), atol=1e-6)


def test_the_cosine_schedule_warms_up_and_ends_at_nothing():
    rates = [cosine(2.0, step, 1000) for step in range(1000)]
    assert rates[0] == 2.0 / WARM_UP and max(rates) == pytest.approx(2.0, rel=0.01) and rates.index(max(rates)) == WARM_UP - 1
    assert rates[500] == pytest.approx(1.0) and 0 <= rates[-1] < 1e-4


def test_a_state_that_is_damaged_or_of_another_head_is_refused_by_name():
    network = head()
    one = trainer(network)
    one.step()
    state, name = one.state(), "head.output_head.0.weight.exp_avg_sq"
    for change, words in (({"head.mixing_weights.exp_avg": torch.zeros(2)}, "mixing_weights"),
                          ({name: state[name] * float("nan")}, "output_head.0.weight"),
                          ({"head.mixing_weights.exp_avg": torch.zeros(1, dtype=torch.float16)}, "mixing_weights"),
                          ({"dice": torch.zeros(7, dtype=torch.uint8)}, "random"), ({"dice": torch.zeros(7)}, "random"),
                          ({"dice": torch.zeros_like(state["dice"])}, "random")):
        with pytest.raises(ValueError, match=words):
            trainer(head()).restore(1, state | change)
    with pytest.raises(ValueError, match="random"):
        trainer(head()).restore(1, {key: x for key, x in state.items() if key != "dice"})


def test_a_loss_that_is_no_number_ends_it_before_the_weights_move():
    network = head()
    before, training = weights(network), Trainer({"head": network}, lambda rng: iter([{"head": network.mixing_weights.sum() * float("nan")}]), STEPS)
    with pytest.raises(Diverged, match="nan at step 1"):
        training.step()
    assert torch.equal(weights(network), before)


def test_a_balanced_loss_is_the_mean_of_that_of_the_ground_and_that_of_the_rest():
    network, pick = head(), torch.arange(12)
    wanted = WANTED.clone()
    wanted[:, :, :3] = -0.5
    error = (readout(network, reading(pick), SIZE) - wanted).double().square()
    ground, rest = error[wanted == -0.5].mean(), error[wanted != -0.5].mean()
    assert spatial_loss(network, reading(pick), wanted, balanced=True).item() == pytest.approx((ground + rest).item() / 2, rel=1e-5)
    assert spatial_loss(network, reading(pick), wanted).item() == pytest.approx(error.mean().item(), rel=1e-5)
    for alone in (torch.full_like(wanted, -0.5), WANTED.clamp(min=-0.4)):  # all ground, or none
        assert spatial_loss(network, reading(pick), alone, balanced=True).item() == pytest.approx(
            spatial_loss(network, reading(pick), alone).item(), rel=1e-5)
