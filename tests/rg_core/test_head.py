"""The head against its formulas in float64, in the order in which the paper gives them."""
import pytest

from published_head import CHANNELS, SIZE, by_the_formulas, inputs, randomised
from readout_guidance_pack.rg_core.readout.head import ReadoutHead


@pytest.mark.parametrize("spatial,emb_channels,tanh", [(True, 48, True), (True, 48, False), (True, None, True),
                                                       (False, 48, True), (False, None, True)])
def test_head_equals_the_formulas(spatial, emb_channels, tanh):
    head = randomised(ReadoutHead("pose", CHANNELS, projection_dim=128, emb_channels=emb_channels,
                                  out_channels=3 if spatial else None, tanh=tanh))
    features, emb = inputs()
    expected = by_the_formulas({k: v.double() for k, v in head.state_dict().items()}, features, emb, SIZE, spatial, tanh)
    readout = head([f.float() for f in features], emb.float(), SIZE)
    assert readout.shape == (2, 3 if spatial else 128, *SIZE)
    assert ((readout - expected).norm() / expected.norm()).item() < 1e-5


def test_features_of_another_model_are_refused():
    head = ReadoutHead("pose", CHANNELS, projection_dim=128, emb_channels=48)
    features, emb = inputs()
    with pytest.raises(ValueError, match="zip"):
        head([f.float() for f in features[:2]], emb.float(), SIZE)
