"""Everything one does with runs short of executing them; what an instance and its handles share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from durably.core.clock import Clock
from durably.core.jobs import JobDefinition
from durably.core.runs import Run, TriggerResult
from durably.core.store import Position, RunQuery, Store
from durably.engine.enqueue import Enqueuer, TriggerOrder
from durably.engine.event_hub import EventHub
from durably.engine.leases import LeaseKeeper
from durably.engine.waiting import OnLog, OnProgress, completed, report_run, report_to_end, wait_for_end


class RunService:
    """Triggers, finds, waits for and ends runs. Whatever it writes, listeners of this process hear of."""

    def __init__(
        self,
        store: Store,
        hub: EventHub,
        leases: LeaseKeeper,
        clock: Clock,
        enqueuer: Enqueuer,
        polling_seconds: float,
    ) -> None:
        self._store = store
        self._hub = hub
        self._leases = leases
        self._clock = clock
        self._enqueuer = enqueuer
        self._polling_seconds = polling_seconds

    async def enqueue(
        self, definition: JobDefinition[Any, Any], orders: Sequence[TriggerOrder]
    ) -> list[TriggerResult[Any]]:
        """Store a run for every order, all or none. Raises `ValidationError`, `ConflictError`."""
        await self._hub.start()
        return await self._enqueuer.enqueue(definition, orders)

    async def retrigger(self, run_id: str) -> Run[Any]:
        """Make a fresh run from a terminal one."""
        await self._hub.start()
        return await self._enqueuer.retrigger(run_id)

    async def get(self, run_id: str) -> Run[Any] | None:
        """Return a run, or None."""
        run = await self._store.get_run(run_id)
        return None if run is None else self._shown([run])[0]

    async def find(self, query: RunQuery) -> list[Run[Any]]:
        """Return the runs of a query, newest first."""
        return self._shown(await self._store.get_runs(query))

    async def cancel(self, run_id: str) -> None:
        """Cancel a pending or leased run."""
        await self._hub.start()
        await self._hub.progress.store(run_id)
        lease = self._leases.find(run_id)
        if lease is None:
            await self._store.cancel(run_id)
            return
        # The job itself may ask for it: then it learns of it by this.
        with lease.controller.signal.learnt_here():
            await self._store.cancel(run_id)
            lease.controller.abort("cancelled")

    async def delete(self, run_id: str) -> None:
        """Delete a terminal run."""
        await self._hub.start()
        await self._store.delete_run(run_id)

    async def purge(self, ended: datetime | timedelta, limit: int) -> int:
        """Delete up to `limit` terminal runs that ended then or before, or that long ago; return how many."""
        await self._hub.start()
        ended_by = ended if isinstance(ended, datetime) else await self._store.now() - ended
        return await self._store.purge_runs(ended_by, limit)

    async def position(self) -> Position:
        """Return where the event log stands now, to report from there on."""
        await self._hub.start()
        return self._hub.position

    async def wait(
        self,
        run_id: str,
        *,
        since: Position | None,
        timeout: float | None,
        polling_seconds: float | None,
        on_progress: OnProgress | None,
        on_log: OnLog | None,
    ) -> Run[Any]:
        """Return the completed run, and report what it tells: all since a position, or its state and what follows.

        Raises `NotFoundError`, `RunFailedError`, `RunCancelledError`, `TimeoutError`, and `ConflictError` within that
        run.
        """
        looks_once = timeout == 0
        if not looks_once:
            self._leases.refuse_within("wait", run_id)
        ending = wait_for_end(
            self._hub, self._store, run_id, polling_seconds or self._polling_seconds, looks_once=looks_once
        )
        # Without time to wait there is still time to look.
        try:
            async with asyncio.timeout(timeout or None):
                if looks_once or (on_progress is None and on_log is None):
                    run = await ending
                else:
                    reporting = report_run(self._hub, self._store, self._clock, run_id, since, on_progress, on_log)
                    run = await report_to_end(ending, reporting)
        except TimeoutError as error:
            raise TimeoutError(f"Run {run_id} did not end within {timeout} s") from error
        return completed(run)

    def _shown(self, runs: Sequence[Run[Any]]) -> list[Run[Any]]:
        return self._hub.progress.shown_in(runs, self._leases.running())
