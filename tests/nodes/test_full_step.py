"""One guided step, default and published, against the formulas written out in float64.

The diffusion model is the host's own, with random weights; all else (noise levels, taps, head, energies, the move, the
sampler's step) is computed here a second time, independently.
"""
from dataclasses import replace

import comfy.samplers
import pytest
import torch
from comfy.k_diffusion.sampling import default_noise_sampler
from comfy_extras.nodes_custom_sampler import SamplerCustom

from random_models import MODELS, conditioning, random_model
from readout_guidance_pack.nodes import engine, guide
from readout_guidance_pack.rg_core import guidance
from readout_guidance_pack.rg_core.head import ReadoutHead
from test_head import by_the_formulas, randomised  # tests/rg_core is on the path

SIZE, CFG, SEED = (16, 24), 7.5, 3
HIGH, LOW = 691, 681  # timesteps


def alphas_cumprod() -> torch.Tensor:
    """Stable Diffusion's noise schedule: betas whose square roots are evenly spaced."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


class InFloat64:
    """The model and the formulas."""

    def __init__(self, patcher, weights: dict, conds: list):
        self.unet, self.weights = patcher.model.diffusion_model.double(), {k: v.double() for k, v in weights.items()}
        self.kwargs = []
        for context, more in conds:
            kwargs = {"context": context.double()}
            if patcher.model.adm_channels:
                kwargs["y"] = patcher.model.encode_adm(**more).double()
            self.kwargs.append(kwargs)

    def noise(self, x_vp, branch: int):
        """The noise that the model predicts in x_vp at the higher timestep."""
        return self.unet(x_vp, torch.tensor([HIGH]), **self.kwargs[branch])

    def energy(self, x_vp, span, branch: int, target, control_range):
        """mean((readout - target)^2) * (L / C)^2."""
        seen, hooks = [], []
        for block in self.unet.output_blocks:
            hooks.append(block[0].out_layers[-1].register_forward_hook(lambda m, a, out: seen.append(out)))
        embedded = []
        hooks.append(self.unet.time_embed.register_forward_hook(lambda m, a, out: embedded.append(out)))
        self.noise(x_vp, branch)
        for hook in hooks:
            hook.remove()
        readout = by_the_formulas(self.weights, seen, embedded[0], SIZE, spatial=True, tanh=True)
        width = control_range[1] - control_range[0]
        return (readout - target).square().mean() * (span / width) ** 2


def step(patcher, model, positive, negative, eta, sigmas):
    """What the host makes of the noise in one step."""
    sampler, empty = comfy.samplers.ksampler("euler_ancestral", {"eta": eta}), {"samples": torch.zeros(1, 4, *SIZE)}
    latent, _ = SamplerCustom.execute(model, True, SEED, CFG, positive, negative, sampler, sigmas, empty).args
    return patcher.model.process_latent_in(latent["samples"]).double()


@pytest.fixture(scope="module", params=["small", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sd15", "sdxl"))])
def model(request):
    yield request.param, random_model(request.param)


@pytest.mark.parametrize("embedded", [True, False], ids=["embedding", "sequential"])
@pytest.mark.parametrize("preset,eta", [("default", 0.0), ("published", 0.0), ("published", 1.0)])
def test_a_guided_step_equals_the_formulas(model, embedded, preset, eta):
    name, patcher = model
    _, config, channels = MODELS[name]
    torch.manual_seed(0)
    head = randomised(ReadoutHead("pose", channels, emb_channels=4 * config["model_channels"] if embedded else None))
    head.eval().requires_grad_(False)
    positive, negative = conditioning(config["context_dim"], 1), conditioning(config["context_dim"], 2)
    picture = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(4))
    target = guidance.Spatial(name="pose", head=head, image=picture, end=1.0)
    move = engine.Move() if preset == "default" else replace(engine.PUBLISHED, eta=eta)
    sigmas = patcher.get_model_object("model_sampling").sigmas[[HIGH, LOW]]
    unet = patcher.model.diffusion_model
    unet.float()
    with torch.inference_mode():
        guided = guide.guided("test", patcher, (target,), move, engine.Trace())
        got, unguided = (step(patcher, m, positive, negative, eta, sigmas) for m in (guided, patcher))

    alphas = alphas_cumprod()
    high, low = alphas[HIGH], alphas[LOW]
    x = torch.randn(1, 4, *SIZE, generator=torch.manual_seed(SEED)) * sigmas[0]
    z = default_noise_sampler(x, seed=SEED)(sigmas[0], sigmas[1]).double()
    sure = InFloat64(patcher, head.state_dict(), [negative[0], positive[0]])
    x_vp = (x.double() * high.sqrt()).requires_grad_()
    span = (x_vp.max() - x_vp.min()).detach()
    wanted = picture.double() * (head.control_range[1] - head.control_range[0]) + head.control_range[0]
    if preset == "published":
        energy = sum(0.5 * sure.energy(x_vp, span, branch, wanted, head.control_range) for branch in (0, 1))
        g, = torch.autograd.grad(energy, x_vp)
        beta1, beta2 = 0.9, 0.999  # Adam's first step
        m, v = (1 - beta1) * g / (1 - beta1), (1 - beta2) * g**2 / (1 - beta2)
        moved, shift = x_vp.detach() - 0.02 * m / (v.sqrt() + 1e-8), 0.0
    else:
        g, = torch.autograd.grad(sure.energy(x_vp, span, 1, wanted, head.control_range), x_vp)
        moved = x_vp.detach()
        shift = -0.1 * g / g.square().mean().sqrt() / high.sqrt()  # of the prediction of the clean latent
    with torch.no_grad():
        bad, good = (sure.noise(moved, branch) for branch in (0, 1))
        noise = bad + CFG * (good - bad)
        clean = (moved - (1 - high).sqrt() * noise) / high.sqrt() + shift
        noise = (moved - high.sqrt() * clean) / (1 - high).sqrt()
        spread = eta * ((1 - low) / (1 - high) * (1 - high / low)).sqrt()
        following = low.sqrt() * clean + (1 - low - spread**2).sqrt() * noise + spread * z
    expected = following / low.sqrt()
    assert ((got - expected).norm() / expected.norm()).item() < 1e-5
    assert ((got - unguided).norm() / expected.norm()).item() > 1e-3  # so the move is not lost in the tolerance
