"""The worker: claims what is free to run, as much as it has slots for, and stops gracefully."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from weakref import WeakSet

from durably.core.clock import Clock
from durably.core.errors import StoreError, StoreUnavailableError
from durably.core.events import DurablyEvent, WorkerErrorEvent
from durably.core.jobs import JobDefinition
from durably.core.store import Claimed, Store
from durably.engine.event_hub import EventHub
from durably.engine.executor import Executor
from durably.engine.leases import LeaseKeeper
from durably.engine.maintenance import Maintenance

_FIRST_BACKOFF_SECONDS: Final = 0.1
_LONGEST_BACKOFF_SECONDS: Final = 10.0
_UNWIND_SECONDS: Final = 1.0

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
        self._store = store
        self._jobs = jobs
        self._executor = executor
        self._leases = leases
        self._maintenance = maintenance
        self._hub = hub
        self._clock = clock
        self._worker_id = worker_id
        self._max_concurrent_runs = max_concurrent_runs
        self._lease_seconds = lease_seconds
        self._polling_seconds = polling_seconds
        self._loop_task: asyncio.Task[None] | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._active: dict[asyncio.Task[Any], Claimed] = {}
        self._ending: set[asyncio.Task[Any]] = set()
        """Those whose job has returned: only the record of their end is still to be written."""
        self._claimers: WeakSet[asyncio.Task[Any]] = WeakSet()
        """Those that claimed what executes here: the loop, and whoever processes without it."""
        self._looks: set[asyncio.Future[None]] = set()
        """One for each claim that is under way: what it finds is not active yet."""
        self._may_be_more = False
        """Whether the last claim got all that it asked for."""
        self._wakes: set[asyncio.Event] = set()
        self._stops: set[asyncio.Future[None]] = set()
        """One for each stop that is under way; several may be, the second because it is in a hurry."""
        hub.work_arrived = self.wake
        hub.run_ended = self._run_ended
        hub.executing = leases.running
        hub.moved = self._go_on

    def wake(self) -> None:
        """Look for work now."""
        for wake in self._wakes:
            wake.set()

    async def start(self) -> None:
        """Begin to claim and execute; does nothing when it does so already. Waits for a stop that is under way."""
        while self._stops:
            await asyncio.wait(self._stops)
        if self._loop_task is None or self._loop_task.done():
            self._serve_soon()

    def _serve_soon(self) -> None:
        self._loop_task = asyncio.create_task(self._serve(), name="durably-worker")
        self._loop_task.add_done_callback(_warn_if_cancelled)

    def _go_on(self) -> None:
        """Work on a new event loop if the one before ended without a stop, as that of an `asyncio.run`."""
        if self._loop_task is None:
            return
        # A loop that was closed with all its tasks has left everything as it was.
        for left in (self._active, self._ending, self._looks, self._claimers, self._wakes, self._stops):
            left.clear()
        for lease in self._leases.held():
            self._leases.let_go(lease)
        self._upkeep = None
        self._serve_soon()

    async def stop(self, timeout: float | None) -> None:
        """Claim nothing more and wait for what runs; after `timeout` seconds give up what is left."""
        stopped = asyncio.get_running_loop().create_future()
        self._stops.add(stopped)
        self.wake()
        try:
            await self._stop(timeout)
        finally:
            # Also when this was cancelled: else nothing would ever be claimed again.
            self._stops.discard(stopped)
            stopped.set_result(None)

    async def _stop(self, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await _until_done(self._loop_task)
                while under_way := {*self._looks, *self._active}:
                    await asyncio.wait(under_way)
                await _until_done(self._upkeep)
        except TimeoutError:
            log.info("stopping without waiting any longer for %d runs", len(self._active))
        given_up = dict(self._active)
        await self._give_up(given_up)
        await _until_done(self._loop_task)
        self._loop_task = None
        while self._looks:
            await asyncio.wait(self._looks)
        # What was just being claimed.
        await self._give_up({task: claimed for task, claimed in self._active.items() if task not in given_up})
        # Looked at again: the loop may have begun it in its last turn. What it does is done whole or not at all.
        if self._upkeep is not None:
            self._upkeep.cancel()
            await _until_done(self._upkeep)
            self._upkeep = None

    async def process(self, worker_id: str | None, *, max_runs: int | None, until_idle: bool) -> int:
        """Execute up to `max_runs` runs; return how many. Works without `start`.

        With `until_idle` it goes on until nothing is claimable, and does maintenance when it got there.
        """
        own: dict[asyncio.Task[Any], Claimed] = {}
        wake = asyncio.Event()
        started = 0
        self._wakes.add(wake)
        try:
            while True:
                wake.clear()
                # What ends while this looks may free a key or trigger another run: then it looks again.
                was_executing = bool(own)
                free = self._max_concurrent_runs - len(own.keys() - self._ending)
                if max_runs is not None:
                    free = min(free, max_runs - started)
                if self._stops:
                    free = 0
                try:
                    claimed = await self._claim(worker_id or self._worker_id, free) if free > 0 else []
                except StoreUnavailableError:
                    if not was_executing:
                        raise
                    # What executes has to end in any case; then it is tried again.
                    claimed = []
                for task in claimed:
                    own[task] = self._active[task]
                    task.add_done_callback(own.pop)
                started += len(claimed)
                if not claimed and not was_executing:
                    break
                if not claimed:
                    await wake.wait()
        finally:
            self._wakes.discard(wake)
        if until_idle and (max_runs is None or started < max_runs) and self._maintenance.is_due(idle=True):
            await self._maintenance.run(idle=True)
        return started

    # --- the loop ----------------------------------------------------------------------------------

    async def _serve(self) -> None:
        wake = asyncio.Event()
        self._wakes.add(wake)
        backoff = 0.0
        try:
            while not self._stops:
                wake.clear()
                try:
                    claimed = await self._fill_slots()
                    self._maintain_if_due()
                    backoff = 0.0
                except Exception as error:
                    # Whatever a database or a row of it throws: a worker that is gone is worse than one that tries.
                    if not isinstance(error, StoreError):
                        log.exception("an unexpected error while looking for work")
                    backoff = min(max(2 * backoff, _FIRST_BACKOFF_SECONDS), _LONGEST_BACKOFF_SECONDS)
                    self._tell(f"cannot look for work, trying again: {error}")
                    await self._pause(wake, backoff * random.uniform(0.5, 1), heed_wake=False)  # noqa: S311 - jitter
                    continue
                if not claimed:
                    await self._pause(wake, self._polling_seconds, heed_wake=True)
        finally:
            self._wakes.discard(wake)

    async def _fill_slots(self) -> Sequence[asyncio.Task[Any]]:
        free = self._max_concurrent_runs - len(self._active) + len(self._ending)
        return await self._claim(self._worker_id, free) if free > 0 else ()

    def _maintain_if_due(self) -> None:
        idle = not self._active
        if self._maintenance.is_due(idle=idle) and (self._upkeep is None or self._upkeep.done()):
            self._upkeep = asyncio.create_task(self._maintenance.run(idle=idle), name="durably-maintenance")

    async def _pause(self, wake: asyncio.Event, seconds: float, *, heed_wake: bool) -> None:
        if self._stops:
            return
        if heed_wake:
            waiting = asyncio.get_running_loop().call_later(seconds, wake.set)
            try:
                await wake.wait()
            finally:
                waiting.cancel()
            return
        # Backing off means not to heed what wakes the worker, but stopping must not take that long.
        deadline = self._clock.monotonic() + seconds
        while not self._stops:
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, _FIRST_BACKOFF_SECONDS))

    async def _claim(self, worker_id: str, limit: int) -> list[asyncio.Task[Any]]:
        if not self._jobs:
            return []
        if (claimer := asyncio.current_task()) is not None:
            self._claimers.add(claimer)
        look = asyncio.get_running_loop().create_future()
        self._looks.add(look)
        try:
            return await self._claim_and_begin(worker_id, limit)
        finally:
            self._looks.discard(look)
            look.set_result(None)

    async def _claim_and_begin(self, worker_id: str, limit: int) -> list[asyncio.Task[Any]]:
        claimed_at = self._clock.monotonic()
        claiming = asyncio.ensure_future(self._store.claim(worker_id, list(self._jobs), limit, self._lease_seconds))
        try:
            claimed = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # It may be committed all the same, and nobody would execute those runs until their leases end.
            with suppress(StoreError):
                await self._store.release([each.claim for each in await claiming])
            raise
        self._may_be_more = len(claimed) == limit
        return [self._begin(each, claimed_at) for each in claimed]

    def _begin(self, claimed: Claimed, claimed_at: float) -> asyncio.Task[Any]:
        task = asyncio.create_task(self._execute(claimed, claimed_at), name=f"durably-run-{claimed.run.id}")
        self._active[task] = claimed
        task.add_done_callback(self._forget)
        return task

    async def _execute(self, claimed: Claimed, claimed_at: float) -> None:
        try:
            await self._executor.execute(claimed, claimed_at, self._is_ending, self._is_cancelled)
        except Exception as error:
            log.exception("run %s ended by an error of the worker itself", claimed.run.id)
            self._tell(f"run {claimed.run.id} ended by an error of the worker itself: {error!r}", claimed.run.id)

    def _is_ending(self) -> None:
        task = asyncio.current_task()
        if task is not None and self._may_be_more and self._store.claims_see_writes_under_way:
            # The next run is claimed in the transaction that ends this one: one flush to the disk less between them.
            self._ending.add(task)
            self.wake()

    def _is_cancelled(self) -> bool:
        """Tell whether what claimed here is being cancelled, as at the end of `asyncio.run`, or is gone."""
        is_left = any(not claimer.done() for claimer in self._claimers)
        return not is_left or any(claimer.cancelling() for claimer in self._claimers)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._active.pop(task, None)
        self._ending.discard(task)
        # There is a slot free.
        self.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an execution ended by %r", error)

    async def _give_up(self, left: Mapping[asyncio.Task[Any], Claimed]) -> None:
        """Interrupt what still runs and give its leases back, so that another worker resumes at once."""
        if not left:
            return
        for claimed in left.values():
            if (lease := self._leases.find(claimed.run.id)) is not None:
                lease.controller.abort("released")
        await asyncio.wait(left, timeout=_UNWIND_SECONDS)
        for task in left:
            task.cancel()
        try:
            await self._store.release([claimed.claim for claimed in left.values()])
        except StoreError as error:
            self._tell(f"leases could not be released, their runs are free when they expire: {error}")

    def _run_ended(self, event: DurablyEvent) -> None:
        """Abort a run that executes here and was ended from outside."""
        if event.type in ("run:cancel", "run:delete") and (lease := self._leases.find(getattr(event, "run_id", ""))):
            lease.controller.abort("cancelled")

    def _tell(self, message: str, run_id: str | None = None) -> None:
        log.warning(message)
        self._hub.announce(
            WorkerErrorEvent(timestamp=self._clock.now(), error=message, context="worker", run_id=run_id)
        )


def _warn_if_cancelled(loop_task: asyncio.Task[None]) -> None:
    if loop_task.cancelled():
        log.warning(
            "the worker was cancelled from outside: nothing is claimed here until it is started again, and what it "
            "executed is resumed when its leases have ended. End a worker with stop()"
        )


async def _until_done(task: asyncio.Task[None] | None) -> None:
    # Tasks of an event loop that is gone are done, and cannot be waited for.
    if task is not None and not task.done():
        await asyncio.wait([task])
