import torch

from readout_guidance_pack.rg_core.guidance import energies, updates


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


def test_update_rules_keep_images_apart_and_have_size_one():
    gradient = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-12, 1e3]).view(2, 1, 1, 1)
    for name, rule in updates.FORMS.items():
        both = rule(gradient)
        assert torch.equal(both[1:], rule(gradient[1:])), name
        assert torch.isclose(both[1].square().mean().sqrt(), torch.tensor(1.0), rtol=1e-3), name
    assert torch.isclose(updates.rms(gradient)[0].square().mean().sqrt(), torch.tensor(1.0), rtol=1e-3)
    assert torch.allclose(updates.sign(torch.tensor([[3.0, -2.0, 0.0]])), torch.tensor([[1.0, -1.0, 0.0]]))


def test_targets_together_move_as_far_as_the_root_of_their_squared_weights():
    gradient = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.isclose(updates.Move(0.1).displacement(gradient, 2.0, [3.0, 4.0]).square().mean().sqrt(), torch.tensor(0.1 * 2 * 5), rtol=1e-5)


def test_a_zero_gradient_moves_nothing():
    for rule in updates.FORMS.values():
        assert (rule(torch.zeros(1, 3, 2, 2)) == 0).all()


def cosine(a, b):
    return (a * b).sum() / (a.norm() * b.norm())


def relation(seed=0, batch=2, channels=6, size=(4, 5)):
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, channels, *size, generator=rng) for _ in range(2))


def test_appearance_equals_its_formula_in_float64():
    guided, reference = relation()
    span, mask = torch.tensor([2.0, 3.0]), torch.zeros(2, 1, 4, 5)
    mask[:, :, 1, 2], mask[:, :, 3, 4] = 1.0, 0.5
    plain, masked = energies.appearance(guided, reference, span), energies.appearance(guided, reference, span, mask)
    g, r = guided.double(), reference.double()
    for b in range(2):
        off = torch.tensor([[1 - cosine(g[b, :, y, x], r[b, :, y, x]) for x in range(5)] for y in range(4)])
        assert torch.isclose(plain[b].double(), off.mean() * span[b].double() ** 2, rtol=1e-5)
        assert torch.isclose(masked[b].double(), (off[1, 2] + 0.5 * off[3, 4]) / 1.5 * span[b].double() ** 2, rtol=1e-5)


def test_identity_compares_means_over_each_sides_mask():
    guided, reference = relation()
    mask, other = torch.zeros(2, 1, 4, 5), torch.zeros(2, 1, 4, 5)
    mask[:, :, 0], other[:, :, 2:] = 1.0, 1.0
    value = energies.identity(guided, reference, torch.tensor([2.0, 1.0]), mask, other)
    for b in range(2):
        expected = 1 - cosine(guided[b, :, 0].double().mean(1), reference[b, :, 2:].double().flatten(1).mean(1))
        assert torch.isclose(value[b].double(), expected * (4, 1)[b], rtol=1e-5)
    assert torch.allclose(energies.identity(guided, guided.flip(-1), torch.ones(2)), torch.zeros(2), atol=1e-6)


def test_correspondence_equals_its_formula_at_pixel_centres_and_leaves_out_what_does_not_count():
    guided, reference = relation()
    cells = torch.tensor([[[1, 0], [4, 3], [2, 2]], [[0, 1], [3, 3], [2, 0]]]), torch.tensor([[[3, 2], [0, 0], [1, 1]]] * 2)  # x, y
    start, end = ((c + 0.5) / torch.tensor([5.0, 4.0]) for c in cells)
    counts = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    value, bounded = (energy(guided, reference, start, end, counts) for energy in (energies.correspondence, energies.bounded_correspondence))
    g, r = guided.double(), reference.double()
    for b in range(2):
        terms, lefts = [], []
        for k in range(3):
            (px, py), (qx, qy) = cells[0][b, k].tolist(), cells[1][b, k].tolist()
            wanted = r[b, :, py, px]
            s_end, s_start = (cosine(wanted, g[b, :, y, x]) / 2 + 0.5 for x, y in ((qx, qy), (px, py)))
            terms.append((-s_end + s_start) / 2)
            lefts.append(2 - 2 * s_end + max(0, 2 * s_start - 1))
        for found, each in ((value, terms), (bounded, lefts)):
            kept = [t for t, c in zip(each, counts[b]) if c]
            assert torch.isclose(found[b].double(), sum(kept) / len(kept), rtol=1e-5)
    for energy in (energies.correspondence, energies.bounded_correspondence):
        assert (energy(guided, reference, start, end, torch.zeros(2, 3)) == 0).all()
