"""Writes that happen exactly once, though connections break.

Every transaction carries a mark, the origin of this process and a number, and stores it with what it has to
tell, in a unique index. When an answer is lost, nobody knows whether the commit happened; so the same
statement is sent again under the same mark. If the first was committed, the second fails by the index and the
stored row says what became of it. If the first is still under way, the second waits for it there. If it only
arrives later, it is the one that fails.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import asyncpg

from durably.core.errors import StoreUnavailableError
from durably.core.event_codec import decode_events
from durably.core.events import DurablyEvent
from durably.stores.postgres import statements as sql
from durably.stores.postgres.connections import Connection, Pool, Server
from durably.stores.postgres.errors import COLLISION, LOST

T = TypeVar("T")

_PATIENCE_SECONDS: Final = 10.0
_LAST_PATIENCE_SECONDS: Final = 1.0
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.5
_MARK_INDEX: Final = "idx_durably_events_mark"
_RACED_INDEXES: Final = frozenset(
    {"idx_durably_runs_leased_key", "idx_durably_runs_pending_concurrency", "idx_durably_runs_job_idempotency"}
)


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

        `attempt` sends one statement. Raises our errors: after `StoreUnavailableError` the write may still
        have happened, after others it has not.
        """
        mark = Mark(self.origin, next(self._numbers))
        self.under_way.add(mark.number)
        try:
            return await self._persist(mark, attempt, recover)
        except Exception as error:
            raise self._server.explain(error) from error
        finally:
            self.under_way.discard(mark.number)

    async def find(self, mark: Mark) -> Found | None:
        """Return what was stored under a mark, None if nothing was."""
        return await self._pool.run(lambda connection: self.find_on(connection, mark))

    async def find_on(self, connection: Connection, mark: Mark) -> Found | None:
        """Return what was stored under a mark, None if nothing was."""
        rows = await self._server.fetch(connection, sql.EVENTS_OF_MARK, mark.origin, mark.number)
        return Found(rows[0]["position"], decode_events(rows[0]["events"])) if rows else None

    async def _persist(
        self, mark: Mark, attempt: Callable[[Connection, Mark], Awaitable[T]], recover: Callable[[Found], Awaitable[T]]
    ) -> T:
        began = time.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        is_in_doubt = False
        while True:
            try:
                if is_in_doubt and (found := await self.find(mark)) is not None:
                    return await recover(found)
                return await self._pool.run(lambda connection: attempt(connection, mark))
            except asyncpg.UniqueViolationError as error:
                if error.constraint_name == _MARK_INDEX:
                    is_in_doubt = True
                elif error.constraint_name not in _RACED_INDEXES or self._is_too_late(began):
                    raise
            except COLLISION:
                if self._is_too_late(began):
                    raise
            except (*LOST, StoreUnavailableError) as error:
                is_in_doubt = True
                if self._is_too_late(began):
                    raise self._unavailable(error) from error
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _is_too_late(self, began: float) -> bool:
        return time.monotonic() - began >= self._patience_seconds

    def _unavailable(self, error: BaseException) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._server.name} could not be reached for {self._patience_seconds:.0f} s; "
            f"whether the last write happened is not known ({str(error) or type(error).__name__})"
        )
