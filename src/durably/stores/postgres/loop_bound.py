"""What a store has on one event loop: connections belong to the loop they were made on, and so do waiting writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from durably.core.clock import Clock
from durably.core.events import DurablyEvent
from durably.stores.postgres.connections import Connecting, Pool, Server
from durably.stores.postgres.event_log import EventLog
from durably.stores.postgres.group_commit import GroupCommit
from durably.stores.postgres.hints import Hints
from durably.stores.postgres.marks import Marks
from durably.stores.postgres.writes import Writes
from durably.tasks import begin_task

_CONNECTIONS_OF_THEIR_OWN: Final = 3
_FLUSH_SECONDS: Final = 0.01


class LoopBound:
    """The connections of a store on the running event loop, and what reads and writes by them."""

    def __init__(self, server: Server, clock: Clock, preserves_steps: Callable[[], bool]) -> None:
        self.loop: Final = asyncio.get_running_loop()
        # The watch over the event log, the renewal of leases and the lists have a connection each.
        self._connecting = Connecting(server)
        self.pool: Final = Pool(server, self._connecting, server.options.pool_size - _CONNECTIONS_OF_THEIR_OWN)
        # Which index serves a list best depends on the labels and the limit that are asked for.
        self.lists: Final = Pool(server, self._connecting, 1, plans="custom")
        self._marks = Marks(server, self.pool)
        self._hints = Hints(self.pool, self._marks.origin, server.schema)
        self.events: Final = EventLog(server, self._connecting, self.pool, self._marks, self._hints)
        self.writer: Final = GroupCommit(server, self._marks, self.events, self._hints, preserves_steps)
        self.writes: Final = Writes(server, self.pool, self._marks, self.events, clock)
        self._flush: asyncio.TimerHandle | None = None
        self._leaving = begin_task(self._leave_with_loop(), "durably-postgres-pool")

    def announce(self, events: Iterable[DurablyEvent]) -> None:
        """Write events soon that belong to no write of their own."""
        for event in events:
            if self.events.overflow.admits(event, self.writer.announced):
                self.writer.announce(event)
        if self._flush is None and self.writer.announced:
            self._flush = self.loop.call_later(_FLUSH_SECONDS, self._flush_announced)

    async def close(self) -> None:
        """Write what is still buffered and close every connection."""
        if self._flush is not None:
            self._flush.cancel()
        self._marks.hurry()
        try:
            await self.writer.drain()
            await self._hints.close()
        finally:
            self.events.unfollow()
            await self.pool.close()
            await self.lists.close()
            await self._connecting.close()
            self._leaving.cancel()

    def _flush_announced(self) -> None:
        self._flush = None
        if self.writer.announced:
            self.writer.flush_soon()

    async def _leave_with_loop(self) -> None:
        try:
            await self.loop.create_future()
        finally:
            # An event loop cancels its tasks when it ends; later nothing could close a connection of it any more.
            self.pool.leave()
            self.lists.leave()
