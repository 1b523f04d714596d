"""How a connection gets its turn to write, where several processes want it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final

_PAUSE_SECONDS: Final = 0.001


def begin_writing(connection: sqlite3.Connection | sqlite3.Cursor, may_wait: Callable[[float], bool]) -> None:
    """Begin a transaction as soon as no other one writes; else raise what SQLite says.

    `may_wait` is told how many seconds it has been waited for, and decides whether to go on. SQLite's own waiting soon
    looks every tenth of a second only: where others look more often, it never has its turn.
    """
    began: float | None = None
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            now = time.monotonic()
            if began is None:
                began = now
            if not may_wait(now - began):
                raise
        time.sleep(_PAUSE_SECONDS)


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Tell whether somebody else has what was asked for."""
    return (error.sqlite_errorcode & 0xFF) == sqlite3.SQLITE_BUSY
