"""The log of events: written with the commits they tell of, read by every process on the database.

A row holds what one transaction has to tell. Its position comes from a sequence, so rows become visible out
of order when several transactions commit at the same time. A reader therefore delivers a row only when it
has every row before it. Where one is missing, the transaction that took its position is either under way,
and then it still holds the lock on the table that every insert takes and that ends after all see the row;
or it was rolled back, and the position stays empty. See docs/adr/0006-postgresql-driver.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from durably.core.event_codec import decode_own_row, decode_row
from durably.core.events import DurablyEvent
from durably.core.pauses import pauses
from durably.core.store import Follower, LogPage, Position, Recorded, recorded_here
from durably.stores.postgres import statements as sql
from durably.stores.postgres.connections import Connecting, Connection, Pool, Server, quoted
from durably.stores.postgres.hints import Hints, channel_of, read_payload
from durably.stores.postgres.marks import Marks
from durably.stores.sql.overflow import Overflow
from durably.tasks import begin_task

_ROWS_PER_READ: Final = 500
_LISTENING_SECONDS: Final = 1.0
_POLLING_SECONDS: Final = 0.05
_BETWEEN_LOOKS_SECONDS: Final = 0.01
_LOOKS_IN_A_ROW_SECONDS: Final = 0.05
_GAP_SECONDS: Final = 0.002
_OVERDUE_SECONDS: Final = 0.005

log = logging.getLogger("durably.postgres")

Fetch = Callable[..., Any]


class EventLog:
    """Delivers every event of the database to one follower, in the order of the log."""

    def __init__(self, server: Server, connecting: Connecting, pool: Pool, marks: Marks, hints: Hints) -> None:
        self.overflow = Overflow(log)
        self._hints = hints
        self._server = server
        self._connecting = connecting
        self._pool = pool
        self._marks = marks
        self._channel = channel_of(server.schema)
        self._table = "durably_events" if server.schema is None else f"{quoted(server.schema)}.durably_events"
        self._follower: Follower | None = None
        self._delivered = 0
        self._ahead: dict[int, Callable[..., list[Recorded]]] = {}
        """Rows whose turn has not come; decoded when it has, for only then is it known whether anyone listens."""
        self._watch: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        self._overdue: asyncio.TimerHandle | None = None

    def committed(
        self, row: int, announced: Sequence[DurablyEvent], events: Sequence[DurablyEvent], *, is_told: bool = False
    ) -> None:
        """Deliver a row of our own, after those that stand before it, and wake the others unless they are told."""
        self.overflow.tell()
        if not is_told:
            self._hints.give(events)
        if self._follower is None or row <= self._delivered:
            return
        self._ahead[row] = _as_it_is(recorded_here(row, announced, events))
        self._deliver(0)
        if self._ahead and self._overdue is None:
            # Most often another write of this process fills the gap at once.
            self._overdue = asyncio.get_running_loop().call_later(_OVERDUE_SECONDS, self._look_for_overdue)

    @property
    def is_behind(self) -> bool:
        """Tell whether rows wait for others before them."""
        return bool(self._ahead)

    async def follow(self, follower: Follower) -> int:
        """Begin to deliver what follows the returned row."""
        self._delivered = await self._settled(self._pool.fetch)
        self._ahead.clear()
        self._follower = follower
        self._watch = begin_task(self._keep_watching(), "durably-postgres-watch")
        return self._delivered

    def unfollow(self) -> None:
        """Stop delivering; what is known is delivered now, for there is no later at which to hear of the rest."""
        self._deliver(max(self._ahead, default=0))
        self._follower = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    async def known_end(self) -> int:
        """Return a row up to which nothing can appear in the log any more."""
        return self._delivered if self._follower is not None else await self._settled(self._pool.fetch)

    async def after(self, position: Position, limit: int) -> LogPage:
        """Return events that follow `position`, whole rows, until there are `limit`."""
        # Whoever stands beyond what is known here has all that is before.
        end = max(await self.known_end(), position.row)
        events: list[Recorded] = []
        for row in await self._pool.fetch(sql.EVENTS_AFTER, position.row - 1, _ROWS_PER_READ):
            if row["position"] > end + 1 or len(events) >= limit:
                break
            # Nothing is missing before a row that comes right after: a snapshot reaches as far.
            end = max(end, row["position"])
            recorded = decode_row(row["position"], row["events"], "elsewhere")
            events += [each for each in recorded if each.position > position]
        # Last: what is cleaned away in between is then taken for a gap, and not for nothing.
        (first,) = await self._pool.fetch(sql.FIRST_EVENT_ROW)
        return LogPage(events, is_gapless=first["position"] <= position.row + 1)

    def tell_work(self) -> None:
        """Wake the workers of other processes, though no event tells them why."""
        self._hints.tell_work()

    def _look_for_overdue(self) -> None:
        self._overdue = None
        if self._ahead:
            self._look.set()

    def look_soon(self) -> None:
        """Look whether rows have arrived."""
        self._look.set()

    # --- watching ----------------------------------------------------------------------------------

    async def _keep_watching(self) -> None:
        waits = pauses()
        while True:
            connection: Connection | None = None
            try:
                connection = await self._connecting.connect(direct=True)
                if self._server.options.can_listen:
                    await connection.add_listener(self._channel, self._notified)
                await self._resume(connection)
                waits = pauses()
                await self._watch_on(connection)
            except Exception as error:  # noqa: BLE001 - the watch goes on as soon as it can
                told = self._server.explain(error, direct=True)
                log.warning("cannot look for events of other processes, trying again: %s", told)
                await asyncio.sleep(next(waits))
            finally:
                if connection is not None:
                    connection.terminate()

    async def _watch_on(self, connection: Connection) -> None:
        listens = self._server.options.can_listen
        wait_seconds = _LISTENING_SECONDS if listens else _POLLING_SECONDS
        loop = asyncio.get_running_loop()
        told_at = loop.time()
        allowed_at = 0.0
        while True:
            # Many processes that are told of every commit of every other would do nothing but read: after a few
            # looks in a row there is one now and then.
            allowed_at = max(allowed_at + _BETWEEN_LOOKS_SECONDS, loop.time() - _LOOKS_IN_A_ROW_SECONDS)
            await asyncio.sleep(allowed_at - loop.time())
            self._look.clear()
            await self._catch_up(connection)
            waiting = loop.call_later(wait_seconds, self._look.set)
            await self._look.wait()
            waiting.cancel()
            if loop.time() - told_at >= _LISTENING_SECONDS:
                # Programs that share the database but write no events are noticed by this alone.
                told_at = loop.time()
                self._tell_others_wrote()

    def _tell_others_wrote(self) -> None:
        if self._follower is not None:
            self._follower.others_wrote()

    def _notified(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        origin, has_work = read_payload(str(payload))
        if origin != self._marks.origin:
            if has_work:
                # The worker need not wait until the events are read: what it tells waits for what came before.
                self._tell_others_wrote()
            self._look.set()

    async def _resume(self, connection: Connection) -> None:
        last = await self._last_given(self._fetch_by(connection))
        if last < self._delivered:
            log.warning(
                "%s has forgotten events (positions %d to %d): a standby without them took over",
                self._server.name,
                last + 1,
                self._delivered,
            )
            self._delivered = last
            self._ahead.clear()

    async def _catch_up(self, connection: Connection) -> None:
        fetch = self._fetch_by(connection)
        while True:
            rows = await fetch(sql.EVENTS_AFTER, self._delivered, _ROWS_PER_READ)
            self._take(rows)
            self._deliver(0)
            if self._ahead:
                await self._pass_gap(fetch)
            elif len(rows) < _ROWS_PER_READ:
                return

    async def _pass_gap(self, fetch: Fetch) -> None:
        """Wait until whoever took a missing position has ended, and go on without those that never came."""
        last = max(self._ahead)
        under_way = await self._writers(fetch)
        while under_way and self._ahead:
            await asyncio.sleep(_GAP_SECONDS)
            under_way &= await self._writers(fetch)
        if not self._ahead:
            return
        rows = await fetch(sql.EVENTS_AFTER, self._delivered, _ROWS_PER_READ)
        if len(rows) == _ROWS_PER_READ:
            last = min(last, rows[-1]["position"])
        if (await fetch(sql.FIRST_EVENT_ROW))[0]["position"] > self._delivered + 1 and self._follower is not None:
            self._follower.missed()
        unsettled = self._take(rows)
        self._deliver(min([last, *(position - 1 for position in unsettled)]))
        if unsettled:
            # Committed by this process, which has not got the answer yet and will deliver them itself.
            await asyncio.sleep(_GAP_SECONDS)

    def _take(self, rows: Sequence[Any]) -> list[int]:
        """Keep rows until their turn comes; return those of our own whose write is still under way."""
        unsettled = []
        for row in rows:
            position = row["position"]
            if position <= self._delivered or position in self._ahead:
                continue
            if row["origin"] != self._marks.origin:
                self._ahead[position] = partial(decode_row, position, row["events"], "elsewhere")
            elif row["number"] in self._marks.under_way:
                unsettled.append(position)
            else:
                # Its answer was lost, and the database was away for longer than anyone waited.
                self._ahead[position] = _as_it_is(decode_own_row(position, row["events"]))
        return unsettled

    def _deliver(self, empty_up_to: int) -> None:
        """Deliver what is next, again and again; positions up to `empty_up_to` that are missing never come."""
        while self._ahead:
            following = self._delivered + 1
            if following not in self._ahead:
                following = min(self._ahead)
                if following - 1 > empty_up_to:
                    break
            is_listening = self._follower is not None and self._follower.is_listening
            recorded = self._ahead.pop(following)(is_listening=is_listening)
            self._delivered = following
            if self._follower is not None:
                self._follower.take(recorded)
        self._delivered = max(self._delivered, empty_up_to)

    # --- where the log ends ------------------------------------------------------------------------

    async def _settled(self, fetch: Fetch) -> int:
        """Return the last position given so far, once nobody who may have got it or one before is under way."""
        last = await self._last_given(fetch)
        under_way = await self._writers(fetch)
        while under_way:
            await asyncio.sleep(_GAP_SECONDS)
            under_way &= await self._writers(fetch)
        return last

    async def _last_given(self, fetch: Fetch) -> int:
        (row,) = await fetch(sql.LAST_GIVEN_POSITION)
        last: int = row["position"]
        return last

    async def _writers(self, fetch: Fetch) -> set[str]:
        return {row["id"] for row in await fetch(sql.WRITERS_UNDER_WAY, self._table)}

    def _fetch_by(self, connection: Connection) -> Fetch:
        return lambda statement, *values: self._server.fetch(connection, statement, *values)


def _as_it_is(recorded: list[Recorded]) -> Callable[..., list[Recorded]]:
    return lambda **_: recorded
