"""The limit that the machine sets: the statements of one step in a bare loop of the standard library's sqlite3.

One step is one row inserted and one run updated, in the project's own tables with all their indexes.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from durably.core.clock import to_text
from durably.core.ulid import new_ulid
from durably.engine.system_clock import SystemClock
from durably.stores.sqlite import schema
from durably.stores.sqlite import statements as sql

Synchronous = Literal["FULL", "NORMAL"]


@contextmanager
def fresh_file(directory: Path, query: str = "") -> Iterator[str]:
    """Give the URL of a database file that does not exist yet; removed afterwards."""
    with TemporaryDirectory(dir=directory) as folder:
        yield f"sqlite:///{folder}/bench.db{'?' + query if query else ''}"


def file_of(url: str) -> Path:
    """Return the file of a `sqlite:///` URL."""
    return Path(url.removeprefix("sqlite:///").partition("?")[0])


def open_raw(file: Path, synchronous: Synchronous) -> sqlite3.Connection:
    """Open a connection to a file with the project's tables."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    schema.migrate(connection, SystemClock(), str(file))
    return connection


class RawSteps:
    """A leased run in a file, and the statements that record steps of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._now = to_text(SystemClock().now())
        self._run_id = new_ulid(0)
        self._taken = 0
        self._execute("BEGIN IMMEDIATE")
        self._execute(sql.INSERT_RUN, (self._run_id, "raw", "1", None, None, "{}", self._now, self._now))
        self._execute(sql.LEASE_RUN, ("raw", self._now, self._now, self._now, self._run_id))
        self._execute("COMMIT")

    def prepare(self, count: int) -> list[tuple[tuple[object, ...], tuple[object, ...]]]:
        """Return the parameters of `count` steps, so that making them is not measured."""
        now, run_id, first = self._now, self._run_id, self._taken
        self._taken += count
        return [
            (
                (n + 1, None, now, run_id, 1),
                (new_ulid(0), run_id, f"step-{n}", n, "completed", f'{{"i":{n}}}', None, now, now),
            )
            for n in range(first, first + count)
        ]

    def record(self, parameters: list[tuple[tuple[object, ...], tuple[object, ...]]]) -> None:
        """Record steps in one transaction."""
        execute = self._execute
        execute("BEGIN IMMEDIATE")
        for advance, insert in parameters:
            execute(sql.ADVANCE_RUN, advance)
            execute(sql.INSERT_STEP, insert)
        execute("COMMIT")


def raw_steps(
    directory: Path, synchronous: Synchronous, *, per_commit: int, steps: int, looks_at_log: bool = False
) -> float:
    """Return how many steps per second the bare loop records: F1, F50 and N1 of the tables."""
    with fresh_file(directory) as url, closing(open_raw(file_of(url), synchronous)) as connection:
        raw = RawSteps(connection)
        groups = [raw.prepare(per_commit) for _ in range(steps // per_commit)]
        log = f"{file_of(url)}-wal"
        started = time.perf_counter()
        for group in groups:
            if looks_at_log:
                os.stat(log)  # noqa: PTH116 - a Path would be a part of what is measured
            raw.record(group)
        return steps / (time.perf_counter() - started)


def raw_triggers(directory: Path, batches: int, size: int) -> float:
    """Return how many pending runs per second `executemany` alone stores: ids, events and results cost nothing here."""
    with fresh_file(directory) as url, closing(open_raw(file_of(url), "FULL")) as connection:
        now = to_text(SystemClock().now())
        rows = [(new_ulid(0), "steps", "1", None, None, "{}", now, now) for _ in range(batches * size)]
        started = time.perf_counter()
        for first in range(0, len(rows), size):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(sql.INSERT_RUN, rows[first : first + size])
            connection.execute("COMMIT")
        return len(rows) / (time.perf_counter() - started)


def raw_commits(directory: Path, count: int, pause: float) -> list[float]:
    """Return the seconds that single steps take with a pause before each, as an idle program has them."""
    with fresh_file(directory) as url, closing(open_raw(file_of(url), "FULL")) as connection:
        raw = RawSteps(connection)
        taken = []
        for _ in range(count):
            group = raw.prepare(1)
            time.sleep(pause)
            started = time.perf_counter()
            raw.record(group)
            taken.append(time.perf_counter() - started)
        return taken
