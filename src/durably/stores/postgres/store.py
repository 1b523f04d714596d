"""The PostgreSQL store: any number of machines share a database."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from durably.core.clock import Clock, from_text, to_text
from durably.core.errors import StoreError
from durably.core.events import DurablyEvent
from durably.core.leases import Claim
from durably.core.logs import Log
from durably.core.outcomes import Completed, Failed
from durably.core.runs import ProgressData, Run, RunStatus, TriggerResult
from durably.core.steps import Step
from durably.core.store import Claimed, Follower, LogPage, NewRun, Position, RunQuery, StepRecord
from durably.stores.postgres import schema
from durably.stores.postgres import statements as sql
from durably.stores.postgres.batch import Batch
from durably.stores.postgres.connections import Server, close
from durably.stores.postgres.group_commit import is_duplicate
from durably.stores.postgres.listing import RARE, label_counts, list_by_label, list_statement
from durably.stores.postgres.loop_bound import LoopBound
from durably.stores.postgres.options import PostgresOptions
from durably.stores.postgres.renewer import PostgresLeaseRenewer
from durably.stores.sql.rows import (
    latest_progress,
    log_from_row,
    result_from_row,
    run_from_new,
    run_from_row,
    step_from_row,
    trigger_event,
)
from durably.stores.sql.rules import EVENT_ROWS_KEPT, EVENTS_KEPT_FOR

_ROWS_PER_TRIM: Final = 2_000
_SNAPSHOT_PAUSE_SECONDS: Final = 0.002


class PostgresStore:
    """Holds runs in a PostgreSQL database. Made by `open_store`."""

    claims_see_writes_under_way = False

    def __init__(self, options: PostgresOptions, clock: Clock) -> None:
        self.preserve_steps = False
        self._clock = clock
        self._server = Server(options)
        self._bound: LoopBound | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        """Return the database as messages name it, without secrets."""
        return self._server.name

    async def migrate(self) -> None:
        """Bring the schema up to date; idempotent, safe from many processes at once."""
        self._open()
        try:
            connection = await self._server.connect(direct=True)
            try:
                await schema.migrate(self._server, connection)
            finally:
                await close(connection)
        except Exception as error:
            raise self._server.explain(error, direct=True) from error

    async def close(self) -> None:
        """Write what is still buffered and close every connection."""
        if self._is_closed:
            return
        bound = self._open()
        self._is_closed = True
        try:
            await bound.close()
        finally:
            self._bound = None

    # --- runs ------------------------------------------------------------------------------------

    async def enqueue(self, runs: Sequence[NewRun]) -> list[TriggerResult[Any]]:
        """Store all `runs` or none, by the rules of idempotency and concurrency keys."""
        if any(new.has_key for new in runs):
            return await self._open().writes.enqueue(runs)
        now = self._clock.now()

        def unit(batch: Batch) -> None:
            for new in runs:
                batch.add_run(new, trigger_event(new, now))

        await self._open().writer.run(unit)
        return [run_from_new(new) for new in runs]

    async def get_run(self, run_id: str) -> Run[Any] | None:
        """Return a run, or None."""
        rows = await self._open().pool.fetch(sql.RUN_BY_ID, run_id)
        return run_from_row(rows[0]) if rows else None

    async def find_idempotent(self, job_name: str, idempotency_key: str) -> TriggerResult[Any] | None:
        """Return the run that a job's idempotency key stands for, or None."""
        rows = await self._open().pool.fetch(sql.RUN_BY_IDEMPOTENCY_KEY, job_name, idempotency_key)
        return result_from_row(rows[0], "idempotent") if rows else None

    async def get_runs(self, query: RunQuery) -> list[Run[Any]]:
        """Return runs, newest first."""
        lists = self._open().lists
        statement, values = list_statement(query)
        if query.labels:
            counts, arguments = label_counts(query)
            numbers = list((await lists.fetch(counts, *arguments))[0])
            if min(numbers) <= RARE:
                statement, values = list_by_label(query, numbers.index(min(numbers)))
        return [run_from_row(row) for row in await lists.fetch(statement, *values)]

    async def get_steps(self, run_id: str) -> list[Step]:
        """Return the stored steps of a run by index."""
        return [step_from_row(row) for row in await self._open().pool.fetch(sql.STEPS_OF_RUN, run_id)]

    async def get_logs(self, run_id: str) -> list[Log]:
        """Return the stored log lines of a run, oldest first."""
        return [log_from_row(row) for row in await self._open().pool.fetch(sql.LOGS_OF_RUN, run_id)]

    async def which_ended(self, run_ids: Collection[str]) -> list[str]:
        """Return those of `run_ids` whose run has ended or is gone, in one read."""
        return [row["id"] for row in await self._open().pool.fetch(sql.WHICH_ENDED, list(run_ids))]

    async def cancel(self, run_id: str) -> None:
        """Cancel a pending or leased run."""
        await self._open().writes.cancel(run_id, preserve_steps=self.preserve_steps)

    async def delete_run(self, run_id: str) -> None:
        """Delete a terminal run with its steps, logs and labels."""
        await self._open().writes.delete_run(run_id)

    async def now(self) -> datetime:
        """Return the instant at which a run would be said to have ended now."""
        (row,) = await self._open().pool.fetch(f"SELECT {sql.NOW} AS now")
        return from_text(row["now"])

    async def purge_runs(self, ended_by: datetime, limit: int) -> int:
        """Delete up to `limit` terminal runs that ended then or before, oldest first; return how many."""
        return await self._open().writes.purge_runs(to_text(ended_by), limit)

    # --- execution -------------------------------------------------------------------------------

    async def claim(self, owner: str, job_names: Sequence[str], limit: int, lease_seconds: float) -> list[Claimed]:
        """Claim up to `limit` runs of these jobs, oldest first; expired leases count as pending."""
        return await self._open().writes.claim(
            owner, job_names, limit, lease_seconds, preserve_steps=self.preserve_steps
        )

    def lease_renewer(self) -> PostgresLeaseRenewer:
        """Return what renews leases; it is used and closed by one thread of the caller's."""
        return PostgresLeaseRenewer(self._server)

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give runs that are still held back to pending."""
        if claims:
            await self._open().writes.release(claims, preserve_steps=self.preserve_steps)

    async def load_checkpoints(self, run_id: str) -> dict[str, str | None]:
        """Return the JSON text of every completed step of a run by name, in one read."""
        return dict(await self._open().pool.fetch(sql.CHECKPOINTS_OF_RUN, run_id))

    async def record_step(self, claim: Claim, step: StepRecord, progress_json: str | None, event: DurablyEvent) -> bool:
        """Fenced: store a finished step, and the latest progress where it is not stored yet."""
        try:
            return await self._open().writer.run(lambda batch: batch.add_step(claim, step, progress_json, event))
        except StoreError as error:
            if is_duplicate(error) and await self._open().pool.fetch(sql.STEPS_BY_ID, [step.id]):
                # An earlier call, reported as in doubt when the database went away, was committed after all.
                run = await self.get_run(claim.run_id)
                return run is not None and (run.status, run.lease_generation) == (RunStatus.LEASED, claim.generation)
            raise

    async def save_progress(self, claim: Claim, progress_json: str | None) -> bool:
        """Fenced: store the latest progress, after every write that was asked for before."""
        return await self._open().writer.run(lambda batch: batch.add_progress(claim, progress_json))

    async def finish(
        self, claim: Claim, outcome: Completed | Failed, progress_json: str | None, event: DurablyEvent
    ) -> bool:
        """Fenced: end the run, and delete its steps unless they are preserved."""
        is_held = await self._open().writer.run(lambda batch: batch.add_end(claim, outcome, progress_json, event))
        return is_held or await self._open().writes.has_finished(claim, outcome)

    async def append_logs(self, logs: Sequence[Log], data_json: Sequence[str | None]) -> None:
        """Store log lines of runs that still exist."""

        def unit(batch: Batch) -> None:
            for log, data in zip(logs, data_json, strict=True):
                batch.add_log(log, data)

        await self._open().writer.run(unit)

    # --- upkeep ----------------------------------------------------------------------------------

    async def recover_expired(self) -> int:
        """Put runs whose lease has expired back to pending, or fail them; return how many were touched."""
        return await self._open().writes.recover_expired(preserve_steps=self.preserve_steps)

    async def maintain(self, *, idle: bool) -> None:
        """Clean the event log."""
        pool = self._open().pool
        while True:
            (row,) = await pool.fetch(sql.TRIM_EVENTS, EVENTS_KEPT_FOR.total_seconds(), EVENT_ROWS_KEPT, _ROWS_PER_TRIM)
            if row["count"] < _ROWS_PER_TRIM:
                return

    # --- events ----------------------------------------------------------------------------------

    def announce(self, event: DurablyEvent) -> None:
        """Add an event to the log soon, after those announced before it; never blocks."""
        if not self._is_closed:
            self._open().announce([event])

    @property
    def is_behind(self) -> bool:
        """Tell whether the follower is still to be given what this process has committed."""
        return self._bound is not None and self._bound.events.is_behind

    async def follow(self, follower: Follower) -> Position:
        """Give a follower every event after the returned position, once it is in the log, in its order."""
        return Position.behind(await self._open().events.follow(follower))

    def unfollow(self) -> None:
        """Tell the follower no more."""
        if self._bound is not None and not self._bound.loop.is_closed():
            self._bound.events.unfollow()

    async def events_after(self, position: Position, limit: int) -> LogPage:
        """Return up to `limit` events after `position`, oldest first."""
        return await self._open().events.after(position, limit)

    async def snapshot(self, run_id: str) -> tuple[Run[Any] | None, Position]:
        """Return a run, its latest progress included, and the position up to which that is the truth."""
        run, row = await self._exact_snapshot(run_id)
        if run is not None and run.status is RunStatus.LEASED:
            progress = await self._latest_progress(run_id, row)
            run = run if progress is None else replace(run, progress=progress)
        return run, Position.behind(row)

    async def _exact_snapshot(self, run_id: str) -> tuple[Run[Any] | None, int]:
        bound = self._open()
        while True:
            known = end = await bound.events.known_end()
            (row,) = await bound.pool.fetch(sql.SNAPSHOT, run_id, known)
            for position in row["later"]:
                if position != end + 1:
                    break
                end = position
            run = None if row["id"] is None else run_from_row(row)
            about: list[int] = row["about"]
            if not about or about[-1] <= end:
                return run, end
            # The run has changed behind a position that is still missing. What was read is the state as of its last
            # row, unless another one appears before that: say nothing until that is clear, however long it takes.
            # Whoever is told a state too early is told twice what led to it, or none of it.
            if not await self._is_settled(bound, about[-1]):
                continue
            if not run_id:
                # Of all runs there is no state.
                return None, about[-1]
            (then,) = await bound.pool.fetch(sql.ROWS_ABOUT_RUN, run_id, known, about[-1])
            if then["about"] == about:
                return run, about[-1]

    async def _is_settled(self, bound: LoopBound, position: int) -> bool:
        """Return when nothing can appear up to a position any more; tell whether that is so, or the log was lost."""
        known = 0
        while (end := await bound.events.known_end()) < position:
            if end < known:
                return False
            known = end
            bound.events.look_soon()
            await asyncio.sleep(_SNAPSHOT_PAUSE_SECONDS)
        return True

    async def _latest_progress(self, run_id: str, row: int) -> ProgressData | None:
        recent = await self._open().pool.fetch(sql.RECENT_EVENTS_OF_RUN, run_id, row)
        return latest_progress((each["events"] for each in recent), run_id)

    def _open(self) -> LoopBound:
        loop, bound = asyncio.get_running_loop(), self._bound
        if bound is not None and bound.loop is loop:
            return bound
        if self._is_closed:
            raise StoreError(f"{self.name} was closed: make a new instance to use it again")
        if bound is not None and not bound.loop.is_closed():
            raise StoreError(
                f"{self.name} is in use on another event loop: an instance belongs to one loop, make one for each"
            )
        self._bound = LoopBound(self._server, self._clock, lambda: self.preserve_steps)
        if bound is not None:
            self._bound.announce(bound.writer.take_announced())
        return self._bound
