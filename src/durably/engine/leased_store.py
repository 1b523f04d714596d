"""The database as one run uses it: while its lease is held, and again and again while the database is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from durably.core.errors import LeaseLostError, StoreError, StoreUnavailableError, ValueRefusedError
from durably.core.events import DurablyEvent
from durably.core.outcomes import Completed, Failed
from durably.core.pauses import pauses
from durably.core.runs import RunStatus
from durably.core.store import StepRecord, Store
from durably.engine.event_hub import EventHub
from durably.engine.held_lease import HeldLease

log = logging.getLogger("durably")


class LeasedStore:
    """Reads and fenced writes of one run.

    A write raises `LeaseLostError` or `CancelledError` when it does not hold, `ValueRefusedError` when that of a
    result can never be done: then a failure can be written in its place.
    """

    def __init__(self, lease: HeldLease, store: Store, hub: EventHub) -> None:
        self.error: StoreError | None = None
        """Why nothing can be recorded any more, when the database is beyond help."""
        self._lease = lease
        self._store = store
        self._hub = hub

    def check_held(self) -> None:
        """Raise what ends an execution when nothing may be written any more."""
        if self.error is not None:
            raise LeaseLostError(self._lease.run.id) from self.error
        self._lease.check_held()

    async def load_checkpoints(self) -> dict[str, str | None]:
        """Return the JSON text of every completed step by name."""
        run_id = self._lease.run.id
        waits = pauses()
        while True:
            self.check_held()
            try:
                return await self._store.load_checkpoints(run_id)
            except StoreUnavailableError as error:
                self.tell(f"the checkpoints of run {run_id} could not be read, trying again: {error}")
            await asyncio.sleep(next(waits))

    def record_step(
        self, step: StepRecord, progress_json: str | None, event: DurablyEvent
    ) -> Coroutine[Any, Any, None]:
        """Store a finished step, and the latest progress where it is not stored yet."""
        write = partial(self._store.record_step, self._lease.claim, step, progress_json, event)
        return self._persist(write, is_result=step.error is None)

    def finish(
        self, outcome: Completed | Failed, progress_json: str | None, event: DurablyEvent
    ) -> Coroutine[Any, Any, None]:
        """End the run."""
        write = partial(self._store.finish, self._lease.claim, outcome, progress_json, event)
        return self._persist(write, is_result=isinstance(outcome, Completed))

    def settle(self) -> Coroutine[Any, Any, None]:
        """Return when every write that was asked for before is done: they are done in their order."""
        return self._persist(partial(self._store.save_progress, self._lease.claim, None))

    async def save_progress(self, progress_json: str) -> None:
        """Store the latest progress, once: a later one will follow. Raises `StoreError`."""
        if self._lease.is_held():
            await self._store.save_progress(self._lease.claim, progress_json)

    def tell(self, message: str) -> None:
        """Say what is wrong with the database, in the log and as an event."""
        log.warning(message)
        self._hub.announce_trouble(message, "execution", self._lease.run.id)

    async def _persist(self, write: Callable[[], Awaitable[bool]], *, is_result: bool = False) -> None:
        # Made when they are needed, for every step comes through here.
        waits = None
        while True:
            self.check_held()
            try:
                if not await write():
                    await self._find_out_why_refused()
                    self.check_held()
                return
            except StoreUnavailableError as error:
                self.tell(f"a checkpoint could not be written, trying again: {error}")
            except StoreError as error:
                if is_result and isinstance(error, ValueRefusedError):
                    raise
                self.error = error
                self.tell(
                    f"run {self._lease.run.id} of job {self._lease.run.job_name!r} stops here, and is executed again "
                    f"when its lease has ended, because it cannot be written: {error}"
                )
                raise
            waits = waits or pauses()
            await asyncio.sleep(next(waits))

    async def _find_out_why_refused(self) -> None:
        """Abort for the reason that the stored run gives: its event may still be on its way."""
        run = await self._store.get_run(self._lease.run.id)
        if run is None or run.status is RunStatus.CANCELLED:
            self._lease.controller.abort("cancelled")
        else:
            self._lease.lose("another worker holds the run")
