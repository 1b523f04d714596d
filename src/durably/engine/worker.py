"""The worker: looks for work, as much as it has slots for, and stops gracefully."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from durably.core.clock import Clock
from durably.core.errors import StoreError, StoreUnavailableError
from durably.core.events import DurablyEvent
from durably.core.jobs import JobDefinition
from durably.core.pauses import pauses
from durably.core.runs import Run
from durably.core.store import Store
from durably.engine.active_runs import ActiveRuns
from durably.engine.event_hub import EventHub
from durably.engine.executor import Executor
from durably.engine.leases import LeaseKeeper
from durably.engine.maintenance import Maintenance
from durably.tasks import begin_task

_LAST_TURN_SECONDS: Final = 1.0
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 10.0

log = logging.getLogger("durably")


class Worker:
    """Executes runs of the registered jobs, up to `max_concurrent_runs` at once."""

    def __init__(
        self,
        store: Store,
        jobs: Mapping[str, JobDefinition[Any, Any]],
        executor: Executor,
        leases: LeaseKeeper,
        maintenance: Maintenance,
        hub: EventHub,
        clock: Clock,
        *,
        worker_id: str,
        max_concurrent_runs: int,
        lease_seconds: float,
        polling_seconds: float,
    ) -> None:
        self._maintenance = maintenance
        self._hub = hub
        self._clock = clock
        self._worker_id = worker_id
        self._max_concurrent_runs = max_concurrent_runs
        self._polling_seconds = polling_seconds
        self._runs = ActiveRuns(
            store, jobs, executor, leases, clock, lease_seconds=lease_seconds, slot_free=self.wake, tell=self._tell
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_task: asyncio.Task[None] | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._wakes: set[asyncio.Event] = set()
        self._stops: set[asyncio.Future[None]] = set()
        """One for each stop that is under way; several may be, the second because it is in a hurry."""
        self._leases = leases
        hub.attach(self)

    def wake(self) -> None:
        """Look for work now."""
        for wake in self._wakes:
            wake.set()

    async def start(self) -> None:
        """Begin to claim and execute; does nothing when it does so already. Waits for a stop that is under way.

        Raises `StoreError` when the instance was closed meanwhile.
        """
        while self._stops:
            await asyncio.wait(self._stops)
        if self._hub.is_stopped:
            raise StoreError("the instance was closed: make a new one to start a worker")
        if self._loop_task is None or self._loop_task.done():
            self._serve_soon()

    def _serve_soon(self) -> None:
        self._loop_task = begin_task(self._serve(), "durably-worker")
        self._loop_task.add_done_callback(_warn_if_cancelled)

    def run_ended(self, event: DurablyEvent) -> None:
        """Stop a run that was ended from outside."""
        self._runs.ended_from_outside(event)

    def executing(self) -> Sequence[Run[Any]]:
        """Return the runs that execute here and have not been told to end."""
        return self._leases.running()

    def loop_changed(self) -> None:
        """Work on a new event loop if the one before ended without a stop, as that of an `asyncio.run`."""
        self._forget_loop()
        if self._loop_task is not None:
            self._serve_soon()

    def _forget_loop(self) -> None:
        # One that was closed with all its tasks has left everything as it was.
        self._runs.forget()
        self._wakes.clear()
        self._stops.clear()
        self._upkeep = None

    async def stop(self, timeout: float | None) -> None:
        """Claim nothing more and wait for what runs; after `timeout` seconds give up what is left."""
        if self._loop is not None and self._loop.is_closed():
            # Nothing of it ends any more, nor can it be woken.
            self._forget_loop()
            self._loop_task = None
        stopped = asyncio.get_running_loop().create_future()
        self._stops.add(stopped)
        self._maintenance.hurry()
        self.wake()
        try:
            await self._stop(timeout)
        finally:
            # Also when this was cancelled: whoever starts it again must not wait for a stop that was given up.
            self._loop_task = None
            self._stops.discard(stopped)
            stopped.set_result(None)

    async def _stop(self, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await _until_done(self._loop_task)
                await self._runs.all_ended()
                await _until_done(self._upkeep)
        except TimeoutError:
            log.info("stopping without waiting any longer for %d runs", len(self._runs))
        await self._runs.give_up()
        # It may still wait for a database that is away, and ends when it sees that it is not the one any more.
        await _until_done(self._loop_task, _LAST_TURN_SECONDS)
        # Looked at again: the loop may have begun it in its last turn. What it does is done whole or not at all.
        if self._upkeep is not None:
            self._upkeep.cancel()
            await _until_done(self._upkeep)
            self._upkeep = None

    async def process(self, worker_id: str | None, *, max_runs: int | None, until_idle: bool) -> int:
        """Execute up to `max_runs` runs; return how many. Works without `start`.

        With `until_idle` it goes on until nothing is claimable, and does maintenance when it got there.
        """
        own: set[asyncio.Task[Any]] = set()
        started, most = 0, sys.maxsize if max_runs is None else max_runs
        with self._waking() as wake:
            while True:
                wake.clear()
                # What ends while this looks may free a key or trigger another run: then it looks again.
                was_executing = bool(own)
                begun = await self._begin_more(worker_id or self._worker_id, own, most - started, wake)
                started += begun
                if not begun and not was_executing:
                    break
                if not begun:
                    await wake.wait()
        if until_idle and started < most and self._maintenance.is_due(idle=True):
            await self._maintenance.run(idle=True)
        return started

    async def _begin_more(self, worker_id: str, own: set[asyncio.Task[Any]], most: int, ended: asyncio.Event) -> int:
        """Fill the slots that `own` leaves free, with `most` runs at most; return how many were begun.

        Sets `ended` when one of them has.
        """
        free = 0 if self._stops else min(self._max_concurrent_runs - self._runs.slots_taken_by(own), most)
        if free <= 0:
            return 0
        is_executing = bool(own)
        try:
            begun = await self._runs.claim(worker_id, free)
        except StoreUnavailableError:
            if not is_executing:
                raise
            # What executes has to end in any case; then it is tried again.
            return 0
        for task in begun:
            own.add(task)
            task.add_done_callback(own.discard)
            task.add_done_callback(lambda _: ended.set())
        return len(begun)

    # --- the loop ----------------------------------------------------------------------------------

    async def _serve(self) -> None:
        waits = None
        with self._waking() as wake:
            while self._is_serving():
                wake.clear()
                try:
                    may_be_more = await self._fill_slots()
                    self._maintain_if_due()
                    waits = None
                except Exception as error:
                    # Whatever a database or a row of it throws: a worker that is gone is worse than one that tries.
                    if not isinstance(error, StoreError):
                        log.exception("an unexpected error while looking for work")
                    self._tell(f"cannot look for work, trying again: {error}")
                    waits = waits or pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
                    await self._back_off(next(waits))
                    continue
                if not may_be_more:
                    await self._pause(wake)

    @contextmanager
    def _waking(self) -> Iterator[asyncio.Event]:
        """Give what `wake` sets."""
        wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._wakes.add(wake)
        try:
            yield wake
        finally:
            self._wakes.discard(wake)

    async def _fill_slots(self) -> bool:
        """Begin as many runs as there is room for; tell whether there may be more now."""
        free = self._max_concurrent_runs - self._runs.slots_taken()
        if free <= 0:
            # The next that ends leaves room for what woke the worker now.
            self._runs.may_be_more = True
            return False
        return bool(await self._runs.claim(self._worker_id, free)) and self._runs.may_be_more

    def _is_serving(self) -> bool:
        return not self._stops and asyncio.current_task() is self._loop_task

    def _maintain_if_due(self) -> None:
        idle = not self._runs
        if not self._is_serving():
            return
        if self._maintenance.is_due(idle=idle) and (self._upkeep is None or self._upkeep.done()):
            self._upkeep = begin_task(self._maintenance.run(idle=idle), "durably-maintenance")

    async def _pause(self, wake: asyncio.Event) -> None:
        if self._stops:
            return
        waiting = asyncio.get_running_loop().call_later(self._polling_seconds, wake.set)
        try:
            await wake.wait()
        finally:
            waiting.cancel()

    async def _back_off(self, seconds: float) -> None:
        """Wait without heeding what wakes the worker, but not when it stops."""
        deadline = self._clock.monotonic() + seconds
        while not self._stops and (left := deadline - self._clock.monotonic()) > 0:
            await asyncio.sleep(min(left, _FIRST_PAUSE_SECONDS))

    def _tell(self, message: str, run_id: str | None = None) -> None:
        log.warning(message)
        self._hub.announce_trouble(message, "worker", run_id)


def _warn_if_cancelled(loop_task: asyncio.Task[None]) -> None:
    if loop_task.cancelled():
        log.warning(
            "the worker was cancelled from outside: nothing is claimed here until it is started again, or a run is "
            "triggered or waited for on another event loop, and what it executed is resumed when its leases have "
            "ended. End a worker with stop()"
        )


async def _until_done(task: asyncio.Task[None] | None, timeout: float | None = None) -> None:
    # Tasks of an event loop that is gone are done, and cannot be waited for.
    if task is not None and not task.done():
        await asyncio.wait([task], timeout=timeout)
