"""Caches and other code of packs that stand between a guided step and the model: it runs as a whole there, or is refused by name."""
import pytest
import torch
from comfy.patcher_extension import WrappersMP

import tiny_transformers
from batches import sampled
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from readout_guidance_pack.rg_core.guidance.targets import Spatial
from readout_guidance_pack.rg_core.guidance.updates import Move
from transformer_sampling import depth_head
from transformer_sampling import sampled as sampled_by_transformer

pytestmark = pytest.mark.usefixtures("inference_mode")


def test_a_replaced_forward_that_keeps_results_by_their_noise_level_is_named(w, monkeypatch):
    """As caches without a thought for guidance: what one branch has, the other is given."""
    unet, kept = w.model.model.diffusion_model, {}
    real = unet.forward

    def forward(x, timesteps=None, *args, **kwargs):
        key = float(timesteps[0]), x.shape
        kept[key] = kept[key] if key in kept else real(x, timesteps, *args, **kwargs)
        return kept[key]

    unet.forward = forward
    try:
        model = ApplyReadoutGuidance.execute(w.model, w.pose(1), 0.1, moves=1)[0]
        with pytest.raises(ValueError, match="in a guided step the diffusion model was not run completely.*a replaced forward of test_whole_runs"):
            sampled(w, model, 1)
    finally:
        del unet.forward


def test_a_wrapper_inside_the_diffusion_model_that_forecasts_is_named(w):
    """It stands behind where calls of the diffusion model are counted."""
    model, calls, last = w.model.clone(), [], {}

    def forecast(executor, x, *args, **kwargs):
        calls.append(1)
        if len(calls) % 3 == 0 and x.shape in last:
            return last[x.shape]
        last[x.shape] = executor(x, *args, **kwargs)
        return last[x.shape]

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "another pack", forecast)
    model = ApplyReadoutGuidance.execute(model, w.pose(1), 0.1, moves=1)[0]
    with pytest.raises(ValueError, match="in a guided step the diffusion model was not .*a wrapper of test_whole_runs"):
        sampled(w, model, 1)


class Flux:
    """A tiny one, with a depth to steer by."""

    def __init__(self, **given):
        self.model, self.given = tiny_transformers.tiny_model("flux"), given
        self.network = self.model.model.diffusion_model
        self.target = Spatial(name="depth", head=depth_head(self.model), image=torch.rand(1, 3, 16, 16, generator=torch.manual_seed(0)))

    def run(self, model=None, cfg=3.0):
        return sampled_by_transformer(guided("test", model or self.model, (self.target,), Move(), **self.given), "flux", cfg=cfg)


def keeping(real, every=2):
    """A block's forward that adds what it added before, at some calls."""
    calls, kept = [], {}

    def forward(img, txt, *args, **kwargs):
        calls.append(1)
        if len(calls) % every == 0 and img.shape in kept:
            return img + kept[img.shape][0], txt + kept[img.shape][1]
        out = real(img, txt, *args, **kwargs)
        kept[img.shape] = out[0].detach() - img.detach(), out[1].detach() - txt.detach()
        return out

    return forward


NOT_WHOLE = "^test: in a guided step the diffusion model was not run completely, so its prediction may belong to another call.*of test_whole_runs"


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("recompute", ["off", "on"])
def test_a_block_whose_forward_keeps_what_it_adds_is_named(recompute, cfg):
    flux = Flux(recompute=recompute)
    block = flux.network.double_blocks[0]
    real = block.forward
    block.forward = keeping(real)
    with pytest.raises(ValueError, match=NOT_WHOLE):
        flux.run(cfg=cfg)
    block.forward = lambda *args, **kwargs: real(*args, **kwargs)  # one that computes all is no matter
    assert torch.isfinite(flux.run(cfg=cfg)).all()


class Kept(torch.nn.Module):
    """Another pack's block in the place of the host's."""

    def __init__(self, block):
        super().__init__()
        self.block, self.keeping = block, keeping(block)

    def forward(self, *args, **kwargs):
        return self.keeping(*args, **kwargs)


def test_a_block_of_another_pack_that_keeps_what_it_adds_is_named():
    flux = Flux()
    flux.model.add_object_patch("diffusion_model.double_blocks.0", Kept(flux.network.double_blocks[0]))
    with pytest.raises(ValueError, match=NOT_WHOLE):
        flux.run()


def test_blocks_that_are_compiled_one_by_one_are_no_matter():
    flux, plain = Flux(), Flux().run()
    for i, block in enumerate(flux.network.double_blocks):
        flux.model.add_object_patch(f"diffusion_model.double_blocks.{i}", torch.compile(block, backend="eager"))
    assert torch.allclose(flux.run(), plain, atol=1e-3)
    flux.model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "another pack", lambda executor, *args, **kwargs: executor(*args, **kwargs))
    assert torch.allclose(flux.run(), plain, atol=1e-3)


def test_a_forward_that_is_called_by_itself_is_named(w):
    model = w.model.clone()
    model.set_model_unet_function_wrapper(lambda apply_model, given: apply_model.__self__.diffusion_model.forward(
        given["input"], given["timestep"], given["c"]["c_crossattn"]))
    with pytest.raises(ValueError, match="in a guided step the diffusion model was run in an unexpected way .its forward was called directly"):
        sampled(w, ApplyReadoutGuidance.execute(model, w.pose(1), 0.1)[0], 1)
