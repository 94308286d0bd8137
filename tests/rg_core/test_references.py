"""Ways from clean to noise: exact on straight lines, and inversion against the sampler it inverts."""
import torch

from readout_guidance_pack.rg_core.guidance import trajectories


def test_a_renoised_image_has_its_noise_at_every_level_and_its_clean_self_as_prediction():
    clean, noise = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    way = trajectories.renoised(clean, clean + 14.6 * noise, 14.6)
    for sigma in (0.0, 0.03, 5.0, 14.6, 20.0):  # the last one is beyond what was recorded
        latent, denoised = way.segment(sigma)
        assert torch.allclose(latent, clean + sigma * noise, atol=1e-4)
        assert torch.allclose(denoised, clean, atol=1e-4)


def test_following_the_predictions_with_euler_steps_stays_on_the_recorded_way():
    sigmas = torch.tensor([0.0, 0.5, 2.0, 7.0])
    latents = torch.randn(4, 1, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    way = trajectories.Trajectory(sigmas, latents)
    x = latents[-1]
    for knot in (3, 2, 1):
        latent, denoised = way.segment(sigmas[knot].item())
        assert torch.allclose(latent, latents[knot], atol=1e-6)
        ratio = sigmas[knot - 1] / sigmas[knot]
        x = denoised + (x - denoised) * ratio
        assert torch.allclose(x, latents[knot - 1], atol=1e-5)


def test_inversion_is_undone_by_euler_steps_and_refining_makes_it_more_exact():
    """On a denoiser with curvature: the exact one of two Gaussian blobs, in float64."""
    centres = torch.tensor([-1.0, 1.5], dtype=torch.float64)

    def denoise(x, sigma):
        weight = torch.softmax(-(x[..., None] - centres) ** 2 / (2 * (sigma**2 + 0.01)), -1)
        near = (0.01 * x[..., None] + sigma**2 * centres) / (sigma**2 + 0.01)
        return (weight * near).sum(-1)

    clean = torch.tensor([-1.05, -0.9, 1.4, 1.7], dtype=torch.float64).view(1, 1, 2, 2)
    sigmas = torch.cat([torch.zeros(1), torch.logspace(-1.5, 1, 20)]).double()
    errors = []
    for refine in (0, 4, 30):
        x = trajectories.invert(clean, sigmas, denoise, refine).latents[-1]
        for high, low in zip(sigmas.flip(0)[:-1].tolist(), sigmas.flip(0)[1:].tolist()):
            denoised = denoise(x, high)
            x = denoised + (x - denoised) * (low / high)
        errors.append((x - clean).abs().max().item())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4
