"""The trainer learns what can be learnt, on features made for it."""
import torch

from readout_guidance_pack.rg_core.features import taps
from readout_guidance_pack.rg_core.guidance import energies
from readout_guidance_pack.rg_core.readout.head import ReadoutHead
from readout_guidance_pack.rg_core.training import training

SIZE = (8, 8)


def head(kind):
    torch.manual_seed(0)
    return ReadoutHead(kind, [8], projection_dim=128, emb_channels=None, out_channels=None)


def reader(features):
    """Features that are the latents themselves under noise."""
    rng = torch.Generator().manual_seed(0)

    def read(pick, t):
        x = features[pick]
        return taps.Reading(torch.zeros(len(pick), 4), [x + 0.3 * torch.randn(x.shape, generator=rng)])

    return read


def test_correspondence_is_learnt_from_tracks():
    """Each image holds four marks at random places in channels of their own, under clutter in the others."""
    rng = torch.Generator().manual_seed(1)
    count, marks = 64, torch.randn(4, 4, generator=rng)
    images, tracks = torch.zeros(2, count, 8, *SIZE), torch.zeros(count, 2, 4, 2)
    images[:, :, 4:] = 3 * torch.randn(2, count, 4, *SIZE, generator=rng)
    for side in range(2):
        for i in range(count):
            for k, cell in enumerate(torch.randperm(64, generator=rng)[:4].tolist()):
                images[side, i, :4, cell // 8, cell % 8] = 3 * marks[k]
                tracks[i, side, k] = torch.tensor([cell % 8 + 0.5, cell // 8 + 0.5]) / 8
    pairs = torch.stack([torch.arange(count), torch.arange(count) + count], 1)
    read, network = reader(images.flatten(0, 1)), head("correspondence")
    before = training.point_accuracy(network, read, pairs, tracks, 0, SIZE, 0.01)
    losses = training.correspondence_losses(network, read, pairs, tracks, 10, SIZE)
    training.train({"correspondence": network}, losses, 60, lr=3e-3, report=lambda text: None)
    after = training.point_accuracy(network, read, pairs, tracks, 0, SIZE, 0.01)
    assert after > 0.8 > before


def test_identity_is_learnt_from_triplets_wherever_it_stands():
    """Someone is a few pixels in one of two channels; the clutter in the others is the negative's as well."""
    rng = torch.Generator().manual_seed(2)
    count = 96
    who = torch.randint(2, (count,), generator=rng)
    ground = torch.randn(2, count, 6, *SIZE, generator=rng)
    images = []
    for person, behind in ((who, 0), (who, 1), (1 - who, 0)):
        x = torch.cat([torch.zeros(count, 2, *SIZE), ground[behind]], 1)
        for i in range(count):
            for cell in torch.randperm(64, generator=rng)[:8].tolist():
                x[i, int(person[i]), cell // 8, cell % 8] = 2
        images.append(x)
    triplets = torch.arange(3 * count).view(3, count).T
    read, network = reader(torch.cat(images)), head("identity")
    losses = training.triplet_losses(network, read, triplets, energies.identity, 10, SIZE)
    before = training.ordered(network, read, triplets, energies.identity, 0, SIZE)
    training.train({"identity": network}, losses, 80, lr=3e-3, report=lambda text: None)
    assert training.ordered(network, read, triplets, energies.identity, 0, SIZE) > 0.9 > before


def test_rescaled_features_read_alike_however_large_they_are():
    """Each channel is a thousand times larger than the last, and far from zero: what is read is to be the same."""
    rng = torch.Generator().manual_seed(3)
    plain = [torch.randn(6, 8, 5, 4, generator=rng), torch.randn(6, 3, 2, 2, generator=rng)]
    large = [f * 1000.0**torch.arange(f.shape[1]).remainder(3)[:, None, None] + 40 * torch.arange(f.shape[1])[:, None, None] for f in plain]
    readouts = []
    for features in (plain, large):
        torch.manual_seed(0)
        network = ReadoutHead("pose", [8, 3], projection_dim=128, emb_channels=None)
        found = training.deviations(taps.Reading(torch.zeros(1, 4), [f[i:i + 1] for f in features]) for i in range(6))
        flat = [f.double().movedim(1, 0).flatten(1) for f in features]
        for (mean, deviation), x in zip(found, flat, strict=True):
            assert torch.allclose(mean.double(), x.mean(1), rtol=1e-5) and torch.allclose(deviation.double(), x.std(1, correction=0), rtol=1e-4)
        for block, (mean, deviation) in zip(network.bottleneck_layers, found, strict=True):
            block.rescale(mean, deviation)
        readouts.append(network(features, torch.zeros(6, 4), (5, 4)))
    assert torch.allclose(*readouts, atol=1e-3)


def test_the_deviation_of_a_channel_is_no_smaller_than_its_rounding():
    steady = torch.full((1, 2, 3, 3), 512.0)
    (_, deviation), = training.deviations([taps.Reading(torch.zeros(1, 4), [steady])])
    assert torch.equal(deviation, torch.full((2,), 2.0))
