import pytest
import torch


@pytest.fixture
def inference_mode():
    """As the host runs nodes."""
    with torch.inference_mode():
        yield
