"""What is done now and then: expired leases, retention, the store's own upkeep."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Final

from durably.core.clock import Clock
from durably.core.store import Store
from durably.engine.event_hub import EventHub

_EVERY_SECONDS: Final = 60.0
_NEVER_IDLE_SECONDS: Final = 600.0
_PURGED_AT_ONCE: Final = 100

log = logging.getLogger("durably")


class Maintenance:
    """Looks after the database; errors are told, never raised."""

    def __init__(self, store: Store, hub: EventHub, clock: Clock, retain_runs: timedelta | None) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._retain_runs = retain_runs
        self._last_idle: float | None = None
        self._last: float | None = clock.monotonic()
        self._last_whole = clock.monotonic()
        self._is_hurried = False

    def hurry(self) -> None:
        """Leave the rest for another time: the worker is stopping."""
        self._is_hurried = True

    def is_due(self, *, idle: bool) -> bool:
        """Tell whether it is time: for everything when idle, for what cannot wait when busy."""
        last = self._last_idle if idle else self._last
        return last is None or self._clock.monotonic() - last >= _EVERY_SECONDS

    async def run(self, *, idle: bool) -> None:
        """Do everything when idle, or when there was no idle moment for long; else only what cannot wait."""
        self._is_hurried = False
        now = self._last = self._clock.monotonic()
        is_whole = idle or now - self._last_whole >= _NEVER_IDLE_SECONDS
        if idle:
            self._last_idle = now
        if is_whole:
            self._last_whole = now
        try:
            if is_whole:
                await self._store.recover_expired()
                await self._purge(idle=idle)
            await self._store.maintain(idle=idle)
        except Exception as error:
            log.warning("maintenance failed, it will be tried again: %s", error, exc_info=error)
            self._hub.announce_trouble(str(error), "maintenance")

    async def _purge(self, *, idle: bool) -> None:
        if self._retain_runs is None:
            return
        purged = _PURGED_AT_ONCE
        while purged == _PURGED_AT_ONCE and not self._is_hurried:
            began = self._clock.monotonic()
            # Not by the clock of this machine: were it ahead, it would take what others have just done.
            ended_by = await self._store.now() - self._retain_runs
            purged = await self._store.purge_runs(ended_by, _PURGED_AT_ONCE)
            # A busy worker leaves half of the time to those whose steps want to be written.
            await asyncio.sleep(0 if idle else self._clock.monotonic() - began)
