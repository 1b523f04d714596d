"""The log of events, read by looking: a server reached by HTTP tells nothing by itself.

Every write looks as well, so a busy process learns of the others at no cost; an idle one looks more and more
seldom, down to the interval of the URL's `poll_interval`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Final

from durably.core.errors import StoreError
from durably.core.event_codec import decode_row
from durably.core.events import DurablyEvent
from durably.core.store import Follower, Position, Recorded
from durably.stores.libsql import statements as sql
from durably.stores.libsql.group_commit import GroupCommit, Told
from durably.stores.libsql.hrana import Rows, Statement
from durably.stores.sql.overflow import Overflow
from durably.tasks import begin_task

_SHORTEST_LOOK_SECONDS: Final = 0.02
_SLOWER: Final = 1.5
_FLUSH_SECONDS: Final = 0.02
_CHANGED_SECONDS: Final = 1.0
_ROWS_PER_LOOK: Final = 1_000
_LONGEST_TROUBLE_SECONDS: Final = 5.0

log = logging.getLogger("durably.libsql")


class EventLog:
    """Delivers every event of the database to one follower, in the order of the log."""

    def __init__(self, poll_seconds: float) -> None:
        self.origin: Final = secrets.token_hex(8)
        self._poll_seconds = poll_seconds
        self._interval = min(_SHORTEST_LOOK_SECONDS, poll_seconds)
        self._follower: Follower | None = None
        self._overflow = Overflow(log)
        self._delivered = 0
        self._looked_at = 0.0
        self._own: deque[Told] = deque()
        self._flush: asyncio.TimerHandle | None = None
        self._polling: asyncio.Task[None] | None = None
        self._writer: GroupCommit

    def attach(self, writer: GroupCommit) -> None:
        """Connect the log to the writer that calls it."""
        self._writer = writer

    def announce(self, event: DurablyEvent) -> None:
        """Take an event that belongs to no write of its own; it goes with the next one, or soon by itself."""
        if not self._overflow.admits(event, self._writer.announced):
            return
        self._writer.announce(event)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush_announced)

    @property
    def is_behind(self) -> bool:
        """Tell whether rows of our own wait for others."""
        return bool(self._own)

    def follow(self, follower: Follower, newest: int) -> None:
        """Begin to deliver what follows the row `newest`."""
        self._follower = follower
        self._delivered = newest
        self._own.clear()
        self._polling = begin_task(self._poll(), "durably-libsql-poll")

    def stop_polling(self) -> None:
        """Look only when something is written."""
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None

    def unfollow(self) -> None:
        """Stop delivering."""
        self._follower = None
        self.stop_polling()
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None

    def look(self) -> Statement | None:
        """Return the statement that reads what others have told since, None when nobody listens."""
        if self._follower is None:
            return None
        return Statement(sql.EVENTS_OF_OTHERS, (self._delivered, self.origin, _ROWS_PER_LOOK))

    def arrived(self, told: Sequence[Told], others: Rows | None) -> None:
        """Deliver rows of our own and of others in the order of the log."""
        if told:
            self._overflow.tell()
        if self._follower is None:
            return
        if told or others:
            self._interval = min(_SHORTEST_LOOK_SECONDS, self._poll_seconds)
        self._own.extend(each for each in told if each.row > self._delivered)
        if others is None:
            # Begun to follow while this transaction was under way: what stands before ours is not known yet.
            return
        self._looked_at = asyncio.get_running_loop().time()
        is_listening = self._follower.is_listening
        for row, text in others:
            self._deliver_own(before=row)
            self._deliver(row, decode_row(row, text, "elsewhere", is_listening=is_listening))
        if len(others) < _ROWS_PER_LOOK:
            self._deliver_own()
        if others:
            self._tell_others_wrote()

    def _deliver_own(self, before: int | None = None) -> None:
        while self._own and (before is None or self._own[0].row < before):
            row, events, source = self._own.popleft()
            self._deliver(row, [Recorded(Position(row, place), event, source) for place, event in enumerate(events)])

    def _deliver(self, row: int, recorded: list[Recorded]) -> None:
        if self._follower is None or row <= self._delivered:
            return
        if row > self._delivered + 1:
            self._follower.missed()
        self._delivered = row
        self._follower.take(recorded)

    def _tell_others_wrote(self) -> None:
        if self._follower is not None:
            self._follower.others_wrote()

    def _flush_announced(self) -> None:
        self._flush = None
        self._writer.flush_soon()

    def _is_news_on_its_way(self, now: float) -> bool:
        # Every write looks as well: a request of its own would only make the next write wait.
        return self._writer.is_busy or now - self._looked_at < self._interval

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        told_of_change = loop.time()
        trouble = 0.0
        while True:
            await asyncio.sleep(max(self._interval, trouble))
            try:
                if not self._is_news_on_its_way(loop.time()):
                    self._interval = min(self._interval * _SLOWER, self._poll_seconds)
                    await self._writer.look()
                trouble = 0.0
            except StoreError as error:
                trouble = min(max(2 * trouble, self._poll_seconds), _LONGEST_TROUBLE_SECONDS)
                log.warning("cannot look for events, trying again in %.1f s: %s", trouble, error)
            except Exception:
                # Whatever it is, going on deaf would be worse than trying again.
                trouble = _LONGEST_TROUBLE_SECONDS
                log.exception("cannot look for events, trying again in %.1f s", trouble)
            # Programs that tell nothing, as the TypeScript library, are noticed by looking at the runs.
            if loop.time() - told_of_change >= _CHANGED_SECONDS:
                told_of_change = loop.time()
                self._tell_others_wrote()
