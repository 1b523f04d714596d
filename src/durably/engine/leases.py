"""The leases of this process: one thread renews them all.

A job that blocks the event loop must not lose its lease, so renewal depends on nothing but its own thread
and its own connection. If renewal fails for so long that the lease runs out, the holder stops by itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final

from durably.core.clock import Clock
from durably.core.errors import ConflictError, StoreError
from durably.core.events import RunLeaseRenewedEvent
from durably.core.leases import Claim
from durably.core.runs import Run, RunStatus
from durably.core.store import LeaseRenewer, Store
from durably.engine.deadlines import Deadlines
from durably.engine.event_hub import EventHub
from durably.engine.held_lease import HeldLease
from durably.engine.loop_thread import LoopThread
from durably.engine.loop_watch import LoopWatch
from durably.engine.threads import tasks_of_this_code
from durably.tasks import begin_task

_LONGEST_TICK_SECONDS: Final = 1.0

log = logging.getLogger("durably")


class LeaseKeeper:
    """Renews every lease of this process until it is given up."""

    def __init__(
        self, store: Store, hub: EventHub, clock: Clock, *, lease_seconds: float, renew_seconds: float
    ) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._renew_seconds = renew_seconds
        self._tick_seconds = min(renew_seconds, lease_seconds / 5, _LONGEST_TICK_SECONDS)
        self._held: dict[str, HeldLease] = {}
        self._wake = threading.Condition()
        self._process = os.getpid()
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop_thread: LoopThread
        self._is_stopping = False
        self._renewer: LeaseRenewer | None = None
        self._renewer_of_parent: LeaseRenewer | None = None
        self._next_renewal = 0.0
        self._watch = LoopWatch(clock)
        self._deadlines = Deadlines(clock, self.held)
        self._tasks: set[asyncio.Task[None]] = set()

    def keep(self, claim: Claim, run: Run[Any], claimed_at: float) -> HeldLease:
        """Hold a lease until `let_go`; `claimed_at` is what the monotonic clock said before the claim."""
        lease = HeldLease(claim, run, claimed_at, self._lease_seconds, self._clock, self._tell_lost)
        with self._wake:
            self._start()
            # Counted from when the lease was asked for: the answer may have taken a while.
            due = claimed_at + self._renew_seconds
            self._next_renewal = min(self._next_renewal, due) if self._held else due
            before = self._held.get(claim.run_id)
            self._held[claim.run_id] = lease
        self._deadlines.watch(lease)
        if before is not None:
            # It ran out unnoticed, and this worker was the first to claim the run again.
            before.lose("it had expired, and this process has claimed the run again")
        return lease

    def let_go(self, lease: HeldLease) -> None:
        """Renew a lease no more."""
        with self._wake:
            if self._held.get(lease.claim.run_id) is lease:
                del self._held[lease.claim.run_id]

    def find(self, run_id: str) -> HeldLease | None:
        """Return the lease of a run that executes here, or None."""
        return self._held.get(run_id)

    def held(self) -> list[HeldLease]:
        """Return all leases of this process."""
        with self._wake:
            return list(self._held.values())

    def running(self) -> list[Run[Any]]:
        """Return the runs that execute here and have not been told to end."""
        return [lease.run for lease in self.held() if lease.controller.signal.unseen_reason is None]

    def refuse_within(self, operation: str, run_id: str | None = None) -> None:
        """Raise `ConflictError` in the code of a run, or of this run: the caller would wait for its own end."""
        tasks = tasks_of_this_code()
        for lease in self.held():
            run = lease.run
            if run_id in (None, run.id) and any(task in lease.tasks for task in tasks):
                raise ConflictError(
                    f"Cannot {operation} within run {run.id} of job {run.job_name!r}: both would wait for each other "
                    "for ever. Do it outside of the run",
                    operation=operation,
                    run_id=run.id,
                    job_name=run.job_name,
                )

    async def stop(self) -> None:
        """End the thread; leases still held are not renewed any more."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        self._deadlines.stop()
        thread = self._thread
        if thread is not None:
            # Off the loop: a renewal under way may wait for a database that is away.
            await asyncio.to_thread(thread.join)
            self._thread = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._close_renewer()
        for task in self._tasks:
            task.cancel()
        self._is_stopping = False

    # --- the thread --------------------------------------------------------------------------------

    def _start(self) -> None:
        self._loop_thread = LoopThread()
        if self._process != os.getpid():
            # A fork inherits neither the thread nor what it renews.
            self._process, self._thread = os.getpid(), None
            # Kept, for closing it would take the parent's sockets from what the parent waits on.
            self._renewer_of_parent, self._renewer = self._renewer, None
            self._held.clear()
        if self._thread is not None or self._task is not None:
            return
        if sys.platform == "emscripten":
            self._task = begin_task(self._serve_in_loop())
            return
        # Anew: what the one before asked a loop that is gone will never be answered.
        self._watch = LoopWatch(self._clock)
        self._thread = threading.Thread(target=self._serve, name="durably-leases", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            with self._wake:
                # Also while nothing is held: to be woken for every first lease would delay its run by a hop to here.
                if not self._is_stopping:
                    self._wake.wait(self._tick_seconds)
                if self._loop_thread.loop.is_closed():
                    # Nobody works any more: leases that this thread kept alive would hold their runs for ever.
                    self._held.clear()
                    self._thread = None
                if self._is_stopping or self._thread is None:
                    # Taken along: to close it takes a while, and the thread after this one may begin meanwhile.
                    renewer, self._renewer = self._renewer, None
                    break
            if self._held:
                self._tick()
                self._watch.look(self._loop_thread, self.held())
        if renewer is not None:
            renewer.close()

    async def _serve_in_loop(self) -> None:
        while True:
            await asyncio.sleep(self._tick_seconds)
            self._tick()

    def _tick(self) -> None:
        now = self._clock.monotonic()
        if now >= self._next_renewal:
            self._next_renewal = now + self._renew_seconds
            self._renew(now)
        for lease in self.held():
            lease.is_held()

    def _renew(self, now: float) -> None:
        leases = [lease for lease in self.held() if lease.is_held()]
        if not leases:
            return
        try:
            if self._renewer is None:
                self._renewer = self._store.lease_renewer()
            renewed = self._renewer.renew([lease.claim for lease in leases], self._lease_seconds)
        except Exception as error:  # noqa: BLE001 - tried again at the next tick, until the lease runs out
            log.warning("leases could not be renewed, trying again: %s", error)
            self._next_renewal = now + self._tick_seconds
            self._loop_thread.call_soon(partial(self._hub.announce_trouble, str(error), "lease-renewal"))
            return
        for lease in leases:
            claim = renewed.get(lease.claim.run_id)
            if claim is lease.claim:
                # Somebody held up its row: tried again at the next tick, until the lease runs out.
                self._next_renewal = now + self._tick_seconds
            elif claim is not None and lease.is_held():
                lease.claim, lease.deadline = claim, now + self._lease_seconds
                self._loop_thread.call_soon(partial(self._tell_renewed, lease))
            elif claim is not None:
                self._loop_thread.call_soon(partial(self._begin, self._give_back, lease))
            elif self._held.get(lease.claim.run_id) is lease:
                self._loop_thread.call_soon(partial(self._begin, self._find_out_why_refused, lease))

    def _begin(self, work: Callable[[HeldLease], Coroutine[Any, Any, None]], lease: HeldLease) -> None:
        task = begin_task(work(lease))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _give_back(self, lease: HeldLease) -> None:
        """Release what was renewed when it had been given up here: the run would wait for a lease that nobody holds."""
        # Where that cannot be written either, the run is free when the lease has ended.
        with suppress(StoreError):
            await self._store.release([lease.claim])

    async def _find_out_why_refused(self, lease: HeldLease) -> None:
        """Tell a lost lease from a run that was cancelled, or whose end was just recorded by its holder."""
        try:
            run = await self._store.get_run(lease.claim.run_id)
        except StoreError as error:
            lease.lose(f"it was not renewed, and why cannot be read ({error})")
            return
        if self._held.get(lease.claim.run_id) is not lease:
            return
        if run is None or run.status is RunStatus.CANCELLED:
            lease.controller.abort("cancelled")
        elif not run.is_terminal or run.lease_generation != lease.claim.generation:
            lease.lose("it had expired, or another worker holds the run")

    def _tell_lost(self, lease: HeldLease, why: str) -> None:
        message = f"lost the lease of run {lease.claim.run_id} of job {lease.run.job_name!r}: {why}; it stops here"
        log.warning(message)
        self._loop_thread.call_soon(
            partial(self._hub.announce_trouble, message, "lease-lost", run_id=lease.claim.run_id)
        )

    def _tell_renewed(self, lease: HeldLease) -> None:
        self._hub.announce(
            RunLeaseRenewedEvent(
                timestamp=self._clock.now(),
                run_id=lease.claim.run_id,
                job_name=lease.run.job_name,
                labels=lease.run.labels,
                lease_owner=lease.claim.owner,
                lease_expires_at=lease.claim.expires_at,
            )
        )

    def _close_renewer(self) -> None:
        if self._renewer is not None:
            self._renewer.close()
            self._renewer = None
