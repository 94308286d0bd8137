"""Targets act in the steps in which a ControlNet with the same percents does."""
from itertools import combinations
from types import SimpleNamespace

import comfy.model_sampling
import comfy.samplers
import pytest
import torch
from comfy.controlnet import T2IAdapter

from readout_guidance_pack.nodes.engine.run_targets import RunTargets
from readout_guidance_pack.nodes.engine.schedule.landing import euler
from readout_guidance_pack.rg_core.guidance.updates import PUBLISHED

PERCENTS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0)
SCHEDULERS = ("simple", "normal", "sgm_uniform", "karras", "ddim_uniform", "beta", "linear_quadratic")


class Adapter(torch.nn.Module):
    unshuffle_amount = 1

    def forward(self, x):
        return {"input": [x]}


def discrete(kind):
    return type("Sampling", (comfy.model_sampling.ModelSamplingDiscrete, kind), {})()


def flow(shift):
    sampling = type("Sampling", (comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST), {})()
    sampling.set_parameters(shift=shift)
    return sampling


@pytest.mark.parametrize("made", [lambda: discrete(comfy.model_sampling.EPS), lambda: discrete(comfy.model_sampling.V_PREDICTION), lambda: flow(3.0),
                                  lambda: flow(8.0)], ids=["eps", "v", "flow, shift 3", "flow, shift 8"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_targets_act_in_the_steps_of_a_control(made, scheduler):
    sampling = made()
    model, adapter = SimpleNamespace(model_sampling=sampling), T2IAdapter(Adapter(), 3, 1, "nearest-exact", torch.device("cpu"))
    adapter.set_cond_hint(torch.ones(1, 3, 8, 8))
    for steps in (4, 8, 20):
        sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, steps)
        for start, end in combinations(PERCENTS, 2):
            adapter.timestep_percent_range = start, end
            adapter.pre_run(model, sampling.percent_to_sigma)
            targets = RunTargets((SimpleNamespace(start=start, end=end, edit_mask=None),), None)
            for sigma in sigmas[:-1]:
                acts = adapter.get_control(torch.zeros(1, 4, 8, 8), sigma[None], None, 1, {}) is not None
                assert bool(targets.active(model, euler(float(sigma), sigmas), sigmas, PUBLISHED)[0]) == acts, (steps, start, end, float(sigma))
