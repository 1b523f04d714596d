"""One server for a whole test run, started when the first test asks for a database."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Final

import pytest

from tests.postgres.server import NoPostgres, PostgresServer, new_database_name, postgres_server

_END_SESSIONS: Final = "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = '{name}'"
_EMPTY: Final = """
SET client_min_messages = warning;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
SELECT pg_stat_reset();
"""
_empty_databases: Final[list[str]] = []


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
    """Yield the URL of an empty database that nobody has heard of; afterwards nobody can reach it by that.

    It has served other tests: to make and to drop one takes longer than most tests. A test that changes more than
    the schema `public` needs a database that it makes itself.
    """
    server = shared_server()
    url = _empty_databases.pop() if _empty_databases else server.create_database()
    yield url
    _empty_databases.append(_emptied(server, url))


def _emptied(server: PostgresServer, url: str) -> str:
    """End all sessions, rename the database and empty it; return its new URL."""
    name, new_name = url.rpartition("/")[2], new_database_name()
    server.sql(f"{_END_SESSIONS.format(name=name)}; ALTER DATABASE {name} RENAME TO {new_name}")
    server.sql(_EMPTY, new_name)
    return server.url(new_name)
