"""The plugins that come with the library."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from durably.app import Durably, DurablyPlugin
from durably.core.errors import StoreError, StoreUnavailableError
from durably.core.events import LogWriteEvent
from durably.core.logs import Log
from durably.core.ulid import new_ulid

_BATCH_SECONDS: Final = 0.05
_RETRY_SECONDS: Final = 1.0
_MOST_WAITING: Final = 100_000

log = logging.getLogger("durably")


def with_log_persistence() -> DurablyPlugin:
    """Return the plugin that stores every log line of the runs that execute here.

    Lines are written in batches behind the job's back and are all stored when the instance has stopped.
    While the database is away they wait; beyond 100,000 waiting lines the newest are dropped, and a
    warning says so.

    >>> durably.use(with_log_persistence())
    >>> await durably.get_logs(run_id)
    """
    return _LogPersistence()


class _LogPersistence:
    def __init__(self) -> None:
        self._durably: Durably
        self._waiting: list[LogWriteEvent] = []
        self._writing: asyncio.Task[None] | None = None
        self._is_wanted = asyncio.Event()
        self._dropped = 0

    def install(self, durably: Durably) -> None:
        self._durably = durably
        durably.on("log:write", self._take, scope="process")

    async def flush(self) -> None:
        """Return when everything logged so far is stored, or cannot be."""
        self._is_wanted.set()
        while self._writing is not None:
            await asyncio.wait([self._writing])

    def _take(self, event: LogWriteEvent) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.append(event)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="durably-logs")

    async def _write(self) -> None:
        try:
            self._is_wanted.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_wanted.wait(), _BATCH_SECONDS)
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._store(batch)
        finally:
            self._writing = None

    async def _store(self, batch: list[LogWriteEvent]) -> None:
        logs = [
            Log(
                new_ulid(int(event.timestamp.timestamp() * 1000)),
                event.run_id,
                event.step_name,
                event.level,
                event.message,
                None,
                event.timestamp,
            )
            for event in batch
        ]
        try:
            await self._durably.storage.append_logs(logs, [event.data_json for event in batch])
        except StoreUnavailableError as error:
            log.warning("log lines could not be stored, trying again: %s", error)
            self._waiting[:0] = batch
            await asyncio.sleep(_RETRY_SECONDS)
        except StoreError:
            log.exception("%d log lines are lost", len(batch))
        if self._dropped:
            log.error("%d log lines were dropped: the database did not take them in time", self._dropped)
            self._dropped = 0
