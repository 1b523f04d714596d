"""Looks into a SQLite file beside the library; of a database that is no SQLite file they tell nothing.

Another database checks its own integrity, and a suspended client of it locks only its own run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PREFIX = "sqlite:///"


def check_integrity(database: str) -> None:
    """Fail when SQLite finds damage."""
    with _connected(database) as connection:
        if connection is None:
            return
        found = connection.execute("PRAGMA integrity_check").fetchall()
        assert found == [("ok",)], f"the database is damaged: {found}"
        assert not connection.execute("PRAGMA foreign_key_check").fetchall()


def is_locked(database: str) -> bool:
    """Tell whether somebody holds the write lock."""
    with _connected(database) as connection:
        if connection is None:
            return False
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.rollback()
        return False


def watch_holders(database: str) -> None:
    """Let the database itself note whenever a second run of a key becomes leased."""
    with _connected(database) as connection:
        if connection is not None:
            connection.executescript("""
                CREATE TABLE crash_two_holders (concurrency_key TEXT, first TEXT, second TEXT);
                CREATE TRIGGER crash_watch_holders AFTER UPDATE OF status ON durably_runs WHEN NEW.status = 'leased'
                BEGIN
                  INSERT INTO crash_two_holders
                  SELECT NEW.concurrency_key, id, NEW.id FROM durably_runs
                  WHERE status = 'leased' AND concurrency_key = NEW.concurrency_key AND id <> NEW.id;
                END;
            """)


def two_holders(database: str) -> list[Any]:
    """Return what `watch_holders` has noted."""
    with _connected(database) as connection:
        return [] if connection is None else connection.execute("SELECT * FROM crash_two_holders").fetchall()


@contextmanager
def _connected(database: str) -> Iterator[sqlite3.Connection | None]:
    if not database.startswith(_PREFIX):
        yield None
        return
    connection = sqlite3.connect(database.removeprefix(_PREFIX), timeout=0, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()
