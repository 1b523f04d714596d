"""One run as a stream: its state first, then what happens, to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from durably.core.clock import Clock
from durably.core.errors import NotFoundError, StoreError, StoreUnavailableError
from durably.core.events import TERMINAL_EVENTS, DurablyEvent
from durably.core.pauses import pauses
from durably.core.runs import Run
from durably.core.store import Position, Store
from durably.engine.event_feed import LogGapError
from durably.engine.event_hub import EventHub
from durably.engine.replay import deletion_of, replay_of

T = TypeVar("T")

log = logging.getLogger("durably")


async def follow_run(
    hub: EventHub, store: Store, clock: Clock, run_id: str, since: Position | None = None
) -> AsyncIterator[DurablyEvent]:
    """Yield the state of a run and then its events, or all its events since a position, until it ends.

    Where events are missing in the log, the state stands for them. Raises `NotFoundError`, and `StoreError` when the
    instance is closed meanwhile.
    """
    feed = await hub.open_feed(run_id)
    run: Run[Any] | None = None
    try:
        if since is not None:
            feed.start_after(since, is_past=True)
        while True:
            if since is None:
                found, position = await _answered(lambda: store.snapshot(run_id), run_id)
                feed.start_after(position)
                for event in _state(run_id, found, run, clock):
                    yield event
                if found is None or found.is_terminal:
                    return
                run = found
            try:
                # The feed stands where it stood when the database was away.
                while (recorded := await _answered(lambda: anext(feed, None), run_id)) is not None:
                    yield recorded.event
                    if isinstance(recorded.event, TERMINAL_EVENTS):
                        return
                raise closed_before_end(store, run_id)
            except LogGapError:
                since = None
    finally:
        feed.close()


async def _answered(ask: Callable[[], Awaitable[T]], run_id: str) -> T:
    """Return what the database answers, once it does: the run goes on without it, or is resumed when it is back."""
    waits = pauses()
    while True:
        try:
            return await ask()
        except StoreUnavailableError as error:
            log.warning("cannot read the events of run %s, trying again: %s", run_id, error)
            await asyncio.sleep(next(waits))


def _state(run_id: str, run: Run[Any] | None, last_seen: Run[Any] | None, clock: Clock) -> list[DurablyEvent]:
    if run is not None:
        return replay_of(run, clock.now())
    if last_seen is None:
        raise NotFoundError("run", run_id)
    return [deletion_of(last_seen, clock.now())]


def closed_before_end(store: Store, run_id: str) -> StoreError:
    """Return the error for whoever follows a run, or waits for it, when the instance is closed."""
    return StoreError(f"{store.name} was closed before run {run_id} ended: it goes on where it executes")
