"""Databases and servers for the tests of what only PostgreSQL has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.postgres.proxy import Proxy, proxy_to
from tests.postgres.server import NoPostgres, PostgresServer, postgres_server
from tests.postgres.shared import fresh_database, shared_server


@pytest.fixture
def database() -> Iterator[str]:
    """Yield the URL of a fresh database on the server that all tests share."""
    with fresh_database() as url:
        yield url


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    """Yield a wire to the shared server."""
    async with proxy_to(shared_server().port) as wire:
        yield wire


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """Yield a server for one test, which loses nothing in a crash."""
    try:
        with postgres_server(is_safe=True) as server:
            yield server
    except NoPostgres as error:
        pytest.skip(str(error))
