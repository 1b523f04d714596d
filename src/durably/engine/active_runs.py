"""The runs that this process executes: claimed, begun, and given up when it stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, Final
from weakref import WeakSet

from durably.core.clock import Clock
from durably.core.errors import StoreError, ValueRefusedError
from durably.core.events import DurablyEvent, RunCancelEvent, RunDeleteEvent
from durably.core.jobs import JobDefinition
from durably.core.leases import Claim
from durably.core.store import Claimed, Store
from durably.engine.executor import Executor
from durably.engine.held_lease import HeldLease
from durably.engine.leases import LeaseKeeper
from durably.tasks import begin_task

_UNWIND_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 1.0
_CLAIM_TRIES: Final = 3

log = logging.getLogger("durably")


class ActiveRuns:
    """What was claimed here and has not ended, each run as the task that executes it.

    `slot_free` is called when there is room for another run that may be waiting, `tell` with what went wrong and the
    run that it concerns.
    """

    def __init__(
        self,
        store: Store,
        jobs: Mapping[str, JobDefinition[Any, Any]],
        executor: Executor,
        leases: LeaseKeeper,
        clock: Clock,
        *,
        lease_seconds: float,
        slot_free: Callable[[], None],
        tell: Callable[[str, str | None], None],
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._executor = executor
        self._leases = leases
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._slot_free = slot_free
        self._tell = tell
        self._active: dict[asyncio.Task[Any], HeldLease] = {}
        self._ending: set[asyncio.Task[Any]] = set()
        """Those whose job has returned: only the record of their end is still to be written."""
        self._claimers: WeakSet[asyncio.Task[Any]] = WeakSet()
        """Those that claimed what executes here: the loop of the worker, and whoever processes without it."""
        self._looks: set[asyncio.Future[None]] = set()
        """One for each claim that is under way and not given up: what it finds is not active yet."""
        self._releases: set[asyncio.Task[None]] = set()
        self._ended_meanwhile: set[str] = set()
        """The runs that were cancelled or deleted while a claim was under way, which may just have got them."""
        self.may_be_more = False
        """Whether something may be waiting: the last claim may have left some, or there was no room for any."""

    def __len__(self) -> int:
        return len(self._active)

    def slots_taken(self) -> int:
        """Return how many runs have a job that has not returned."""
        return len(self._active) - len(self._ending)

    def slots_taken_by(self, tasks: AbstractSet[asyncio.Task[Any]]) -> int:
        """Return how many of these have a job that has not returned."""
        return len(tasks - self._ending)

    async def claim(self, worker_id: str, limit: int) -> list[asyncio.Task[Any]]:
        """Claim up to `limit` runs and begin them; return the tasks that execute them."""
        if not self._jobs:
            return []
        if (claimer := asyncio.current_task()) is not None:
            self._claimers.add(claimer)
        look = asyncio.get_running_loop().create_future()
        self._looks.add(look)
        try:
            return await self._claim_and_begin(worker_id, limit, look)
        finally:
            self._looks.discard(look)
            look.set_result(None)
            if not self._looks:
                self._ended_meanwhile.clear()

    async def all_ended(self) -> None:
        """Return when nothing executes, nor is being claimed."""
        while under_way := {*self._looks, *self._active}:
            await asyncio.wait(under_way)

    async def give_up(self) -> None:
        """Interrupt what still runs and give its leases back, so that another worker resumes at once.

        Waits a few seconds at most: what a database that is away has not answered then is given back when it does.
        """
        given_up = self._interrupted()
        # Not released before: a claim that is under way here could be given one of these runs.
        if self._looks:
            await asyncio.wait(self._looks, timeout=_ANSWER_SECONDS)
            self._looks.clear()
        given_up |= self._interrupted()
        if not given_up:
            return
        await asyncio.wait(given_up, timeout=_UNWIND_SECONDS)
        for task in given_up:
            task.cancel()
        await asyncio.wait([self._release([lease.claim for lease in given_up.values()])], timeout=_ANSWER_SECONDS)

    def _release(self, claims: Sequence[Claim]) -> asyncio.Task[None]:
        """Give leases back, whoever waits for it or does not."""

        async def release() -> None:
            try:
                await self._store.release(claims)
            except StoreError as error:
                self._tell(f"leases could not be released, their runs are free when they expire: {error}", None)

        releasing = begin_task(release(), "durably-release")
        self._releases.add(releasing)
        releasing.add_done_callback(self._releases.discard)
        return releasing

    def _interrupted(self) -> dict[asyncio.Task[Any], HeldLease]:
        for lease in self._active.values():
            lease.controller.abort("released")
        return dict(self._active)

    def forget(self) -> None:
        """Leave all runs to others: the event loop was closed, with every task as it was."""
        self._ended_meanwhile.clear()
        for left in (self._active, self._ending, self._looks, self._claimers, self._releases):
            left.clear()
        for lease in self._leases.held():
            self._leases.let_go(lease)

    def ended_from_outside(self, event: DurablyEvent) -> None:
        """Abort a run that executes here, or is about to, and was cancelled or deleted."""
        if not isinstance(event, RunCancelEvent | RunDeleteEvent):
            return
        if (lease := self._leases.find(event.run_id)) is not None:
            lease.controller.abort("cancelled")
        elif self._looks:
            self._ended_meanwhile.add(event.run_id)

    async def _claim_and_begin(
        self, worker_id: str, limit: int, look: asyncio.Future[None], tries: int = _CLAIM_TRIES
    ) -> list[asyncio.Task[Any]]:
        claimed_at = self._clock.monotonic()
        claiming = asyncio.ensure_future(self._store.claim(worker_id, list(self._jobs), limit, self._lease_seconds))
        try:
            claimed = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # It may be committed all the same, and nobody would execute those runs until their leases end.
            with suppress(StoreError):
                await self._store.release([each.claim for each in await claiming])
            raise
        except ValueRefusedError:
            if limit == 1:
                raise
            # The event log takes what is claimed together as one value, with the inputs of all.
            return await self._claim_and_begin(worker_id, 1, look)
        if look not in self._looks:
            # The answer came when a stop had long given up waiting for it.
            await self._release([each.claim for each in claimed])
            return []
        if claimed and self._clock.monotonic() >= claimed_at + self._lease_seconds:
            # Given up as soon as they began, these runs would wait for the end of leases that nobody holds.
            await self._release([each.claim for each in claimed])
            if tries == 1:
                self._tell("what is claimed has expired before it can begin: make lease_duration longer", None)
                return []
            return await self._claim_and_begin(worker_id, limit, look, tries - 1)
        # Where claimers work beside each other, one passes over what another is just looking at.
        may_be_passed_over = bool(claimed) and not self._store.claims_see_writes_under_way
        self.may_be_more = len(claimed) == limit or may_be_passed_over
        return [self._begin(each, claimed_at) for each in claimed]

    def _begin(self, claimed: Claimed, claimed_at: float) -> asyncio.Task[Any]:
        # Held from here on, before anything else can happen: whoever ends the run or stops the worker finds it.
        lease = self._leases.keep(claimed.claim, claimed.run, claimed_at)
        if claimed.run.id in self._ended_meanwhile:
            lease.controller.abort("cancelled")
        task = begin_task(self._execute(lease), f"durably-run-{claimed.run.id}")
        self._active[task] = lease
        task.add_done_callback(self._ended)
        return task

    async def _execute(self, lease: HeldLease) -> None:
        try:
            await self._executor.execute(lease, self._job_returned, self._is_program_ending)
        except Exception as error:
            log.exception("run %s ended by an error of the worker itself", lease.run.id)
            self._tell(f"run {lease.run.id} ended by an error of the worker itself: {error!r}", lease.run.id)

    def _job_returned(self) -> None:
        task = asyncio.current_task()
        if task is not None and self.may_be_more and self._store.claims_see_writes_under_way:
            # The next run is claimed in the transaction that ends this one: one flush to the disk less between them.
            self._ending.add(task)
            self._slot_free()

    def _is_program_ending(self) -> bool:
        """Tell whether what claimed here is being cancelled, as at the end of `asyncio.run`, or is gone."""
        is_left = any(not claimer.done() for claimer in self._claimers)
        return not is_left or any(claimer.cancelling() for claimer in self._claimers)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if (lease := self._active.pop(task, None)) is not None:
            self._leases.let_go(lease)
        self._ending.discard(task)
        if self.may_be_more:
            self._slot_free()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an execution ended by %r", error)
