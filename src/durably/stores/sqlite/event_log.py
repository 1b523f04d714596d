"""The log of events: written with the commits they tell of, read by every process on the database.

A row holds what one transaction has to tell. SQLite has one writer at a time, so rows are numbered in the
order of their commits, and whoever reads on from a position misses nothing. Other processes' rows are
noticed by `PRAGMA data_version`, a look at shared memory that costs microseconds.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from typing import Final

from durably.core.event_codec import decode_own_row, decode_row, encode_events
from durably.core.events import DurablyEvent
from durably.core.store import Follower, LogPage, Position, Recorded, recorded_here
from durably.stores.sql import sqlite_queries as queries
from durably.stores.sql.overflow import Overflow
from durably.stores.sqlite import statements as sql
from durably.stores.sqlite.connections import Connections
from durably.stores.sqlite.group_commit import GroupCommit
from durably.stores.sqlite.unit import Transaction

_FLUSH_SECONDS: Final = 0.01
_WATCH_SECONDS: Final = 0.045
_ACTIVE_WATCH_SECONDS: Final = 0.01
_ACTIVE_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 1.0
_ROWS_PER_READ: Final = 500

log = logging.getLogger("durably.sqlite")


class EventLog:
    """Delivers every event of the database to one follower, in the order of the log."""

    def __init__(self) -> None:
        self.origin: Final = secrets.token_hex(8)
        self._follower: Follower | None = None
        self._overflow = Overflow(log)
        self._delivered = 0
        self._settled = 0
        self._flush: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._seen: tuple[str, int] | None = None
        self._last_change = 0.0
        self._writer: GroupCommit
        self._connections: Connections

    def attach(self, writer: GroupCommit, connections: Connections) -> None:
        """Connect the log to the writer that calls it and to the connections it looks through."""
        self._writer = writer
        self._connections = connections

    def announce(self, event: DurablyEvent) -> None:
        """Take an event that belongs to no write of its own; it goes with the next one, or soon by itself."""
        if not self._overflow.admits(event, self._writer.announced):
            return
        self._writer.announce(event)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush_announced)

    @property
    def is_behind(self) -> bool:
        """Tell whether rows of our own wait for others that could not be read."""
        return self._delivered < self._settled and self._follower is not None

    def write(self, transaction: Transaction, events: list[DurablyEvent]) -> int:
        """Store events as one row of a transaction and return its number."""
        text = encode_events(events)
        transaction.length_told += len(text)
        cursor = transaction.change(sql.INSERT_EVENTS, (self.origin, text, transaction.now))
        return cursor.lastrowid or 0

    def committed(self, row: int, announced: list[DurablyEvent], events: list[DurablyEvent]) -> None:
        """Deliver a row of our own, after those of other processes that stand before it."""
        self._overflow.tell()
        if self._follower is None:
            return
        self._settled = row
        try:
            if row > self._delivered + 1:
                self._deliver_foreign(before=row)
        except sqlite3.Error as error:
            # Nothing is passed over: this row stays undelivered as well and is read with them later.
            log.warning("cannot read events of other processes, trying again: %s", error)
            self._seen = None
            return
        self._delivered = row
        self._follower.take(recorded_here(row, announced, events))

    def follow(self, follower: Follower, *, watch: bool) -> int:
        """Begin to deliver what follows the returned row; `watch` tells that other processes may write too."""
        self._follower = follower
        (self._delivered,) = self._connections.reading.execute(queries.LAST_EVENT_ROW).fetchone()
        if watch:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(_WATCH_SECONDS, self._look, loop)
        return self._delivered

    def unfollow(self) -> None:
        """Stop delivering."""
        self._follower = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None

    def after(self, position: Position, limit: int) -> LogPage:
        """Return events that follow `position`, whole rows, until there are `limit`."""
        events: list[Recorded] = []
        for row, _, text in self._connections.reading.execute(queries.EVENTS_AFTER, (position.row - 1, _ROWS_PER_READ)):
            events += [recorded for recorded in decode_row(row, text, "elsewhere") if recorded.position > position]
            if len(events) >= limit:
                break
        # Last: what is cleaned away in between is then taken for a gap, and not for nothing.
        (first,) = self._connections.reading.execute(queries.FIRST_EVENT_ROW).fetchone()
        return LogPage(events, is_gapless=first <= position.row + 1)

    def _flush_announced(self) -> None:
        self._flush = None
        self._writer.flush_soon()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look whether another process wrote something; often while one does, seldom otherwise."""
        seconds = _WATCH_SECONDS
        try:
            version = self._data_version()
            if version != self._seen:
                self._seen = version
                self._last_change = loop.time()
                if self._deliver_foreign():
                    # There is more: the others get a turn in between.
                    self._seen, seconds = None, 0.0
                if self._follower is not None:
                    self._follower.others_wrote()
        except Exception:
            # Whatever it is, going on deaf would be worse than trying again.
            log.exception("cannot look for events of other processes, trying again")
            self._seen = None
            seconds = _RETRY_SECONDS
        if seconds and loop.time() - self._last_change < _ACTIVE_SECONDS:
            seconds = _ACTIVE_WATCH_SECONDS
        if self._follower is not None:
            self._watch = loop.call_later(seconds, self._look, loop)

    def _data_version(self) -> tuple[str, int]:
        # Commits of its own do not change what the writing connection sees, so a change there is always
        # somebody else's. While a thread uses it the reader has to do, and a change may be our own.
        if self._connections.lock.acquire(blocking=False):
            try:
                return "writer", self._connections.writing.execute("PRAGMA data_version").fetchone()[0]
            finally:
                self._connections.lock.release()
        return "reader", self._connections.reading.execute("PRAGMA data_version").fetchone()[0]

    def _deliver_foreign(self, before: int | None = None) -> bool:
        """Deliver rows of other processes; return whether there may be more."""
        follower = self._follower
        if follower is None:
            return False
        limit = _ROWS_PER_READ if before is None else before - self._delivered - 1
        rows = self._connections.reading.execute(queries.EVENTS_AFTER, (self._delivered, limit)).fetchall()
        if (rows[0][0] if rows else before or 0) > self._delivered + 1:
            follower.missed()
        is_listening = follower.is_listening
        for row, origin, text in rows:
            if row == before or (origin == self.origin and row > self._settled):
                # Committed by our writer and about to be delivered by `committed`.
                return False
            self._delivered = row
            if origin == self.origin:
                follower.take(decode_own_row(row, text))
            else:
                follower.take(decode_row(row, text, "elsewhere", is_listening=is_listening))
        return before is None and len(rows) == _ROWS_PER_READ
