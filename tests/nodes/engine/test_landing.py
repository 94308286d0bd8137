"""What lands of a prediction's shift in the next latents of every sampler, learnt before a run from the host's own samplers."""
import comfy.samplers
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from comfy.patcher_extension import WrappersMP

from readout_guidance_pack.heads.demo import MODEL_FILE, TRANSFORMER_FILE
from readout_guidance_pack.nodes.demo import demo_model
from readout_guidance_pack.nodes.engine.schedule.landing import Landed, StandIn, euler, landings
from readout_guidance_pack.nodes.engine.schedule.noise_levels import is_flow

pytestmark = pytest.mark.usefixtures("inference_mode")

STEPS = 6
OWN_STEPS = {"dpm_adaptive"}            # depend on what is predicted
NOISY = {name for name in comfy.samplers.KSampler.SAMPLERS if any(part in name for part in ("ancestral", "sde", "ddpm", "lcm", "seeds", "sa_solver"))}
UNFOUGHT = {"heunpp2"}                  # less than half of Euler's share lands of its third calls, see LITTLE


@pytest.fixture(scope="module", params=["unet", "transformer"])
def guider(request):
    with torch.inference_mode():
        model, _, _ = demo_model.load_demo(MODEL_FILE if request.param == "unet" else TRANSFORMER_FILE)
        guider = comfy.samplers.CFGGuider(model)
        guider.inner_model, guider.conds = model.model, {}
        yield guider


def run_of(guider, name):
    sigmas = comfy.samplers.calculate_sigmas(guider.inner_model.model_sampling, "simple", STEPS)
    return comfy.samplers.sampler_object(name), sigmas, {"model_options": {"transformer_options": {"sample_sigmas": sigmas}}, "seed": 3}


class Shifted(StandIn):
    """A model that predicts nothing but the shift, by `size(landing)`, with what makes up for earlier ones."""

    def __init__(self, guider, known, sigmas, size):
        super().__init__(guider, 0)
        self.landed, self.run, self.size, self.landings = Landed(known), sigmas, size, []

    def __call__(self, x, timestep, model_options={}, seed=None):
        landing = self.landed.next(float(timestep.max()), self.run)
        again = self.landed.again(landing, x, None)
        shift = torch.full_like(x, self.size(landing)) + (0 if again is None else again)
        self.landed.keep(shift, x, None)
        self.landings.append(landing)
        super().__call__(x, timestep)
        args = {"cond_denoised": shift, "uncond_denoised": shift, "cond": None, "uncond": None, "cond_scale": 1.0, "input": x,
                "sigma": timestep, "model": self.guider.inner_model, "model_options": model_options}
        for change in model_options.get("sampler_post_cfg_function", []):
            shift = change(args | {"denoised": shift})
        return shift


def latents_of(guider, name, size):
    """The run of a model that predicts shifts of this size from no noise at all: in its latents nothing else is found."""
    sampler, sigmas, arguments = run_of(guider, name)
    known = landings(sampler, guider, sigmas, arguments)
    assert known
    model, dtype = Shifted(guider, known, sigmas, size), torch.float32 if "uni_pc" in name else torch.float64
    nothing = torch.zeros(1, 1, 1, 1, dtype=dtype)
    sampler.sample(model, sigmas.to(dtype, copy=True), arguments, None, nothing, nothing.clone(), None, True)
    return model


@pytest.mark.parametrize("name", [n for n in comfy.samplers.KSampler.SAMPLERS if n not in NOISY | OWN_STEPS | UNFOUGHT])
def test_latents_are_moved_by_what_euler_would_move_them_whatever_the_sampler_makes_of_predictions(guider, name):
    model = latents_of(guider, name, lambda landing: landing.gain / landing.of_euler)  # lands 1 in an Euler step
    moved, at, wanted = {}, model.landings[0].sigma, 0.0
    for landing, latent in zip(model.landings[1:], model.latents[1:]):
        moved.setdefault(round(landing.sigma, 3), []).append(latent.item())
    # Each level adds the same way to what is there, which fades as the noise does.
    for after in sorted({round(landing.after, 3) for landing in model.landings} - {0.0}, reverse=True):
        wanted, at = wanted * after / at + 1, after
        assert moved[after] == pytest.approx([wanted] * len(moved[after]), rel=0.015)


@pytest.mark.parametrize("name", ["lcm", "euler_ancestral", "dpmpp_2m_sde", "er_sde"])
def test_what_lands_is_known_where_noise_is_added(guider, name):
    """Independently: the next latent of two runs with the same noise whose first predictions differ by 1."""
    sampler, sigmas, arguments = run_of(guider, name)
    first = landings(sampler, guider, sigmas, arguments)[0]
    found = []
    for size in (0.0, 1.0):
        torch.manual_seed(7)
        model = Shifted(guider, [], sigmas, lambda landing: size)
        noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        sampler.sample(model, sigmas, dict(arguments), None, noise, torch.zeros_like(noise), None, True)
        found.append(model.latents[1])
    assert (found[1] - found[0]).mean().item() == pytest.approx(first.share, abs=1e-4)
    if name == "lcm":  # all of a prediction, of which a flow model's latent has 1 - sigma
        assert first.share == pytest.approx(1 - first.after if is_flow(guider.inner_model.model_sampling) else 1.0, abs=1e-6)


def test_what_is_forgotten_with_the_noise_is_made_up_for(guider):
    """LCM draws all noise anew: nothing is left of a shift but what the model sees of it, in much noise next to nothing. Without this targets were
    hardly obeyed in 20 steps. Euler draws none."""
    flow = is_flow(guider.inner_model.model_sampling)
    for name in ("lcm", "euler"):
        sampler, sigmas, arguments = run_of(guider, name)
        known = landings(sampler, guider, sigmas, arguments)
        for call, landing in list(enumerate(known))[1:]:
            ratio = landing.start / (1 - landing.start) if flow else landing.start
            missing = landing.after / landing.start * ratio**2 / (1 + ratio**2)
            size = known[call - 1].share / landing.share  # of a flow model's latent LCM has 1 - sigma of what was predicted
            assert landing.again == ({} if name == "euler" or not landing.after else {call - 1: pytest.approx(missing * size, abs=2e-4)})


@pytest.mark.parametrize("name", sorted(comfy.samplers.KSampler.SAMPLERS))
def test_a_rehearsal_knows_each_call_that_a_run_then_makes_and_leaves_no_trace(guider, name):
    sampler, sigmas, arguments = run_of(guider, name)
    torch.manual_seed(5)
    before, given, options = torch.get_rng_state(), sigmas.clone(), {key: dict(value) for key, value in arguments["model_options"].items()}
    known = landings(sampler, guider, sigmas, arguments)
    assert torch.equal(torch.get_rng_state(), before) and arguments["model_options"] == options
    assert torch.equal(sigmas, given)  # uni_pc overwrites the last of those that it is given
    asked = []

    def see(executor, x, timestep, *args, **kwargs):
        asked.append(float(timestep.max()))
        return executor(x, timestep, *args, **kwargs)

    def nothing(executor, model, conds, x, *args):
        return [torch.zeros_like(x) for _ in conds]

    model = guider.model_patcher.clone()
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "see", see)
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "nothing", nothing)
    own = comfy.samplers.CFGGuider(model)
    own.set_conds([], [])
    own.sample(torch.randn(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), sampler, sigmas, disable_pbar=True, seed=3)
    if name in OWN_STEPS:
        assert known is None
    else:
        assert asked == pytest.approx([landing.sigma for landing in known], rel=1e-5)


def test_a_sampler_of_another_pack_that_cannot_be_rehearsed_is_taken_for_euler(guider):
    class Own(comfy.samplers.Sampler):
        def sample(self, model_wrap, sigmas, extra_args, callback, noise, *args):
            callback(0, noise, noise, 1)  # None in a rehearsal

    sampler, sigmas, arguments = run_of(guider, "euler")
    assert landings(Own(), guider, sigmas, arguments) == []
    landing = Landed([]).next(float(sigmas[1]), sigmas)
    assert landing == euler(float(sigmas[1]), sigmas) and landing.gain == 1.0 and landing.after == float(sigmas[2])


def test_what_a_sampler_notes_for_itself_is_gone_after_a_rehearsal(guider):
    def counting(model, x, sigmas, extra_args=None, callback=None, disable=None, notes=None, more=None):
        notes["calls"] = notes.get("calls", 0) + 1
        more["list"].append(1)
        extra_args["model_options"]["transformer_options"]["seen"] = True
        return comfy.k_diffusion.sampling.sample_euler(model, x, sigmas, extra_args, callback, disable)

    _, sigmas, arguments = run_of(guider, "euler")
    sampler = comfy.samplers.KSAMPLER(counting, {"notes": {}, "more": {"list": []}})
    assert landings(sampler, guider, sigmas, arguments) == landings(*run_of(guider, "euler")[:1], guider, sigmas, arguments)
    assert sampler.extra_options == {"notes": {}, "more": {"list": []}} and "seen" not in arguments["model_options"]["transformer_options"]


def test_an_interruption_during_a_rehearsal_interrupts(guider):
    class Stopped(comfy.samplers.Sampler):
        def sample(self, *args):
            raise InterruptProcessingException

    _, sigmas, arguments = run_of(guider, "euler")
    with pytest.raises(InterruptProcessingException):
        landings(Stopped(), guider, sigmas, arguments)


def test_a_run_that_goes_another_way_than_rehearsed_goes_on_as_euler(guider):
    sampler, sigmas, arguments = run_of(guider, "dpmpp_2m")
    landed = Landed(landings(sampler, guider, sigmas, arguments))
    assert landed.next(float(sigmas[0]), sigmas).sigma == float(sigmas[0])
    for sigma in map(float, (sigmas[2], sigmas[3])):
        assert landed.next(sigma, sigmas) == euler(sigma, sigmas)
