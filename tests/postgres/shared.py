"""One server for a whole test run, started when the first test asks for a database."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache

import pytest

from tests.postgres.server import NoPostgres, PostgresServer, postgres_server


@lru_cache(maxsize=1)
def shared_server() -> PostgresServer:
    """Return the running server; it is stopped when the process ends. Skips the test when there is none."""
    stack = ExitStack()
    atexit.register(stack.close)
    try:
        return stack.enter_context(postgres_server())
    except NoPostgres as error:
        pytest.skip(str(error))


@contextmanager
def fresh_database() -> Iterator[str]:
    """Yield the URL of an empty database; it is dropped afterwards."""
    server = shared_server()
    url = server.create_database()
    try:
        yield url
    finally:
        server.sql(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")
