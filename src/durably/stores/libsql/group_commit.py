"""Group commit over the network: what piles up while a request is under way goes out as one transaction.

One request is under way at a time, so the rows that this process adds to the event log come back in their
order, together with those of others that stand between them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from durably.core.errors import DurablyError, StoreError, StoreUnavailableError, ValueRefusedError
from durably.core.event_codec import decode_events
from durably.core.events import DurablyEvent
from durably.core.store import Source
from durably.stores.libsql.client import Client
from durably.stores.libsql.hrana import Rows, Statement, StatementFailedError
from durably.stores.libsql.unit import Part, Unit
from durably.stores.libsql.writes import Writes
from durably.tasks import begin_task

T = TypeVar("T")

log = logging.getLogger("durably.libsql")

BUSY_SECONDS: Final = 5.0
"""How long a transaction is tried that meets others."""

_BUSY_PAUSE_SECONDS: Final = (0.005, 0.05)
_MOST_UNITS: Final = 200
_MOST_EVENTS: Final = 1_000


class _Waiting(NamedTuple):
    unit: Unit[Any] | Part[Any]
    future: asyncio.Future[Any]


class _Group(NamedTuple):
    """A unit and who waits for it: one for all of its result, or one for each item of it."""

    unit: Unit[Any]
    futures: list[asyncio.Future[Any]]
    is_shared: bool


class Told(NamedTuple):
    """A row that a transaction added to the event log."""

    row: int
    events: Sequence[DurablyEvent]
    source: Source


class EventRows(Protocol):
    """The event log, as the writer sees it."""

    def look(self) -> Statement | None:
        """Return the statement that reads what others have told, when anybody wants to know."""
        ...

    def arrived(self, told: Sequence[Told], others: Rows | None) -> None:
        """Take the rows of one transaction, and those that `look` asked for, None when it did not."""
        ...


class GroupCommit:
    """The one writer of a database in this process."""

    def __init__(self, client: Client, writes: Writes, events: EventRows) -> None:
        self._client = client
        self._writes = writes
        self._events = events
        self._waiting: list[_Waiting] = []
        self._announced: list[DurablyEvent] = []
        self._looks: list[asyncio.Future[None]] = []
        self._serving: asyncio.Task[None] | None = None

    async def run(self, unit: Unit[T] | Part[T]) -> T:
        """Do `unit` in the next transaction and return its result once that is committed."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(unit, future))
        self._serve_soon()
        return await future

    def forget_loop(self) -> None:
        """Drop what waits on an event loop that is gone; nobody there can learn of it any more."""
        self._waiting, self._looks, self._serving = [], [], None

    async def close(self) -> None:
        """Store what was announced, and return when no request is under way. Raises `StoreError`."""
        try:
            while self._announced:
                await self.look()
        finally:
            if self._serving is not None:
                await asyncio.wait([self._serving])

    async def look(self) -> None:
        """Read what others have told, with the next transaction or by itself."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._looks.append(future)
        self._serve_soon()
        await future

    def announce(self, event: DurablyEvent) -> None:
        """Add an event to the next transaction; `flush_soon` sees to it that there is one."""
        self._announced.append(event)

    @property
    def is_busy(self) -> bool:
        """Tell whether a request is under way."""
        return self._serving is not None and not self._serving.done()

    @property
    def announced(self) -> int:
        """Return how many events wait for a transaction."""
        return len(self._announced)

    def flush_soon(self) -> None:
        """Begin a transaction in the next turn of the loop if anything waits for one."""
        if self._announced or self._waiting or self._looks:
            self._serve_soon()

    def _serve_soon(self) -> None:
        if not self.is_busy:
            self._serving = begin_task(self._serve(), "durably-libsql-writer")

    async def _serve(self) -> None:
        while self._waiting or self._looks or self._announced:
            # What is asked for in the same turn of the loop goes together.
            await asyncio.sleep(0)
            units, looks, announced = self._take_units(), self._looks, self._announced
            self._looks, self._announced = [], []
            try:
                while len(announced) > _MOST_EVENTS:
                    # Too many for one request. What the units tell comes after all that was announced before them.
                    await self._commit([], announced[:_MOST_EVENTS])
                    announced = announced[_MOST_EVENTS:]
                await self._commit(units, announced)
            except BaseException as error:
                self._announced[:0] = announced
                _fail([*(waiting.future for waiting in units), *looks], error)
                if not isinstance(error, Exception):
                    raise
                if not (self._waiting or self._looks):
                    # Trying again at once would not help; the next write or look takes the events along.
                    return
            else:
                for look in looks:
                    _resolve(look, None)

    def _take_units(self) -> list[_Waiting]:
        count = 0
        for waiting in self._waiting[:_MOST_UNITS]:
            if waiting.unit.alone and count:
                break
            count += 1
            if waiting.unit.alone:
                break
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    async def _commit(self, units: list[_Waiting], announced: list[DurablyEvent]) -> None:
        statements = [self._writes.tell(announced)] if announced else []
        groups = _grouped(units)
        for group in groups:
            statements += group.unit.statements
        look = self._events.look()
        try:
            rows, others = await self._send(statements, look)
        except (StatementFailedError, ValueRefusedError) as failure:
            await self._refused(units, announced, failure)
            return
        told: list[Told] = []
        if announced:
            # The very objects: their listeners have been told, and the sequence they got then stays.
            ((row, _),) = rows.pop(0)
            told.append(Told(row, announced, "announced"))
            del statements[0]
        _settle(groups, rows)
        self._events.arrived(told + _told(statements, rows), others)

    async def _send(self, statements: list[Statement], look: Statement | None) -> tuple[list[Rows], Rows | None]:
        if not statements:
            return [], None if look is None else await self._client.query(look)
        if look is None:
            return await self._transact(statements), None
        *rows, others = await self._transact([*statements, look])
        return rows, others

    async def _transact(self, statements: list[Statement]) -> list[Rows]:
        """Do a transaction, again while another one is in its way: then it has done nothing."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + BUSY_SECONDS
        while True:
            try:
                return await self._client.transact(statements)
            except StatementFailedError as failure:
                if not failure.is_busy or loop.time() >= deadline:
                    raise
            await asyncio.sleep(random.uniform(*_BUSY_PAUSE_SECONDS))  # noqa: S311 - jitter, not a secret

    async def _refused(
        self,
        units: list[_Waiting],
        announced: list[DurablyEvent],
        failure: StatementFailedError | ValueRefusedError,
    ) -> None:
        """Tell the unit whose statement failed; of several each is done again by itself, so that one fails alone."""
        error = failure if isinstance(failure, StoreError) else self._client.server.explain(failure)
        is_final = not isinstance(error, StoreUnavailableError)
        if is_final and len(units) + bool(announced) > 1:
            if announced:
                await self._commit([], announced)
            for waiting in units:
                try:
                    await self._commit([waiting], [])
                except Exception as apart:  # noqa: BLE001 - the waiter gets it, whatever it is
                    _fail([waiting.future], apart)
            return
        if is_final and announced:
            # Kept, they would be refused again, and with them everything that is written from now on.
            log.warning("%d events are missing in the log of events: %s", len(announced), error)
            return
        if isinstance(failure, StoreError):
            raise failure
        refusal = None
        if units and (refused := _grouped(units)[0].unit.refused) is not None and failure.position is not None:
            refusal = refused(failure.position, failure.results)
        raise refusal or error from failure


def _grouped(units: list[_Waiting]) -> list[_Group]:
    shared: dict[Any, tuple[int, list[Any], list[asyncio.Future[Any]]]] = {}
    alone: list[_Group] = []
    for unit, future in units:
        if isinstance(unit, Part):
            _, values, futures = shared.setdefault(unit.together, (unit.place, [], []))
            values.append(unit.value)
            futures.append(future)
        else:
            alone.append(_Group(unit, [future], is_shared=False))
    in_order = sorted(shared.items(), key=lambda item: item[1][0])
    return [_Group(together(values), futures, is_shared=True) for together, (_, values, futures) in in_order] + alone


def _settle(groups: list[_Group], rows: list[Rows]) -> None:
    start = 0
    for unit, futures, is_shared in groups:
        end = start + len(unit.statements)
        try:
            result = unit.result(rows[start:end])
        except DurablyError as refusal:
            _fail(futures, refusal)
        else:
            for future, each in zip(futures, result if is_shared else [result], strict=True):
                _resolve(future, each)
        start = end


def _told(statements: list[Statement], rows: list[Rows]) -> list[Told]:
    return [
        Told(row, decode_events(events), "committed")
        for statement, returned in zip(statements, rows, strict=True)
        if statement.tells
        for row, events in returned
    ]


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(futures: Sequence[asyncio.Future[Any]], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
