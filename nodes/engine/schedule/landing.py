"""What a sampler makes of the predictions that it is given: how much of each lands in its next latents.

Samplers are linear in the predictions: the next latent holds a share of the newest one and, where a sampler looks back, of
earlier ones too, often a negative one. They do not say which. So before a run its sampler is rehearsed on a few numbers: a stand-in
answers in the place of the model, in each call with 1 at a place of its own and 0 elsewhere, and what is found at that place
later is what the sampler made of that call.
"""
import copy
import math
from dataclasses import dataclass, field, replace

import torch
from comfy.model_management import InterruptProcessingException
from torch import Tensor

from .noise_levels import noise_ratio

CALLS_A_STEP = 4   # that a sampler makes at most; later ones are taken for Euler's
LOOKS_BACK = 30    # calls: of latents that some remember with their predictions, traces are found for long
APART = 1 + 1e-4   # times another noise level: less is the same
NOTHING = 1e-3     # share that does not count
LITTLE = 0.5       # of the share in an Euler step: where less lands (heunpp2's third calls), making up for earlier ones would be long ways to and fro
GONE = 1e-9        # of the first latent that is left, below which it cannot be told


@dataclass(frozen=True)
class Landing:
    """Of one prediction: it is asked for at `sigma`, by a step from the noise level `start`, the next below `before`, None for none, to
    a latent at `after`, in which `share` of it lands. `again` has, by the number of an earlier prediction, how much of what that was
    shifted by must be added to this one, so that the latent has no more and no less of it than after an Euler step: its way was made when it
    landed first. `short` is whether the sampler chooses steps of its own, as short as they must be, by what is predicted."""
    sigma: float
    before: float | None
    start: float
    after: float
    share: float
    again: dict[int, float] = field(default_factory=dict)
    short: bool = False

    @property
    def of_euler(self) -> float:
        """The share that would land in an Euler step."""
        return 1 - self.after / self.start

    @property
    def gain(self) -> float:
        """What a shift must be larger by than in an Euler step, to land as far."""
        return round(self.of_euler / self.share, 4)


def euler(sigma: float, sigmas: Tensor) -> Landing:
    """That of an Euler step from `sigma` in a run of these `sigmas`."""
    levels = sigmas.tolist()
    before, after = min((s for s in levels if s > sigma), default=None), max((s for s in levels if s < sigma), default=0.0)
    return Landing(sigma, before, sigma, after, 1 - after / sigma if sigma else 1.0)


def landings(sampler, guider, sigmas: Tensor, extra_args: dict) -> list[Landing] | None:
    """Those of each prediction that `sampler` will ask `guider` for in a run of `sigmas`; None where it chooses its own steps, by what is
    predicted; an empty list where it cannot be rehearsed."""
    # On the CPU nothing waits for a card; uni_pc wants float32, and some samplers may want what is on the model's device.
    for place in ((torch.device("cpu"), torch.float64), (torch.device("cpu"), torch.float32), (sigmas.device, torch.float32)):
        try:
            (levels, plain), (again, marked) = (rehearsed(sampler, guider, sigmas, extra_args, place, marks) for marks in (False, True))
        except InterruptProcessingException:
            raise
        except Exception:  # another pack's sampler may want what a stand-in has not
            continue
        if levels != again:
            return None
        found = marked - plain  # the same noise in both
        model = guider.inner_model
        return [landing(model, call, [*levels, float(sigmas[-1])], found, sigmas) for call in range(min(len(levels), found.shape[1] - 1))]
    return []


def landing(model, call: int, levels: list[float], found: Tensor, sigmas: Tensor) -> Landing:
    """That of this `call`, the calls being made at `levels` and the last of these where the run of `sigmas` ends; `found` as `rehearsed` has it."""
    of_calls, sigma, after = found[:, :-1], levels[call], levels[call + 1]
    own = float(of_calls[call + 1, call])
    base = max((i for i in range(call + 1) if levels[i] > after * APART), default=None)
    if base is None:
        return euler(sigma, sigmas)
    before = min((s for s in levels[:call] if s > levels[base] * APART), default=None)
    of_euler = 1 - after / levels[base]
    if not own >= LITTLE * of_euler:
        return Landing(sigma, before, levels[base], after, of_euler)
    left = remaining(model, found, base, call, levels[base], after)
    missing = (of_calls[base] * left - of_calls[call + 1]) / own
    again = {i: round(c, 4) for i, c in enumerate(missing[:call].tolist()) if abs(c) > NOTHING and i >= call - LOOKS_BACK}
    return Landing(sigma, before, levels[base], after, own, again)


def remaining(model, found: Tensor, base: int, call: int, start: float, after: float) -> float:
    """What should remain of an earlier shift in the latent after this `call`, at the noise level `after`, of the one at call `base`, at `start`.

    An Euler step leaves r = after / start of what a latent differs by, and the model, which sees it, predicts some of it again: in all
    r + (1 - r) j, where j is how far its prediction follows. A sampler that draws noise anew leaves less of the latent, in the extreme
    (LCM) nothing: what is missing is forgotten but for its j. So (r - left) (1 - j) more should remain than the sampler leaves. For j stands that of
    images whose values are independent and as large as noise of 1, 1 / (1 + ratio^2): next to nothing in much noise, all in little."""
    first = found[:, -1]
    left = float(first[call + 1] / first[base]) if first[base].abs() > GONE else 0.0
    return left + (after / start - left) * (1 - 1 / (1 + noise_ratio(model, start)**2))


def rehearsed(sampler, guider, sigmas: Tensor, extra_args: dict, place: tuple, marks: bool) -> tuple[list[float], Tensor]:
    """The sigmas of the M calls that the sampler makes, and its latents [M + 1, N + 1] at each and at the end: what is there of each call's
    mark, and of one on the first latent. `place` is the device and the type to compute in."""
    count = CALLS_A_STEP * len(sigmas)
    model = StandIn(guider, count if marks else 0)
    options = {key: value for key, value in own(extra_args["model_options"]).items() if key != "sampler_post_cfg_function"}
    (device, dtype), levels = place, sigmas.to(*place, copy=True)  # uni_pc overwrites them
    noise = torch.zeros(count + 1, 1, 1, 1, dtype=dtype, device=device)
    noise[-1] = float(marks)
    arguments = {"model_options": options, "seed": extra_args.get("seed")}
    sampler = copy.copy(sampler)
    vars(sampler).update(own(vars(sampler)))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # so that both rehearsals draw the same
        out = sampler.sample(model, levels, arguments, None, noise, torch.zeros_like(noise), None, True)
    end = guider.inner_model.model_sampling.noise_scaling(sigmas[-1:].to(out), torch.zeros_like(out), out)  # undoes what the sampler ends with
    return model.sigmas, torch.stack([*model.latents, end.flatten()]).cpu()


def own(x):
    """`x` with dicts and lists of its own, so that what a sampler notes in them is gone after the rehearsal."""
    if type(x) is dict:
        return {key: own(value) for key, value in x.items()}
    return [own(value) for value in x] if type(x) is list else x


class StandIn:
    """Answers a sampler in the place of `guider`: in its first `marks` calls 1 at the place of the call, 0 elsewhere."""

    def __init__(self, guider, marks: int):
        self.guider, self.marks = guider, marks
        self.sigmas: list[float] = []
        self.latents: list[Tensor] = []

    def __getattr__(self, name: str):
        return getattr(self.guider, name)

    def __call__(self, x: Tensor, timestep: Tensor, model_options: dict = {}, seed: int | None = None) -> Tensor:
        denoised = torch.zeros_like(x)
        if len(self.sigmas) < self.marks:
            denoised[len(self.sigmas)] = 1
        self.sigmas.append(float(timestep.flatten()[0]))
        self.latents.append(x.flatten().clone())
        given = {"cond_denoised": denoised, "uncond_denoised": denoised, "cond": None, "uncond": None, "cond_scale": 1.0, "input": x,
                 "sigma": timestep, "model": self.guider.inner_model, "model_options": model_options}
        for change in model_options.get("sampler_post_cfg_function", []):  # by which the cfg_pp samplers learn of the unconditional branch
            denoised = change(given | {"denoised": denoised})
        return denoised

    predict_noise = outer_predict_noise = __call__


class Landed:
    """What the predictions of a run have been shifted by, of which samplers that look back have more to come."""

    def __init__(self, landings: list[Landing] | None):
        self.short, self.landings, self.count, self.shifts = landings is None, landings or [], 0, {}
        self.wanted = {call for landing in self.landings for call in landing.again}
        self.sigmas: Tensor | None = None  # of the run, where a card need not be asked

    def next(self, sigma: float, sigmas: Tensor) -> Landing:
        """Of the next prediction, at `sigma` in a run of `sigmas`; once another one was expected, those of Euler steps."""
        landing = self.landings[self.count] if self.count < len(self.landings) else None
        self.count += 1
        self.shifts = {call: shift for call, shift in self.shifts.items() if call >= self.count - 1 - LOOKS_BACK}
        if landing is None or not math.isclose(landing.sigma, sigma, rel_tol=1e-4):
            self.landings, self.sigmas = [], sigmas.cpu() if self.sigmas is None else self.sigmas
            return replace(euler(sigma, self.sigmas), short=self.short)
        return replace(landing, sigma=sigma, start=sigma if landing.start == landing.sigma else landing.start)

    def again(self, landing: Landing, x: Tensor, batch_index: Tensor | None) -> Tensor | None:
        """What must be added to this prediction of `x`, those at `batch_index` or all, for what earlier ones were shifted by."""
        known = {call: self.shifts[call] for call in landing.again if call in self.shifts}
        own = {call: shift if batch_index is None else shift[batch_index] for call, shift in known.items() if shift.shape[1:] == x.shape[1:]}
        return sum(landing.again[call] * shift for call, shift in own.items()) if own else None

    def keep(self, shift: Tensor, whole: Tensor, batch_index: Tensor | None) -> None:
        """Of the last prediction, for those at `batch_index` of the batch `whole`, or all."""
        if self.count - 1 in self.wanted:
            kept = self.shifts.setdefault(self.count - 1, torch.zeros_like(whole))
            kept[slice(None) if batch_index is None else batch_index] = shift
