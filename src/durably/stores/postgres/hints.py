"""Waking other processes: NOTIFY, every few milliseconds at the most.

A NOTIFY inside a transaction makes its commit wait for the commits of all others that notify, and each makes
every process look. So most commits carry none. What somebody may be waiting for, a new run or the end of one, is
told of by its own commit, or very soon; the rest by a commit that comes a little later, or by a NOTIFY of its
own. Nothing depends on it: who misses it looks a little later.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from typing import Final

from durably.core.errors import StoreError
from durably.core.events import WAKING_EVENTS, DurablyEvent, RunTriggerEvent
from durably.stores.postgres import statements as sql
from durably.stores.postgres.connections import Pool
from durably.tasks import begin_task

_EVERY_SECONDS: Final = 0.01
_URGENT_SECONDS: Final = 0.002
_SLACK_SECONDS: Final = 0.003
_WORK: Final = "+"

log = logging.getLogger("durably.postgres")


def channel_of(schema: str | None) -> str:
    """Return the channel of the tables in a schema; channels belong to a whole database."""
    if schema is None:
        return "durably"
    return f"durably_{hashlib.blake2s(schema.encode(), digest_size=8).hexdigest()}"


class Hints:
    """Tells the other processes that there is something new."""

    def __init__(self, pool: Pool, origin: str, schema: str | None) -> None:
        self._pool = pool
        self._origin = origin
        self._channel = channel_of(schema)
        self._timer: asyncio.Handle | None = None
        self._due_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self._untold_since: float | None = None
        self._has_work = False

    def carry(self, events: Sequence[DurablyEvent]) -> tuple[str, str] | None:
        """Return channel and payload if the commit of `events` is to carry the hint; `give` it anew if that fails."""
        now = asyncio.get_running_loop().time()
        self._has_work |= _have_work(events)
        if now < self._due(events, now):
            return None
        self._sent_at = now
        self._forget_timer()
        return self._channel, self._payload()

    def give(self, events: Sequence[DurablyEvent], *, lost: tuple[str, str] | None = None) -> None:
        """Send a hint of `events`, and of what the `lost` one told, soon; a commit may carry it until then."""
        if _have_work(events) or (lost is not None and read_payload(lost[1])[1]):
            self._has_work = True
        loop = asyncio.get_running_loop()
        due = self._due(events, loop.time())
        if not self._is_urgent(events):
            due = max(due, self._sent_at + _EVERY_SECONDS + _SLACK_SECONDS)
        due = max(loop.time(), due)
        if self._timer is not None and self._due_at > due:
            self._forget_timer()
        if self._timer is None:
            # Kept here: what uvloop returns for a time that has come cannot tell it.
            self._due_at = due
            self._timer = loop.call_at(due, self._begin)

    def tell_work(self) -> None:
        """Tell that there is something to claim, though no event says so."""
        self._has_work = True
        self.give(())

    async def close(self) -> None:
        """Send what is due and end."""
        is_due = self._timer is not None
        self._forget_timer()
        if self._task is not None:
            await asyncio.wait([self._task])
        if is_due:
            await self._send()

    def _due(self, events: Sequence[DurablyEvent], now: float) -> float:
        """Return when a commit of `events` may carry a hint."""
        if self._is_urgent(events):
            return self._sent_at + _URGENT_SECONDS
        if not events:
            # What was announced only has waited for others already.
            return self._sent_at + _EVERY_SECONDS
        if self._untold_since is None:
            self._untold_since = now
        # Most steps are short, and what comes next is the end of the run: then one hint tells of both.
        return max(self._sent_at + _EVERY_SECONDS, self._untold_since + _SLACK_SECONDS)

    def _is_urgent(self, events: Sequence[DurablyEvent]) -> bool:
        return self._has_work or any(event.type in WAKING_EVENTS for event in events)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _payload(self) -> str:
        self._untold_since = None
        has_work, self._has_work = self._has_work, False
        return self._origin + _WORK * has_work

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        if self._task is not None:
            # The one before has not gone out yet.
            self._due_at = loop.time() + _EVERY_SECONDS
            self._timer = loop.call_at(self._due_at, self._begin)
            return
        self._timer = None
        self._sent_at = loop.time()
        self._task = begin_task(self._send(), "durably-postgres-hint")

    async def _send(self) -> None:
        try:
            await self._pool.fetch(sql.NOTIFY, self._channel, self._payload())
        except StoreError as error:
            log.debug("other processes could not be woken, they will look by themselves: %s", error)
        finally:
            self._task = None


def _have_work(events: Sequence[DurablyEvent]) -> bool:
    return any(isinstance(event, RunTriggerEvent) for event in events)


def read_payload(payload: str) -> tuple[str, bool]:
    """Return which process gave a hint, and whether there may be work to claim."""
    return payload.removesuffix(_WORK), payload.endswith(_WORK)
