"""Group commit: what piles up while a round trip is under way goes out as one statement and one commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

import asyncpg

from durably.core.errors import StoreError, StoreUnavailableError, ValueRefusedError
from durably.core.events import DurablyEvent
from durably.stores.postgres.batch import Batch, is_refused
from durably.stores.postgres.connections import Connection, Server
from durably.stores.postgres.event_log import EventLog
from durably.stores.postgres.hints import Hints
from durably.stores.postgres.marks import Found, Mark, Marks, WriteInDoubtError
from durably.tasks import begin_task

log = logging.getLogger("durably.postgres")

_RETRY_SECONDS: Final = 1.0
_LARGEST_BATCH: Final = 1_000
_SMALLEST_GROUP: Final = 20
_LARGEST_MESSAGE: Final = 1_000_000_000
"""Beyond about this size the server ends the connection without a word of why."""

Unit = Callable[[Batch], None]
"""Adds its work to a batch; raises instead when it cannot be done."""


class _Waiting:
    __slots__ = ("future", "unit")

    def __init__(self, unit: Unit, future: asyncio.Future[bool]) -> None:
        self.unit = unit
        self.future = future


class GroupCommit:
    """Writes the batches of this process, one after the other."""

    def __init__(
        self, server: Server, marks: Marks, events: EventLog, hints: Hints, preserves_steps: Callable[[], bool]
    ) -> None:
        self._server = server
        self._marks = marks
        self._events = events
        self._hints = hints
        self._preserves_steps = preserves_steps
        self._waiting: list[_Waiting] = []
        self._announced: list[DurablyEvent] = []
        self._retry: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def run(self, unit: Unit) -> asyncio.Future[bool]:
        """Write `unit` with whatever else waits; tells whether its fences held once that is committed."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(unit, future))
        self.flush_soon()
        return future

    def announce(self, event: DurablyEvent) -> None:
        """Add an event to the next batch; `flush_soon` sees to it that there is one."""
        self._announced.append(event)

    @property
    def announced(self) -> int:
        """Return how many events wait for a batch."""
        return len(self._announced)

    def take_announced(self) -> list[DurablyEvent]:
        """Return the events that wait for a batch, and wait with them no more."""
        announced, self._announced = self._announced, []
        return announced

    def flush_soon(self) -> None:
        """Begin to write in the next turn of the loop, unless that is under way."""
        if self._task is None:
            self._task = begin_task(self._serve(), "durably-postgres-writer")

    async def drain(self) -> None:
        """Return when nothing waits any more, or the database does not take what was announced."""
        self._retry_now()
        while self._task is not None:
            await asyncio.wait([self._task])
        self._forget_retry()
        if self._announced:
            log.warning("%d events are missing in the log of events: the end came first", len(self._announced))

    async def _serve(self) -> None:
        take_turns = False
        try:
            while self._waiting or (self._announced and self._retry is None):
                waiting = self._take_waiting(together=take_turns)
                await self._write(waiting, self.take_announced())
                # Two groups that take turns keep both sides busy: one goes on while the other is written.
                take_turns = len(self._waiting) >= _SMALLEST_GROUP
                if not take_turns:
                    # Whoever was told just now may have more to write: together they are one commit.
                    await asyncio.sleep(0)
        finally:
            # In the same turn in which it saw that nothing waits: who comes next begins anew.
            self._task = None

    def _take_waiting(self, *, together: bool) -> list[_Waiting]:
        count = len(self._waiting)
        if not together and count >= 2 * _SMALLEST_GROUP:
            count = (count + 1) // 2
        count = min(count, _LARGEST_BATCH)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    async def _write(self, waiting: list[_Waiting], announced: list[DurablyEvent]) -> None:
        """Write a batch and tell every waiter; one that cannot be written as a whole goes in halves."""
        try:
            held = await self._commit(waiting, announced)
        except Exception as error:  # noqa: BLE001 - the waiters get it, whatever it is
            if len(waiting) + bool(announced) == 1 or isinstance(error, StoreUnavailableError):
                _fail(waiting, error)
                if announced:
                    self._not_told(announced, error)
                return
            held = False
        if held or (len(waiting) == 1 and not announced):
            for each in waiting:
                if not each.future.done():
                    each.future.set_result(held)
            return
        half = len(waiting) // 2
        for part, events in (([], announced), (waiting[:half], []), (waiting[half:], [])):
            if part or events:
                await self._write(part, events)

    def _not_told(self, announced: list[DurablyEvent], error: Exception) -> None:
        if isinstance(error, StoreUnavailableError) and not isinstance(error, WriteInDoubtError):
            self._announced[:0] = announced
            # At once would not help. Whatever else is written takes them along.
            if self._retry is None:
                self._retry = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._retry_now)
            return
        # Kept, they would be told twice, or be refused again and with them everything that is told from now on.
        log.warning("%d events are missing in the log of events: %s", len(announced), error)

    def _retry_now(self) -> None:
        self._forget_retry()
        self.flush_soon()

    def _forget_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def _commit(self, waiting: list[_Waiting], announced: list[DurablyEvent]) -> bool:
        batch = Batch(self._preserves_steps(), announced)
        for each in waiting:
            try:
                each.unit(batch)
            except Exception as refusal:  # noqa: BLE001 - refused before it added anything
                _fail([each], refusal)
        return batch.is_empty or await self._commit_batch(batch)

    async def _commit_batch(self, batch: Batch) -> bool:
        """Write a batch in one transaction; tell whether its fences held.

        Raises our errors; then nothing of it was written, or nobody knows.
        """
        hint = self._hints.carry(batch.told)

        async def attempt(connection: Connection, mark: Mark) -> int:
            statement, values = batch.statement(mark, hint=hint)
            try:
                (row,) = await self._server.fetch(connection, statement, *values)
            except Exception as error:
                if _size(values) > _LARGEST_MESSAGE:
                    raise ValueRefusedError(
                        f"{self._server.name} takes no value of this size ({str(error) or type(error).__name__})"
                    ) from error
                raise
            position: int = row["position"]
            return position

        async def recover(found: Found) -> int:
            return found.position

        try:
            position = await self._marks.write(attempt, recover)
        except StoreError as error:
            if hint is not None:
                self._hints.give(batch.told, lost=hint)
            cause = error.__cause__
            if isinstance(cause, asyncpg.NotNullViolationError) and is_refused(cause):
                return False
            raise
        self._events.committed(position, batch.announced, batch.told, is_told=hint is not None)
        return True


def _fail(waiting: list[_Waiting], error: BaseException) -> None:
    for each in waiting:
        if not each.future.done():
            each.future.set_exception(error)


def _size(values: Iterable[Any]) -> int:
    return sum(
        len(value) if isinstance(value, str) else _size(value) for value in values if isinstance(value, str | tuple)
    )


def is_duplicate(error: StoreError) -> bool:
    """Tell whether a write failed because what it stores is there already."""
    return isinstance(error.__cause__, asyncpg.UniqueViolationError)
