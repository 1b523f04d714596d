"""Writes that happen exactly once, though connections break.

Every transaction carries a mark, the origin of this process and a number, and stores it with what it has to
tell, in a unique index. When an answer is lost, nobody knows whether the commit happened; so an empty row is
stored under the same mark. Where that is refused by the index, the commit happened, and the row in its place
says what became of it. Where it is not, the commit did not happen and never will: if it is still under way the
empty row waits for it, and if it only arrives later it is the one that is refused. Then the statement is sent
again, under a mark of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import asyncpg

from durably.core.errors import StoreUnavailableError
from durably.core.event_codec import decode_events
from durably.core.events import DurablyEvent
from durably.core.pauses import pauses
from durably.stores.postgres import statements as sql
from durably.stores.postgres.connections import Connection, Pool, Server
from durably.stores.postgres.errors import COLLISION, LOST

T = TypeVar("T")

_PATIENCE_SECONDS: Final = 10.0
_LAST_PATIENCE_SECONDS: Final = 1.0
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.5
_RACED_INDEXES: Final = frozenset(
    {"idx_durably_runs_leased_key", "idx_durably_runs_pending_concurrency", "idx_durably_runs_job_idempotency"}
)
_NOT_WRITTEN: Final = (asyncpg.UniqueViolationError, *COLLISION)


@dataclass(frozen=True, slots=True)
class Mark:
    """The name of one transaction."""

    origin: str
    number: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a transaction stored whose answer was lost."""

    position: int
    events: list[DurablyEvent]


class WriteInDoubtError(StoreUnavailableError):
    """Nobody knows whether a write happened; `Marks.settle` tells by the mark, once the database is back."""

    def __init__(self, message: str, mark: Mark) -> None:
        super().__init__(message)
        self.mark = mark


class Marks:
    """Gives marks, and carries writes out under them."""

    def __init__(self, server: Server, pool: Pool) -> None:
        self.origin: Final = secrets.token_hex(8)
        self.under_way: set[int] = set()
        """The numbers of writes whose outcome is not known yet."""
        self._server = server
        self._pool = pool
        self._numbers = itertools.count(1)
        self._patience_seconds = _PATIENCE_SECONDS

    def hurry(self) -> None:
        """Wait for an unreachable database only shortly from now on: this process is about to leave."""
        self._patience_seconds = _LAST_PATIENCE_SECONDS

    async def write(
        self,
        attempt: Callable[[Connection, Mark], Awaitable[T]],
        recover: Callable[[Found], Awaitable[T]],
    ) -> T:
        """Return what `attempt` returned, or what `recover` makes of the attempt whose answer was lost.

        `attempt` sends one statement. Raises our errors: after `WriteInDoubtError` the write may still have
        happened, after others it has not.
        """
        try:
            return await self._persist(attempt, recover)
        except Exception as error:
            raise self._server.explain(error) from error

    async def settle(self, mark: Mark) -> Found | None:
        """Return what was stored under a mark; None if nothing was and nothing ever will be. Raises our errors."""
        try:
            return await self._settle(mark)
        except Exception as error:
            raise self._server.explain(error) from error

    async def _persist(
        self, attempt: Callable[[Connection, Mark], Awaitable[T]], recover: Callable[[Found], Awaitable[T]]
    ) -> T:
        began = time.monotonic()
        waits = pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        mark, is_in_doubt = self._new_mark(), False

        async def send(connection: Connection) -> T:
            nonlocal is_in_doubt
            # From now on, until it is answered: a server that could not even be connected to has done nothing.
            is_in_doubt = True
            try:
                return await attempt(connection, mark)
            except _NOT_WRITTEN:
                is_in_doubt = False
                raise

        try:
            while True:
                try:
                    if is_in_doubt:
                        if (found := await self._find_out(mark)) is not None:
                            return await recover(found)
                        self.under_way.discard(mark.number)
                        mark, is_in_doubt = self._new_mark(), False
                    return await self._pool.run(send)
                except _NOT_WRITTEN as error:
                    if not _is_race(error) or self._is_too_late(began):
                        raise
                except (*LOST, StoreUnavailableError) as error:
                    if self._is_too_late(began):
                        raise (self._in_doubt(error, mark) if is_in_doubt else self._server.explain(error)) from error
                    await asyncio.sleep(next(waits))
        finally:
            self.under_way.discard(mark.number)

    async def _find_out(self, mark: Mark) -> Found | None:
        """Settle a mark; an error that would say of a write that it did not happen says that this is not known."""
        try:
            return await self._settle(mark)
        except (*LOST, *COLLISION, StoreUnavailableError):
            raise
        except Exception as error:
            raise self._in_doubt(error, mark) from error

    async def _settle(self, mark: Mark) -> Found | None:
        values = (mark.origin, mark.number)

        async def work(connection: Connection) -> Sequence[Any]:
            await self._server.fetch(connection, sql.STORE_EMPTY_MARK, *values)
            return await self._server.fetch(connection, sql.EVENTS_OF_MARK, *values)

        for row in await self._pool.run(work):
            if events := decode_events(row["events"]):
                return Found(row["position"], events)
        return None

    def _new_mark(self) -> Mark:
        mark = Mark(self.origin, next(self._numbers))
        self.under_way.add(mark.number)
        return mark

    def _is_too_late(self, began: float) -> bool:
        return time.monotonic() - began >= self._patience_seconds

    def _in_doubt(self, error: BaseException, mark: Mark) -> WriteInDoubtError:
        return WriteInDoubtError(
            f"{self._server.name} could not be reached for {self._patience_seconds:.0f} s; "
            f"whether the last write happened is not known ({str(error) or type(error).__name__})",
            mark,
        )


def _is_race(error: asyncpg.PostgresError) -> bool:
    """Tell whether the same statement may succeed now: another transaction was in the way."""
    return not isinstance(error, asyncpg.UniqueViolationError) or error.constraint_name in _RACED_INDEXES
