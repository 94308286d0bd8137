"""What is said of a guided MODEL that is sampled several times in one run of a workflow: steps one by one, the same image again, parts of it."""
import logging

import comfy.utils
import nodes as host_nodes
import pytest
import torch
from comfy_execution.utils import CurrentNodeContext

from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance

pytestmark = pytest.mark.usefixtures("inference_mode")

SIZE, SAMPLER = (32, 32), (3.0, "euler", "karras")


def applied(w, **changes):
    return ApplyReadoutGuidance.execute(w.model, w.pose(1, **{"end_percent": 0.9} | changes), 0.1)[0]


def sampled(w, model, latents, steps=2, denoise=1.0, **more):
    return host_nodes.common_ksampler(model, 1, steps, *SAMPLER, w.positive, w.negative, {"samples": latents}, denoise, **more)[0]["samples"]


def empty():
    return torch.zeros(1, 3, *SIZE)


def by_steps(w, model, steps=6):
    """As Impact's samplers for regions: each step in a call of its own, outside a mask and inside."""
    latents, mask = empty(), torch.ones(1, 1, *SIZE)
    mask[..., :16] = 0
    for step in range(steps):
        sides = [sampled(w, model, latents, steps, disable_noise=step > 0, start_step=step, last_step=step + 1)]
        if step:
            sides.append(sampled(w, model, sides[0], steps, disable_noise=True, start_step=step, last_step=step + 1))
        latents = sides[0] * (1 - mask) + sides[-1] * mask
    return latents


def enlarged(latents, size):
    return comfy.utils.common_upscale(latents, *size[::-1], "bicubic", "disabled")


def said(caplog, text):
    return sum(text in r.message for r in caplog.records)


@pytest.mark.parametrize("start, unguided", [(0.3, 0), (0.89, 1)])
def test_steps_that_are_sampled_one_by_one_are_one_run(w, caplog, start, unguided):
    """Some of its steps are guided, or none."""
    model = applied(w, start_percent=start, size=(64, 96))
    with CurrentNodeContext("prompt", "7"):
        by_steps(w, model)
    assert said(caplog, "before guidance") == 0 and said(caplog, "nothing in this run was guided") == unguided
    assert said(caplog, "is cut off at its edges") == 1 - unguided


def test_an_image_enlarged_and_sampled_again_in_one_node_is_no_part(w, caplog):
    """As KSampler (Efficient) does with a script for hires fix; and a second run that ends before targets act is part of a guided one."""
    model = applied(w, end_percent=0.5)
    with CurrentNodeContext("prompt", "7"):
        first = sampled(w, model, empty(), steps=4)
        sampled(w, model, enlarged(first, (48, 48)), denoise=0.4)
    assert said(caplog, "before guidance") == said(caplog, "nothing in this run was guided") == 0


def test_a_crop_enlarged_to_the_first_size_is_a_part(w, caplog):
    model = applied(w)
    with CurrentNodeContext("prompt", "3"):
        first = sampled(w, model, empty(), steps=4)
    with CurrentNodeContext("prompt", "4"):
        sampled(w, model, enlarged(first, (64, 64)), denoise=0.5)  # whole
        sampled(w, model, enlarged(first[..., 4:20, 8:24], SIZE), denoise=0.5)
    assert said(caplog, "part of an image that it sampled before") == said(caplog, "before guidance") == 1


def test_a_crop_of_what_an_earlier_run_made_is_a_part(w, caplog):
    """Where the host has kept that, and runs the detailer alone."""
    model = applied(w)
    with CurrentNodeContext("first", "3"):
        first = sampled(w, model, torch.zeros(1, 3, 64, 64))
    with CurrentNodeContext("second", "4"):
        sampled(w, model, first, denoise=0.5)
        assert said(caplog, "before guidance") == 0
        sampled(w, model, enlarged(first[..., 8:40, 16:48], SIZE), denoise=0.5)
    assert said(caplog, "part of an image that it sampled before") == 1


def test_parts_are_said_in_each_run_of_the_workflow(w, caplog):
    """However long the host keeps the MODEL."""
    model = applied(w)
    for prompt in ("first", "second"):
        with CurrentNodeContext(prompt, "7"):
            for seed in range(3):
                sampled(w, model, torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed)), denoise=0.5)
    assert said(caplog, "one node samples with its MODEL more than once") == 2


def test_warnings_are_seen_where_a_pack_silences_the_root_logger(w, caplog):
    """As Ultimate SD Upscale does while it samples."""
    model, root = applied(w), logging.getLogger()
    before = root.level
    root.setLevel(logging.CRITICAL + 1)
    try:
        with CurrentNodeContext("prompt", "7"):
            for seed in range(2):
                sampled(w, model, torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed)), denoise=0.5)
    finally:
        root.setLevel(before)
    assert said(caplog, "one node samples with its MODEL more than once") == 1


def test_parts_of_an_image_are_noticed_once(w, caplog):
    """As detailers and tile upscalers sample: smaller, or again and again in one node, from given latents."""
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]

    def run(size, given):
        latent = {"samples": torch.rand(1, 3, *size) if given else torch.zeros(1, 3, *size)}
        host_nodes.common_ksampler(model, 1, 2, 3.0, "euler", "karras", w.positive, w.negative, latent, denoise=0.5 if given else 1.0)

    run((64, 64), False)
    run((96, 96), True)  # a second sampler on the enlarged image
    run((48, 48), False)
    assert "from before guidance" not in caplog.text
    run((48, 48), True)
    run((32, 32), True)
    assert ["smaller than before" in r.message for r in caplog.records if "from before guidance" in r.message] == [True]


def test_a_workflow_that_is_run_again_is_no_part_of_the_first_run(w, caplog):
    """A given image sampled again, then enlarged: in the second run that image is smaller than what the first ended with."""
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]

    def run(prompt, *sizes):
        for node, size in enumerate(sizes):
            with CurrentNodeContext(prompt, str(node)):
                latent = {"samples": torch.ones(1, 3, size, size)}
                host_nodes.common_ksampler(model, 1, 2, 3.0, "euler", "karras", w.positive, w.negative, latent, denoise=0.5)

    run("first", 48, 64)
    run("second", 48, 64)
    assert "from before guidance" not in caplog.text
    run("third", 64, 48)
    assert ["smaller than before" in r.message for r in caplog.records if "from before guidance" in r.message] == [True]


def test_tiles_of_one_node_are_noticed_once(w, caplog):
    model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1)[0]
    with CurrentNodeContext("prompt", "7"):
        for _ in range(3):
            latent = {"samples": torch.rand(1, 3, 64, 64)}
            host_nodes.common_ksampler(model, 1, 2, 3.0, "euler", "karras", w.positive, w.negative, latent, denoise=0.5)
    assert ["more than once" in r.message for r in caplog.records if "from before guidance" in r.message] == [True]
