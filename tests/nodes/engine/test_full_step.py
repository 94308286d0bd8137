"""One guided step, default and published, against the formulas written out in float64.

The diffusion model is the host's own, with random weights; all else (noise levels, taps, head, energies, the move, the
sampler's step) is computed here a second time, independently.
"""
from dataclasses import replace
from itertools import pairwise

import comfy.samplers
import pytest
import torch
import torch.nn.functional as F
from comfy.k_diffusion.sampling import default_noise_sampler
from comfy_extras.nodes_custom_sampler import SamplerCustom

from published_head import by_the_formulas, randomised  # tests/rg_core is on the path
from random_models import MODELS, conditioning, random_model
from readout_guidance_pack.nodes.engine import guided
from readout_guidance_pack.nodes.references.reference import wrap
from readout_guidance_pack.nodes.samplers.published import KSamplerReadoutGuidancePublished
from readout_guidance_pack.rg_core.guidance.targets import Appearance, Drag, Spatial
from readout_guidance_pack.rg_core.guidance.trajectories import renoised
from readout_guidance_pack.rg_core.guidance.updates import PUBLISHED, Move
from readout_guidance_pack.rg_core.readout.head import ReadoutHead

SIZE, CFG, SEED = (16, 24), 7.5, 3
HIGH, LOW = 691, 681  # timesteps


def alphas_cumprod() -> torch.Tensor:
    """Stable Diffusion's noise schedule: betas whose square roots are evenly spaced."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


class InFloat64:
    """The model and the formulas."""

    def __init__(self, patcher, conds: list):
        self.unet, self.kwargs = patcher.model.diffusion_model.double(), []
        for context, more in conds:
            kwargs = {"context": context.double()}
            if patcher.model.adm_channels:
                kwargs["y"] = patcher.model.encode_adm(**more).double()
            self.kwargs.append(kwargs)

    def noise(self, x_vp, branch: int, t: int = HIGH):
        """The noise that the model predicts in x_vp at the timestep."""
        return self.unet(x_vp, torch.tensor([t]), **self.kwargs[branch])

    def readout(self, head, x_vp, branch: int, t: int = HIGH):
        seen, hooks = [], []
        for block in self.unet.output_blocks:
            hooks.append(block[0].out_layers[-1].register_forward_hook(lambda m, a, out: seen.append(out)))
        embedded = []
        hooks.append(self.unet.time_embed.register_forward_hook(lambda m, a, out: embedded.append(out)))
        self.noise(x_vp, branch, t)
        for hook in hooks:
            hook.remove()
        weights = {name: weight.double() for name, weight in head.state_dict().items()}
        spatial = head.output_head is not None
        return by_the_formulas(weights, seen, embedded[0], SIZE, spatial=spatial, tanh=spatial)

    def energy(self, head, x_vp, span, branch: int, target):
        """mean((readout - target)^2) * (L / C)^2."""
        width = head.control_range[1] - head.control_range[0]
        return (self.readout(head, x_vp, branch) - target).square().mean() * (span / width) ** 2


def adam(x, g):
    """Adam's first step from a fresh state, with the published learning rate."""
    beta1, beta2 = 0.9, 0.999
    m, v = (1 - beta1) * g / (1 - beta1), (1 - beta2) * g**2 / (1 - beta2)
    return x.detach() - 0.02 * m / (v.sqrt() + 1e-8)


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
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(4))
    target = Spatial(name="pose", head=head, image=image, end=1.0)
    move = Move() if preset == "default" else replace(PUBLISHED, eta=eta)
    sigmas = patcher.get_model_object("model_sampling").sigmas[[HIGH, LOW]]
    unet = patcher.model.diffusion_model
    unet.float()
    with torch.inference_mode():
        steered = guided("test", patcher, (target,), move)
        got, unguided = (step(patcher, m, positive, negative, eta, sigmas) for m in (steered, patcher))

    alphas = alphas_cumprod()
    high, low = alphas[HIGH], alphas[LOW]
    x = torch.randn(1, 4, *SIZE, generator=torch.manual_seed(SEED)) * sigmas[0]
    z = default_noise_sampler(x, seed=SEED)(sigmas[0], sigmas[1]).double()
    sure = InFloat64(patcher, [negative[0], positive[0]])
    x_vp = (x.double() * high.sqrt()).requires_grad_()
    span = (x_vp.max() - x_vp.min()).detach()
    wanted = image.double() * (head.control_range[1] - head.control_range[0]) + head.control_range[0]
    if preset == "published":
        energy = sum(0.5 * sure.energy(head, x_vp, span, branch, wanted) for branch in (0, 1))
        g, = torch.autograd.grad(energy, x_vp)
        moved, shift = adam(x_vp, g), 0.0
    else:
        g, = torch.autograd.grad(sure.energy(head, x_vp, span, 1, wanted), x_vp)
        moved = x_vp.detach()
        # Of the prediction of the clean latent, as long as it takes to land 1.12 times the logarithm of the noise's fall (moves.py: one move).
        above, below = (((1 - a) / a).sqrt() for a in (high, low))
        lands = (1 - below / above) * ((1 + above**2) / (1 + below**2)).sqrt()
        shift = -0.1 * g / g.square().mean().sqrt() / high.sqrt() * 1.12 * (above / below).log() / lands
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


def at(readout, x: float, y: float):
    """A readout [1, C, H, W] at a place in shares of the image, bilinearly: [1, C]."""
    grid = torch.tensor([x, y], dtype=torch.float64).view(1, 1, 1, 2) * 2 - 1
    return F.grid_sample(readout, grid, align_corners=False)[:, :, 0, 0]


def test_the_published_drag_procedure_equals_the_formulas(model):
    """Both steps of two, through the node: noise of variance 1 at first, L over the image and its reference, which is read
    unrounded beside both branches; a guided step by a drag and an appearance, and an unguided one."""
    name, patcher = model
    _, config, channels = MODELS[name]
    patcher.model.diffusion_model.float()
    emb = 4 * config["model_channels"]
    torch.manual_seed(0)
    heads = {kind: randomised(ReadoutHead(kind, channels, emb_channels=width, out_channels=None)).eval().requires_grad_(False)
             for kind, width in (("correspondence", None), ("appearance", emb))}
    positive, negative = conditioning(config["context_dim"], 1), conditioning(config["context_dim"], 2)
    clean, ref_noise = torch.randn(2, 1, 4, *SIZE, generator=torch.Generator().manual_seed(8))
    ref_noise = 1.5 * ref_noise  # so that L is that of the reference
    (x0, y0), (x1, y1) = (0.3, 0.4), (0.7, 0.6)
    with torch.inference_mode():
        reference = wrap(patcher, renoised(clean, clean + 14.6 * ref_noise, 14.6), positive, 64)
        drag = Drag(name="drag", head=heads["correspondence"], reference=reference, end=0.5, paths=torch.tensor([[[x0, y0], [x1, y1]]]))
        look = Appearance(name="appearance", head=heads["appearance"], reference=reference, end=0.5, weight=0.7)
        run = [patcher, SEED, 2, CFG, 0.0, True, positive, negative, {"samples": torch.zeros(1, 4, *SIZE)}, 0.02]
        got, unguided = (KSamplerReadoutGuidancePublished.execute(*run, guidance).args[0]["samples"] for guidance in ((drag, look), ()))

    alphas, sure, times = alphas_cumprod(), InFloat64(patcher, [negative[0], positive[0]]), (501, 1, 0)

    def expected(sign: int):
        """`sign` is given to the one gradient that float32 cannot tell from 0, of which Adam makes as long a step as of the others."""
        x = torch.randn(1, 4, *SIZE, generator=torch.manual_seed(SEED)).double()
        for t, following in pairwise(times):
            high, low = alphas[t], alphas[following]
            if t == 501:
                ref = (clean.double() + ((1 - high) / high).sqrt() * ref_noise.double()) * high.sqrt()
                x = x.requires_grad_()
                span = torch.cat([x, ref]).max() - torch.cat([x, ref]).min()
                energy = 0.0
                for branch in (0, 1):
                    ours, theirs = (sure.readout(heads["correspondence"], each, branch, t) for each in (x, ref))
                    there, stays = (F.cosine_similarity(at(theirs, x0, y0), at(ours, *p)) for p in ((x1, y1), (x0, y0)))
                    energy = energy - (there + 1) / 4 + (stays + 1) / 4
                    ours, theirs = (sure.readout(heads["appearance"], each, branch, t) for each in (x, ref))
                    energy = energy + 0.7 * (1 - F.cosine_similarity(ours, theirs)).mean() * span.detach() ** 2
                gradient = torch.autograd.grad(energy, x)[0]
                unsure = gradient.abs() < 1e-4 * gradient.square().mean().sqrt()
                assert unsure.sum() == 1
                x = adam(x, torch.where(unsure, sign * gradient, gradient))
            with torch.no_grad():
                bad, good = (sure.noise(x, branch, t) for branch in (0, 1))
                noise = bad + CFG * (good - bad)
                x = low.sqrt() * (x - (1 - high).sqrt() * noise) / high.sqrt() + (1 - low).sqrt() * noise
        return patcher.model.process_latent_out(x)

    ends = [expected(sign) for sign in (-1, 1)]
    between = ((got - ends[0]) * (ends[1] - ends[0])).sum() / (ends[1] - ends[0]).square().sum()
    nearest = torch.lerp(*ends, between.clamp(0, 1))
    assert ((got - nearest).norm() / nearest.norm()).item() < 1e-5
    assert ((got - unguided).norm() / got.norm()).item() > 1e-3
