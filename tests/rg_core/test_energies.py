import torch

from rg_core import energies, updates


def test_spatial_energy_equals_its_formula_in_float64():
    rng = torch.Generator().manual_seed(0)
    readout, target = torch.randn(3, 3, 5, 7, generator=rng), torch.randn(3, 3, 5, 7, generator=rng)
    latent = torch.randn(3, 4, 5, 7, generator=rng)
    value = energies.spatial(readout, target, energies.latent_range(latent), (-0.5, 0.5))
    r, t, x = readout.double(), target.double(), latent.double()
    for b in range(3):
        expected = ((r[b] - t[b]) ** 2).mean() * ((x[b].max() - x[b].min()) / 1.0) ** 2
        assert torch.isclose(value[b].double(), expected, rtol=1e-6)


def test_mask_limits_the_energy_and_its_gradient_to_its_area():
    readout = torch.zeros(1, 3, 4, 4, requires_grad=True)
    target = torch.ones(1, 3, 4, 4)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    value = energies.spatial(readout, target, torch.tensor([2.0]), (-1.0, 1.0), mask)
    assert value.item() == 1.0  # error 1 everywhere in the mask, (L / C)^2 = 1
    gradient, = torch.autograd.grad(value.sum(), readout)
    assert (gradient[..., 2:] == 0).all() and (gradient[..., :2] != 0).all()


def test_update_rules_keep_pictures_apart_and_have_size_one():
    gradient = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-12, 1e3]).view(2, 1, 1, 1)
    for name, rule in updates.FORMS.items():
        both = rule(gradient)
        assert torch.equal(both[1:], rule(gradient[1:])), name
        assert torch.isclose(both[1].square().mean().sqrt(), torch.tensor(1.0), rtol=1e-3), name
    assert torch.isclose(updates.rms(gradient)[0].square().mean().sqrt(), torch.tensor(1.0), rtol=1e-3)
    assert torch.allclose(updates.sign(torch.tensor([[3.0, -2.0, 0.0]])), torch.tensor([[1.0, -1.0, 0.0]]))


def test_a_zero_gradient_moves_nothing():
    for rule in updates.FORMS.values():
        assert (rule(torch.zeros(1, 3, 2, 2)) == 0).all()
