"""What a client that opens a stream is sent first: the state, or what it missed since it was here last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any, Final

from durably.app import Durably
from durably.core.events import DurablyEvent, RunEvent, RunProgressEvent, TerminalEvent
from durably.core.runs import Run
from durably.core.store import Position, Recorded, Store
from durably.engine.event_feed import LogGapError
from durably.engine.replay import deletion_of, replay_of
from durably.http.codec import ALL_RUNS_EVENTS, RUN_STREAM_EVENTS, all_runs_event, run_stream_event
from durably.http.cursor import Cursor
from durably.http.event_stream import EventStream, Replay, Selection

_PAGE: Final = 500
_NO_RUN: Final = ""

Opening = Callable[[Run[Any] | None, Position, Cursor | None], AsyncIterator[Replay | Recorded]]


async def follow_one_run(durably: Durably, run: Run[Any], last: Cursor | None, throttle_seconds: float) -> EventStream:
    """Open the stream of a run: its state and what follows, or all that came after `last`."""
    store = durably.storage

    async def opening(now: Run[Any] | None, here: Position, last: Cursor | None) -> AsyncIterator[Replay | Recorded]:
        if last is not None:
            async for recorded in _missed(store, run.id, last, here):
                yield recorded
            if now is not None and not now.is_terminal:
                return
            # The reader stops at the event that ended the run. Having come here, the client had it before.
        for replay in _state(run, now, durably.clock.now()):
            yield replay

    async def state_after_gap() -> list[Replay]:
        return _state(run, None, durably.clock.now()) if await store.get_run(run.id) is None else []

    selection = Selection(lambda event: event.type in RUN_STREAM_EVENTS, run_stream_event, ends_with_run=True)
    return await _open(durably, run.id, selection, opening, state_after_gap, last, throttle_seconds)


async def follow_all_runs(
    durably: Durably, matches: Callable[[DurablyEvent], bool], last: Cursor | None, throttle_seconds: float
) -> EventStream:
    """Open the stream of all runs that match: from now on, or all that came after `last`.

    Where the log no longer reaches back to `last` the stream begins now: a client asks for its list again
    whenever a stream opens.
    """

    async def opening(_: Run[Any] | None, here: Position, last: Cursor | None) -> AsyncIterator[Replay | Recorded]:
        if last is not None:
            async for recorded in _missed(durably.storage, None, last, here):
                yield recorded

    def wants(event: DurablyEvent) -> bool:
        return event.type in ALL_RUNS_EVENTS and matches(event)

    async def state_after_gap() -> list[Replay]:
        return []

    selection = Selection(wants, all_runs_event, ends_with_run=False)
    return await _open(durably, None, selection, opening, state_after_gap, last, throttle_seconds)


async def _open(
    durably: Durably,
    run_id: str | None,
    selection: Selection,
    opening: Opening,
    state_after_gap: Callable[[], Awaitable[list[Replay]]],
    last: Cursor | None,
    throttle_seconds: float,
) -> EventStream:
    # The feed first: what happens from now on waits in it while the past is looked up.
    feed = await durably.open_feed(run_id)
    try:
        run, here = await durably.storage.snapshot(run_id or _NO_RUN)
        feed.start_after(here)
        if last is not None and not await _reaches_back(durably.storage, last, here):
            last = None
    except BaseException:
        feed.close()
        raise
    return EventStream(
        feed,
        selection,
        throttle_seconds,
        opening=opening(run, here, last),
        start=last or Cursor(here),
        here=here,
        state_after_gap=state_after_gap,
    )


async def _reaches_back(store: Store, last: Cursor, here: Position) -> bool:
    # A position beyond the end is one of another database.
    return last.position <= here and (await store.events_after(last.start, 1)).is_gapless


async def _missed(store: Store, run_id: str | None, last: Cursor, here: Position) -> AsyncIterator[Recorded]:
    """Yield what a client was not sent: progress that was held back from it, then all after its position."""
    held: dict[str, Recorded] = {}
    if last.held_since is not None:
        async for recorded in _between(store, run_id, last.start, last.position):
            event = recorded.event
            if isinstance(event, RunProgressEvent):
                held[event.run_id] = recorded
            elif isinstance(event, TerminalEvent):
                held.pop(event.run_id, None)
    for progress in held.values():
        yield progress
    async for recorded in _between(store, run_id, last.position, here):
        yield recorded


async def _between(store: Store, run_id: str | None, start: Position, end: Position) -> AsyncIterator[Recorded]:
    """Yield the events of a run, or of all, after one position up to another."""
    while start < end:
        page = await store.events_after(start, _PAGE)
        if not page.is_gapless:
            raise LogGapError
        if not page.events:
            return
        for recorded in page.events:
            event = recorded.event
            if recorded.position <= end and isinstance(event, RunEvent) and run_id in (None, event.run_id):
                yield recorded
        start = page.events[-1].position
        # A long way is no reason to keep everybody else waiting.
        await asyncio.sleep(0)


def _state(run: Run[Any], current: Run[Any] | None, now: datetime) -> list[Replay]:
    if current is None:
        events: list[DurablyEvent] = [deletion_of(run, now)]
    else:
        events = replay_of(current, now)
    return [Replay(event, is_whole=event is events[-1]) for event in events]
