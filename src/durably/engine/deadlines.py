"""Leases that run out while nobody renews them.

The thread that renews may be waiting for a database that is away, so their ends are watched on the event loop as
well. Where a job blocks that, the thread finds out between two renewals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from durably.core.clock import Clock
from durably.engine.held_lease import HeldLease


class Deadlines:
    """One timer for all the leases that `held` returns."""

    def __init__(self, clock: Clock, held: Callable[[], Iterable[HeldLease]]) -> None:
        self._clock = clock
        self._held = held
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def watch(self, lease: HeldLease) -> None:
        """Give this lease up when it runs out, however long it will be by then."""
        loop = asyncio.get_running_loop()
        if self._timer is None or self._loop is not loop or lease.deadline < self._due:
            self.stop()
            self._loop = loop
            self._ring_at(lease.deadline)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring_at(self, deadline: float) -> None:
        assert self._loop is not None  # noqa: S101 - set by whoever watches first
        self._due = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - self._clock.monotonic()), self._look)

    def _look(self) -> None:
        self._timer = None
        deadlines = [lease.deadline for lease in self._held() if lease.is_held()]
        if deadlines:
            self._ring_at(min(deadlines))
