"""A cursor over the log of events with a short cut.

While its reader keeps up it is handed events as they happen; a reader that falls behind reads on from the log, so
a slow one costs no memory and misses nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from durably.core.events import DurablyEvent
from durably.core.store import Position, Recorded, Store

_FEED_BUFFER: Final = 1_000
_PAGE: Final = 500


class LogGapError(Exception):
    """Events were cleaned away from the log before this reader came to them."""


class EventFeed:
    """The events of one run, or of all, in order, from some position on; an async iterator of `Recorded`.

    It raises `LogGapError` where events are missing. Whoever then looks at the state and tells it by `start_after`
    can go on.
    """

    def __init__(
        self,
        store: Store,
        run_id: str | None,
        *,
        number: Callable[[DurablyEvent], None],
        passed: Callable[[], Position],
        closed: Callable[[EventFeed], None],
    ) -> None:
        self.run_id = run_id
        self._store = store
        self._number = number
        self._passed = passed
        self._closed = closed
        self._buffer: deque[Recorded] = deque()
        self._silent_end: Recorded | None = None
        self._position = Position(0)
        self._is_behind = False
        self._was_passed = False
        self._has_gap = False
        self._arrived = asyncio.Event()
        self._is_closed = False

    def start_after(self, position: Position, *, is_past: bool = False) -> None:
        """Skip what stands up to `position`; `is_past` tells that the log must be read from there."""
        self._position = position
        if is_past:
            self._fall_behind()

    def caught_up(self) -> Position:
        """Return up to where the reader has everything, which is past what was told of other runs meanwhile."""
        if not (self._buffer or self._is_behind or self._has_gap):
            self._position = max(self._position, self._passed())
        return self._position

    def deliver(self, recorded: Recorded) -> None:
        """Take an event from the hub."""
        if self._is_behind:
            self._was_passed = True
        elif len(self._buffer) >= _FEED_BUFFER:
            # What stands before the buffer need not be in the log any more.
            row, place = self._buffer[0].position
            self._position = max(self._position, Position(row, place - 1) if place else Position.behind(row - 1))
            self._fall_behind()
        else:
            self._buffer.append(recorded)
        self._arrived.set()

    def end_with(self, recorded: Recorded) -> None:
        """Take an end that stands in no log; the reader gets it when it has read everything else."""
        self._silent_end = recorded
        self._arrived.set()

    def miss(self) -> None:
        """Note that events are missing between what was read and what is delivered from now on."""
        self._buffer.clear()
        self._is_behind = False
        self._has_gap = True
        self._arrived.set()

    def close(self) -> None:
        """Take no more events; an iteration under way ends."""
        self._closed(self)
        self._is_closed = True
        self._buffer.clear()
        self._arrived.set()

    def __aiter__(self) -> AsyncIterator[Recorded]:
        return self

    async def __anext__(self) -> Recorded:
        while True:
            if self._has_gap:
                self._has_gap = False
                raise LogGapError
            while self._buffer:
                recorded = self._buffer.popleft()
                if recorded.position > self._position:
                    self._position = recorded.position
                    return recorded
            if self._is_closed:
                raise StopAsyncIteration
            if self._is_behind:
                await self._catch_up()
                continue
            if self._silent_end is not None:
                ended, self._silent_end = self._silent_end, None
                return ended
            self._arrived.clear()
            await self._arrived.wait()

    def _fall_behind(self) -> None:
        self._buffer.clear()
        self._is_behind = True
        self._was_passed = True

    async def _catch_up(self) -> None:
        self._was_passed = False
        page = await self._store.events_after(self._position, _PAGE)
        if self._has_gap or not page.is_gapless:
            self.miss()
            return
        for recorded in page.events:
            if self.run_id is None or getattr(recorded.event, "run_id", None) == self.run_id:
                self._number(recorded.event)
                self._buffer.append(recorded)
        if not page.events:
            # Only a look at the end of the log that nothing overtook makes it safe to be handed events again.
            self._is_behind = self._was_passed
        elif not self._buffer:
            self._position = page.events[-1].position
