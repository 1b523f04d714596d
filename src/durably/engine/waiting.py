"""Waiting for a run: until it has ended, and reporting what it tells meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from durably.core.clock import Clock
from durably.core.errors import DurablyError, NotFoundError, RunCancelledError, RunFailedError, StoreUnavailableError
from durably.core.events import LogWriteEvent, RunProgressEvent
from durably.core.logs import LogData
from durably.core.pauses import pauses
from durably.core.runs import ProgressData, Run, RunStatus
from durably.core.store import Position, Store
from durably.engine.event_hub import EventHub
from durably.engine.interruption import is_being_cancelled
from durably.engine.replay import ended_by
from durably.engine.run_feed import closed_before_end, follow_run
from durably.tasks import begin_task

log = logging.getLogger("durably")

OnProgress = Callable[[ProgressData], object]
OnLog = Callable[[LogData], object]


async def wait_for_end(
    hub: EventHub, store: Store, run_id: str, polling_interval: float, *, looks_once: bool = False
) -> Run[Any]:
    """Return the run when it has ended; of one that was deleted right then what its end told, and was seen before.

    Raises `NotFoundError`, `TimeoutError` when it may look only once, and `StoreError` when the instance is closed
    meanwhile.
    """
    await hub.start()
    last_seen: Run[Any] | None = None
    waits = pauses()
    with hub.waiting_for_end(run_id) as end:
        while True:
            end.arrived.clear()
            try:
                run = await store.get_run(run_id)
            except StoreUnavailableError as error:
                if looks_once or hub.is_stopped:
                    raise
                # The run goes on, or is resumed, when the database is back; and then its end is told.
                log.warning("cannot look whether run %s has ended, trying again: %s", run_id, error)
                await _set_within(end.arrived, next(waits))
                continue
            waits = pauses()
            if run is None and last_seen is not None and end.told is not None:
                run = ended_by(end.told, last_seen)
            if run is None:
                raise NotFoundError("run", run_id)
            last_seen = run
            if run.is_terminal:
                return run
            if looks_once:
                raise TimeoutError
            # The event wakes us; looking now and then only covers programs that write no events.
            await _set_within(end.arrived, polling_interval)
            if hub.is_stopped:
                raise closed_before_end(store, run_id)


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set; after `seconds` it is in any case."""
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()


async def report_to_end(ending: Coroutine[Any, Any, Run[Any]], reporting: Coroutine[Any, Any, None]) -> Run[Any]:
    """Return the run when it has ended and all that it told is reported."""
    ended, reported = begin_task(ending), begin_task(reporting)
    try:
        await asyncio.wait([ended, reported], return_when=asyncio.FIRST_EXCEPTION)
        if reported.done():
            reported.result()
        return ended.result()
    finally:
        ended.cancel()
        reported.cancel()
        await asyncio.gather(ended, reported, return_exceptions=True)


def completed(run: Run[Any]) -> Run[Any]:
    """Return a run that ended, if it ended well. Raises `RunFailedError`, `RunCancelledError`."""
    if run.status is RunStatus.FAILED:
        raise RunFailedError(run)
    if run.status is RunStatus.CANCELLED:
        raise RunCancelledError(run)
    return run


async def report_run(
    hub: EventHub,
    store: Store,
    clock: Clock,
    run_id: str,
    position: Position | None,
    on_progress: OnProgress | None,
    on_log: OnLog | None,
) -> None:
    """Call back with what a run tells: all of it since `position`, or its state and what follows.

    What a callback raises is reported to the error handlers, as with a listener.
    """
    async for event in follow_run(hub, store, clock, run_id, position):
        reported: object = None
        try:
            if isinstance(event, RunProgressEvent) and on_progress is not None:
                reported = on_progress(event.progress)
            elif isinstance(event, LogWriteEvent) and on_log is not None:
                reported = on_log(LogData(event.level, event.message, event.data, event.step_name))
            if isinstance(reported, Awaitable):
                await reported
        except (Exception, DurablyError, SystemExit, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            hub.report(error, event)
