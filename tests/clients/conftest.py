"""One real server for all clients."""
import pytest

from tools.server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("server")
    with Server(home / "output", home=home) as running:
        yield running
