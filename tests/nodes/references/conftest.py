"""The demo model, with references."""
import pytest
import torch

from relations import World


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        yield World()
