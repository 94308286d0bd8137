import pytest
import torch

from demo_world import World


@pytest.fixture
def inference_mode():
    """As the host runs nodes."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def w():
    """The demo model; files that need more of it have a `w` of their own."""
    with torch.inference_mode():
        yield World()
