"""A unit of work, which is a function of a transaction; what it sees, and how its writer waits for it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from durably.core.clock import Clock, to_text
from durably.core.events import DurablyEvent

T = TypeVar("T")


class Transaction:
    """What a unit of work sees: the connection, one instant for all, and a place for events."""

    __slots__ = ("change", "connection", "events", "execute", "instant", "length_told", "now")

    def __init__(self, connection: sqlite3.Connection, cursor: sqlite3.Cursor, clock: Clock) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.change = cursor.execute
        """Like `execute`, for what returns no rows: on one cursor for all, which saves making one each time."""
        self.instant = clock.now()
        self.now = to_text(self.instant)
        self.events: list[DurablyEvent] = []
        self.length_told = 0
        """How long the text is that the log of events was given."""


Unit = Callable[[Transaction], T]


class Write(Generic[T]):
    """A unit on its way to a transaction: awaiting it gives its result once that is committed, or raises its error."""

    __slots__ = ("_future", "_is_done", "_outcome", "unit")

    def __init__(self, unit: Unit[T]) -> None:
        self.unit = unit
        self._is_done = False
        self._outcome: Any = None
        self._future: asyncio.Future[T] | None = None

    def settle(self, outcome: T | BaseException) -> None:
        """Tell whoever awaits it the result, or the error."""
        future = self._future
        if future is None:
            self._outcome, self._is_done = outcome, True
        elif not future.done():
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def as_future(self) -> asyncio.Future[T]:
        """Return what can be awaited in several places, and belongs to no task that is cancelled with its loop."""
        self._future = asyncio.get_running_loop().create_future()
        return self._future

    def __await__(self) -> Generator[Any, None, T]:
        # The commit stands before this task in the loop's queue: done in place, it is over when the task is back.
        # A future would have it wait one turn more, for the callback that wakes it.
        yield
        if not self._is_done:
            return (yield from self.as_future())
        # Not kept: an error holds the frames that it passes, this one too.
        outcome, self._outcome = self._outcome, None
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            result: T = outcome
            return result
        finally:
            del outcome
