"""The databases that the contract runs against: a name, and what makes a fresh one.

A new database is one line in `DATABASES`: a context manager that takes an empty directory and yields the URL
of a database that nobody has used, or skips with a reason when there is none to be had. `PRIVATE` names those
that only the instance that opened them can see; tests of two processes pass them over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from tests.libsql.server import libsql_database
from tests.postgres.shared import fresh_database


@contextmanager
def sqlite_file(directory: Path) -> Iterator[str]:
    """Yield the URL of a file."""
    yield f"sqlite:///{directory / 'contract.db'}"


@contextmanager
def sqlite_memory(directory: Path) -> Iterator[str]:
    """Yield the URL of a database in memory."""
    yield "sqlite://:memory:"


@contextmanager
def postgres(directory: Path) -> Iterator[str]:
    """Yield the URL of a database on a server that the tests start."""
    with fresh_database() as url:
        yield url


DATABASES: Final[dict[str, Callable[[Path], AbstractContextManager[str]]]] = {
    "sqlite": sqlite_file,
    "sqlite-memory": sqlite_memory,
    "postgres": postgres,
    "libsql": libsql_database,
}
PRIVATE: Final = frozenset({"sqlite-memory"})
