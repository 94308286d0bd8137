"""Guided by nothing is nothing: with next to no strength a guided run is the plain one, whatever hangs on the MODEL or its conditioning.

A guided step asks branch by branch where a plain one asks once for all; here that must make no difference.
docs/measurements/host_features.md has the figures.
"""
from dataclasses import replace

import comfy.samplers
import pytest
import torch
from comfy_extras import nodes_hypertile, nodes_tomesd

from host_features import FEATURES, Graph, apply_control, make_adapter, patched
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.rg_core.guidance.targets import Spatial
from readout_guidance_pack.rg_core.guidance.updates import Move
from tiny_transformers import HERE, tiny_model
from transformer_sampling import depth_head, sampled

pytestmark = pytest.mark.usefixtures("inference_mode")
ROUNDING = 1e-5  # over the largest number of an image
NOTHING = Move(1e-7, moves=1)
LESS = {"chroma-radiance": Move(1e-8, moves=1)}  # with these weights noise that is another one by 1e-7 makes 5e-6 of it


def off(graph: Graph) -> float:
    """How far the image guided by nothing is from the plain one."""
    graph.move = NOTHING
    plain = graph.run(False)
    return ((graph.run() - plain).abs().max() / plain.abs().max()).item()


def images(graph: Graph, count: int) -> None:
    graph.latent = graph.latent | {"samples": graph.latent["samples"][:1].repeat(count, 1, 1, 1)}


def halves(graph: Graph) -> None:
    """Takes the halves of a call for the two branches, as packs do that couple regions, and fails where there are none."""
    def patch(q, k, v, _options):
        one, two = k.chunk(2)
        return q, torch.cat([0.7 * one + 0.3 * two, two]), v

    graph.model = graph.model.clone()
    graph.model.set_model_attn1_patch(patch)


def shared_in_halves(graph: Graph) -> None:
    """Shares the keys of the first image with all others of its half, as StyleAligned does."""
    def patch(q, k, v, _options):
        def shared(x):
            return torch.cat([half[:1].expand_as(half) for half in x.chunk(2)])
        return q, 0.5 * (k + shared(k)), v

    graph.model = graph.model.clone()
    graph.model.set_model_attn1_patch(patch)


def several_hints(graph: Graph) -> None:
    adapter = make_adapter()
    apply_control(graph, adapter)
    for said in (graph.positive, graph.negative):
        control = said[0][1]["control"]
        control.cond_hint_original = torch.rand(2, *control.cond_hint_original.shape[1:], generator=torch.Generator().manual_seed(7))
    graph.target = replace(graph.target, end=0.5)  # then the host asks for both again


ASKED_APART = {"halves": halves, "keys shared in halves": shared_in_halves, "several hints": several_hints,
               "token merging": patched(nodes_tomesd.TomePatchModel.execute, 0.4),
               "HyperTile": patched(nodes_hypertile.HyperTile.execute, 32, 3, 0, False)}


ROUGH = {"zero terminal SNR": 2e-4}  # begins at a sigma of 4518, of which float32 has no more than four digits behind the point
UNLIKE = {"EasyCache"}  # leaves out steps of the plain run, of guided ones none


SLOW = pytest.mark.slow
COUNTS = [2, *(pytest.param(count, marks=SLOW) for count in (1, 3, 4))]
CASES = [pytest.param(feature, count, marks=SLOW if feature in FEATURES and count != 2 else ())
         for feature in FEATURES | ASKED_APART if feature not in UNLIKE for count in (1, 2, 3, 4)]


@pytest.mark.parametrize("feature, count", CASES)
def test_guided_by_nothing_is_plain(feature, count):
    graph = Graph()
    graph.cfg = 7.0
    images(graph, count)
    (FEATURES | ASKED_APART)[feature](graph)
    if feature == "several hints" and count == 1:
        pytest.skip("the host itself gives each branch another hint then")
    assert off(graph) < ROUGH.get(feature, ROUNDING)


def test_patches_that_want_both_branches_are_seen_through():
    """As one is that does the same and asks which branches a call has."""
    def shares(graph, count_of):
        def patch(q, k, v, options):
            return q, 0.5 * (k + torch.cat([part[:1].expand_as(part) for part in k.chunk(count_of(options))])), v

        graph.model = graph.model.clone()
        graph.model.set_model_attn1_patch(patch)

    asking, halving = Graph(), Graph()
    for graph, count_of in ((asking, lambda options: len(options["cond_or_uncond"])), (halving, lambda _options: 2)):
        images(graph, 2)
        shares(graph, count_of)
        graph.move = Move(0.3, moves=1)
    guided_run = asking.run()
    assert ((halving.run() - guided_run).norm() / guided_run.norm()).item() < 1e-3
    assert not torch.allclose(guided_run, asking.run(False), rtol=1e-2)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_no_sampler_makes_something_of_nothing(sampler, count):
    graph = Graph()
    graph.cfg, graph.sampler = 7.0, sampler
    images(graph, count)
    assert off(graph) < ROUNDING


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", HERE)
def test_no_model_makes_something_of_nothing(name, count):
    model = tiny_model(name)
    target = Spatial(name="depth", head=depth_head(model), image=torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    plain = sampled(model, name, count=count)
    assert (sampled(guided("test", model, (target,), LESS.get(name, NOTHING)), name, count=count) - plain).abs().max() < ROUNDING * plain.abs().max()
