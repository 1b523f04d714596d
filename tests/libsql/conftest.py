"""A libSQL server of each test's own, and someone between it and the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.libsql.middleman import Middleman, middleman
from tests.libsql.server import LibsqlServer, running_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LibsqlServer]:
    with running_server(tmp_path) as running:
        yield running


@pytest.fixture
async def between(server: LibsqlServer) -> AsyncIterator[Middleman]:
    async with middleman(server.port) as running:
        yield running


@pytest.fixture
def database(server: LibsqlServer, between: Middleman) -> str:
    """Return the server's own URL; whoever stands between outlives the instances that go through it."""
    return server.url
