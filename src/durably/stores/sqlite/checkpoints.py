"""Checkpoints: moving the write-ahead log into the database, beside the writer or, where quick, between its commits."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from durably.stores.sqlite.connections import Connections
from durably.stores.sqlite.database import Database
from durably.stores.sqlite.pacing import CheckpointSchedule

_CHECKPOINT: Final = "PRAGMA wal_checkpoint(PASSIVE)"

log = logging.getLogger("durably.sqlite")


class Checkpoints:
    """Takes the checkpoints of a database in this process, in place of SQLite itself."""

    def __init__(self, database: Database, connections: Connections) -> None:
        self._database = database
        self._connection = connections.writing
        self._lock = connections.lock
        self._schedule = CheckpointSchedule(self._connection)

    def saw_commit(self, length_told: int) -> None:
        """Take note of a commit that gave the log of events a text of this length."""
        self._schedule.saw_commit(length_told)

    def are_due(self) -> bool:
        """Tell, once each time, that the log has grown enough."""
        return self._schedule.is_due()

    def take_here(self) -> bool:
        """Take one in this thread, with the writer held; tell whether it could be afforded here."""
        if not self._schedule.is_affordable_in_place or not self._lock.acquire(blocking=False):
            return False
        try:
            with self._reported():
                self._database.files.check()
                started = time.perf_counter()
                is_taken, pages, moved = self._connection.execute(_CHECKPOINT).fetchone()
                # Taken: another process is at it.
                if not is_taken:
                    seconds = time.perf_counter() - started
                    self._schedule.saw_checkpoint(seconds, pages, is_whole=moved == pages)
        finally:
            self._lock.release()
        return True

    def take_apart(self) -> None:
        """Take one in a thread of its own, most of it beside the writer, on another connection.

        Then, with the writer held, the little that was written meanwhile: only a log that was copied to its end begins
        again at its start.
        """
        with self._reported():
            with closing(self._database.connect(writes=True)) as beside:
                started = time.perf_counter()
                is_taken, pages, _ = beside.execute(_CHECKPOINT).fetchone()
            if is_taken:
                return
            seconds = time.perf_counter() - started
            with self._lock:
                is_taken, left, moved = self._connection.execute(_CHECKPOINT).fetchone()
            self._schedule.saw_checkpoint(seconds, pages, is_whole=not is_taken and moved == left)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - those whose commits come next need the loop and the thread
            # Nothing is lost by it: the write-ahead log holds everything until the next one succeeds.
            log.warning("%s: %s", self._database.name, error)
