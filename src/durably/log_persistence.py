"""The plugin that stores what runs log."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from durably.app import Durably, DurablyPlugin
from durably.core.errors import StoreUnavailableError, ValidationError, ValueRefusedError
from durably.core.events import LogWriteEvent
from durably.core.logs import Log
from durably.core.texts import storable
from durably.core.ulid import new_ulid
from durably.tasks import begin_task

_BATCH_SECONDS: Final = 0.05
_RETRY_SECONDS: Final = 1.0
_MOST_WAITING: Final = 100_000
# Steps wait for the transaction that stores them, and a server may refuse a request of many megabytes.
_MOST_AT_ONCE: Final = 1_000

log = logging.getLogger("durably")


def with_log_persistence() -> DurablyPlugin:
    """Return the plugin that stores every log line of the runs that execute here.

    Lines are written in batches behind the job's back and are all stored when the instance has stopped.
    While the database is away they wait; beyond 100,000 waiting lines the newest are dropped. What could
    not be stored before the instance was closed is lost. An error in the log says how many lines that were.
    A second one in the same instance is ignored; each instance needs one of its own.

    >>> durably.use(with_log_persistence())
    >>> await durably.get_logs(run_id)
    """
    return _LogPersistence()


class _LogPersistence:
    def __init__(self) -> None:
        self._durably: Durably | None = None
        self._waiting: list[tuple[Log, str | None]] = []
        """Each line with the JSON of its data; under one id, however often it has to be sent."""
        self._settled = 0
        self._dropped = 0
        self._at_once = _MOST_AT_ONCE
        self._writing: asyncio.Task[None] | None = None
        self._storing: asyncio.Task[StoreUnavailableError | None] | None = None

    def __eq__(self, other: object) -> bool:
        # Two of them in one instance would store every line twice.
        return isinstance(other, _LogPersistence)

    def __hash__(self) -> int:
        return hash(_LogPersistence)

    def install(self, durably: Durably) -> None:
        if self._durably is not None:
            raise ValidationError(
                f"this plugin stores the log lines of {self._durably!r} already: call with_log_persistence() for each "
                "instance",
                field="plugin",
                value=self,
            )
        self._durably = durably
        # Not as a listener: listeners are told in the order of the log, which may be after the instance has stopped.
        durably.keep_log_lines_by(self._take)

    async def flush(self) -> None:
        """Return when everything logged so far is stored, or cannot be. Raises `StoreUnavailableError`."""
        last = self._settled + len(self._waiting)
        while self._settled < last:
            error = await self._store()
            if error is not None:
                raise error

    def close(self) -> None:
        """Give up what is not stored, and say how much that is; another instance may use the plugin then."""
        self._give_up()
        self._durably = None

    def _give_up(self) -> None:
        for task in (self._writing, self._storing):
            if task is not None and not task.get_loop().is_closed():
                task.cancel()
        lost = len(self._waiting) + self._dropped
        if lost:
            log.error("%d log lines are lost: they were not stored before the end", lost)
        self._settle(len(self._waiting))
        self._dropped = 0

    def _take(self, event: LogWriteEvent) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.append((_line(event), event.data_json))
        if self._writing is None or self._writing.get_loop().is_closed():
            self._writing = begin_task(self._write(), "durably-logs")

    async def _write(self) -> None:
        pause = _BATCH_SECONDS
        try:
            while self._waiting:
                await asyncio.sleep(pause)
                error = await self._store()
                if error is not None:
                    log.warning("log lines could not be stored, trying again: %s", error)
                is_behind = len(self._waiting) >= _MOST_AT_ONCE
                pause = _RETRY_SECONDS if error is not None else 0 if is_behind else _BATCH_SECONDS
        except asyncio.CancelledError:
            # The event loop ends without a `close`.
            self._give_up()
            raise
        finally:
            self._writing = None

    async def _store(self) -> StoreUnavailableError | None:
        """Store what waits; return why that has to be tried again, if it has to."""
        if self._storing is None or self._storing.done() or self._storing.get_loop().is_closed():
            self._storing = begin_task(self._store_batch(), "durably-logs-batch")
        storing = self._storing
        # Whoever has no more time to wait does not end it: nobody would know what was stored.
        await asyncio.wait([storing])
        return None if storing.cancelled() else storing.result()

    async def _store_batch(self) -> StoreUnavailableError | None:
        # They wait until it is known that they are stored: whoever gives up then can say how many are not.
        batch = self._waiting[: self._at_once]
        if not batch or self._durably is None:
            return None
        try:
            await self._durably.storage.append_logs([line for line, _ in batch], [data_json for _, data_json in batch])
        except StoreUnavailableError as error:
            return error
        except ValueRefusedError as error:
            if len(batch) > 1:
                # Fewer at once, until only a line that is too large by itself is lost.
                self._at_once = len(batch) // 2
                return None
            log.error("a log line of run %s is lost: %s", batch[0][0].run_id, error)  # noqa: TRY400 - it says it all
        except Exception:
            log.exception("%d log lines are lost", len(batch))
        self._at_once = min(2 * self._at_once, _MOST_AT_ONCE)
        self._settle(len(batch))
        if self._dropped:
            log.error("%d log lines were dropped: the database did not take them in time", self._dropped)
            self._dropped = 0
        return None

    def _settle(self, count: int) -> None:
        del self._waiting[:count]
        self._settled += count


def _line(event: LogWriteEvent) -> Log:
    log_id = new_ulid(int(event.timestamp.timestamp() * 1000))
    return Log(log_id, event.run_id, event.step_name, event.level, storable(event.message), None, event.timestamp)
