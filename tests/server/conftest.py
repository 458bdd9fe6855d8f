"""A server that many tests share."""

from collections.abc import Iterator

import pytest
from served import Running, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of a small catalog, which no test changes."""
    with serving(tmp_path_factory.mktemp("served")) as running:
        yield running
