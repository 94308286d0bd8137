"""What targets show of themselves."""
import pytest
import torch

from readout_guidance_pack.rg_core.features.raw_features import Features
from readout_guidance_pack.rg_core.features.taps import Reading
from readout_guidance_pack.rg_core.guidance import gradients
from readout_guidance_pack.rg_core.guidance.targets import Appearance, Color, Drag, Identity, Spatial, Target
from readout_guidance_pack.rg_core.readout import views
from readout_guidance_pack.rg_core.readout.head import ReadoutHead


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seen(target: Target, features: list[torch.Tensor], reference=None) -> views.View:
    found = []
    reading = Reading(drawn(len(features[0]), 16), features)
    gradients.at_taps(reading, [target.prepared((8, 6), torch.device("cpu"))], torch.ones(len(features[0])), [reference], views=found)
    view, = found
    return view


@pytest.fixture
def features() -> list[torch.Tensor]:
    return [drawn(2, 4, 8, 6, seed=1), drawn(2, 8, 4, 3, seed=2)]


def test_a_map_shows_what_is_wanted_and_read_in_0_to_1(features):
    torch.manual_seed(0)
    head = ReadoutHead("depth", [4, 8], projection_dim=128, emb_channels=16, hidden=(32, 16), control_range=(-1.0, 1.0))
    wanted = torch.rand(1, 3, 8, 6)
    view = seen(Spatial(name="depth", head=head, image=wanted), features)
    assert torch.allclose(view.wanted, wanted, atol=1e-6)
    with torch.no_grad():
        read = head(features, drawn(2, 16), (8, 6))
    assert torch.allclose(view.read, ((read + 1) / 2).clamp(0, 1), atol=1e-6)
    assert view.pull.shape == (2, 1, 8, 6) and torch.allclose(view.pull.mean((1, 2, 3)), torch.ones(2))


def test_a_target_pulls_where_its_mask_is(features):
    class Here(Target):
        def energy(self, readout, span, reference):
            return readout[:, :, :4].square().mean((1, 2, 3))

    view = seen(Here(name="here", head=Features(1)), features[:1])
    assert view.wanted is None and view.read is None
    assert view.pull[:, :, :4].min() > 0 or view.pull[:, :, :4].mean() > 100 * view.pull[:, :, 4:].mean()


def test_likenesses_show_where_images_are_alike(features):
    reference = Features(1)(features, None, (8, 6))
    alike = seen(Appearance(name="appearance", head=Features(1)), features, reference).read
    assert torch.allclose(alike, torch.ones(2, 1, 8, 6), atol=1e-5)
    other = reference.clone()
    other[:, :, :, :3] *= -1
    differs = seen(Appearance(name="appearance", head=Features(1)), features, other).read
    assert torch.allclose(differs[..., 3:], torch.ones(2, 1, 8, 3), atol=1e-5) and differs[..., :3].max() < 1e-5
    assert seen(Identity(name="identity", head=Features(1)), features, reference).read.shape == (2, 1, 8, 6)


def test_a_drag_shows_where_its_point_should_be_and_is():
    reference = drawn(1, 32, 8, 6, seed=3)
    moved = reference.roll(2, -1)  # two to the right
    paths = torch.tensor([[[1.5 / 6, 3.5 / 8], [4.5 / 6, 5.5 / 8]]])
    view = seen(Drag(name="drag", head=Features(1), paths=paths), [moved], Features(1)([reference], None, (8, 6)))
    assert view.wanted[0, 0].nonzero().tolist() == [[5, 4]]
    assert view.read[0, 0].nonzero().tolist() == [[3, 3]]


def test_colors_show_their_grid():
    found, wanted = [], drawn(1, 4, 16, 12, seed=5)
    target = Color(name="color", image=wanted, cells=3).prepared((16, 12), torch.device("cpu"))
    predicted = drawn(2, 4, 16, 12, seed=6)
    gradients.at_prediction(predicted, lambda x: x, [target], torch.ones(2), [None], found)
    view, = found
    assert view.latent and view.wanted.shape == (1, 4, 4, 3)
    assert torch.allclose(view.read[1, :, 0, 0], predicted[1, :, :4, :4].mean((1, 2)), atol=1e-6)
    assert view.energy.shape == (2,) and view.pull.shape == (2, 1, 16, 12)
