"""Group commit: what piles up while a round trip is under way goes out as one statement and one commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import asyncpg

from durably.core.errors import StoreError, StoreUnavailableError
from durably.core.events import DurablyEvent
from durably.stores.postgres.batch import Batch
from durably.stores.postgres.connections import Connection, Server
from durably.stores.postgres.event_log import EventLog
from durably.stores.postgres.marks import Found, Mark, Marks

T = TypeVar("T")

log = logging.getLogger("durably.postgres")

_LARGEST_BATCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch: which of its changes held, which of its runs are new."""

    position: int | None
    held: frozenset[int] = field(default_factory=frozenset)
    created: frozenset[str] = field(default_factory=frozenset)


Unit = Callable[[Batch], Callable[[Outcome], T]]
"""Adds its work to a batch, and returns what reads its own result from the outcome."""


class _Waiting(Generic[T]):
    __slots__ = ("future", "unit")

    def __init__(self, unit: Unit[T], future: asyncio.Future[T]) -> None:
        self.unit = unit
        self.future = future


class GroupCommit:
    """Writes the batches of this process, one after the other."""

    def __init__(self, server: Server, marks: Marks, events: EventLog, preserves_steps: Callable[[], bool]) -> None:
        self._server = server
        self._marks = marks
        self._events = events
        self._preserves_steps = preserves_steps
        self._waiting: list[_Waiting[Any]] = []
        self._announced: list[DurablyEvent] = []
        self._task: asyncio.Task[None] | None = None

    async def run(self, unit: Unit[T]) -> T:
        """Write `unit` with whatever else waits and return its result once that is committed."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(unit, future))
        self.flush_soon()
        return await future

    def announce(self, event: DurablyEvent) -> None:
        """Add an event to the next batch; `flush_soon` sees to it that there is one."""
        self._announced.append(event)

    @property
    def announced(self) -> int:
        """Return how many events wait for a batch."""
        return len(self._announced)

    def flush_soon(self) -> None:
        """Begin to write in the next turn of the loop, unless that is under way."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._serve(), name="durably-postgres-writer")

    async def drain(self) -> None:
        """Return when nothing waits any more."""
        self.flush_soon()
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _serve(self) -> None:
        try:
            while self._waiting or self._announced:
                waiting, self._waiting = self._waiting[:_LARGEST_BATCH], self._waiting[_LARGEST_BATCH:]
                announced, self._announced = self._announced, []
                await self._write(waiting, announced)
        finally:
            # In the same turn in which it saw that nothing waits: who comes next begins anew.
            self._task = None

    async def _write(self, waiting: list[_Waiting[Any]], announced: list[DurablyEvent]) -> None:
        """Write a batch and tell every waiter; one that cannot be written as a whole goes unit by unit."""
        try:
            outcome, readers = await self._commit(waiting, announced)
        except Exception as error:  # noqa: BLE001 - the waiters get it, whatever it is
            is_alone = len(waiting) + bool(announced) == 1
            if is_alone or isinstance(error, StoreUnavailableError):
                _fail(waiting, error)
                if announced:
                    log.warning("%d events are missing in the log of events: %s", len(announced), error)
                return
            await self._write([], announced)
            for each in waiting:
                await self._write([each], [])
            return
        for each, read in readers:
            if not each.future.done():
                each.future.set_result(read(outcome))

    async def _commit(
        self, waiting: list[_Waiting[Any]], announced: list[DurablyEvent]
    ) -> tuple[Outcome, list[tuple[_Waiting[Any], Callable[[Outcome], Any]]]]:
        batch = Batch(self._preserves_steps(), announced=announced)
        readers: list[tuple[_Waiting[Any], Callable[[Outcome], Any]]] = []
        for each in waiting:
            try:
                readers.append((each, each.unit(batch)))
            except BaseException as refusal:  # noqa: BLE001 - refused before it added anything
                _fail([each], refusal)
        batch.drop_useless_steps()
        if batch.is_empty:
            return Outcome(None), readers
        outcome = await write_batch(self._server, self._marks, self._events, batch)
        return outcome, readers


async def write_batch(server: Server, marks: Marks, events: EventLog, batch: Batch) -> Outcome:
    """Write a batch in one transaction. Raises our errors; then nothing of it was written, or nobody knows."""

    async def attempt(connection: Connection, mark: Mark) -> Outcome:
        statement, values = batch.statement(mark.origin, mark.number)
        (row,) = await server.fetch(connection, statement, *values)
        return Outcome(row["position"], frozenset(row["held"] or ()), frozenset(row["created"] or ()))

    async def recover(found: Found) -> Outcome:
        return batch_outcome(batch, found)

    outcome = await marks.write(attempt, recover)
    if outcome.position is not None:
        told = [
            event
            for event, place, run_id in batch.told
            if (place is None or place in outcome.held)
            and (run_id is None or not batch.may_exist or run_id in outcome.created)
        ]
        events.committed(outcome.position, batch.announced, told)
    return outcome


def batch_outcome(batch: Batch, found: Found) -> Outcome:
    """Return what the stored events of a batch say about it."""
    stored = {_identity(event) for event in found.events}
    is_told = {place for _, place, _ in batch.told if place is not None}
    held = {place for event, place, _ in batch.told if place is not None and _identity(event) in stored}
    # Progress alone leaves no trace; whoever waits for it only wants to know that it was tried.
    held |= {change.place for change in batch.changes.values()} - is_told
    created = {run_id for event, _, run_id in batch.told if run_id is not None and _identity(event) in stored}
    return Outcome(found.position, frozenset(held), frozenset(created))


def _identity(event: DurablyEvent) -> tuple[Any, ...]:
    return event.type, getattr(event, "run_id", None), getattr(event, "step_name", None)


def _fail(waiting: list[_Waiting[Any]], error: BaseException) -> None:
    for each in waiting:
        if not each.future.done():
            each.future.set_exception(error)


def is_duplicate(error: StoreError) -> bool:
    """Tell whether a write failed because what it stores is there already."""
    return isinstance(error.__cause__, asyncpg.UniqueViolationError)
