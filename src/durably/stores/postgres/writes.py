"""Writes that are a statement of their own: enqueueing by keys, claims, ends from outside, clean-up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from durably.core.clock import Clock, from_text, to_text
from durably.core.errors import NotFoundError, StoreError, StoreUnavailableError
from durably.core.events import (
    DurablyEvent,
    RunCancelEvent,
    RunDeleteEvent,
    RunFailEvent,
    RunLeasedEvent,
)
from durably.core.json_values import as_json
from durably.core.leases import Claim
from durably.core.outcomes import Completed, Failed
from durably.core.runs import Run, TriggerResult
from durably.core.store import Claimed, NewRun
from durably.core.texts import storable
from durably.stores.postgres import statements as sql
from durably.stores.postgres.batch import Batch
from durably.stores.postgres.connections import Connection, Pool, Server
from durably.stores.postgres.enqueueing import Enqueueing, keys_of
from durably.stores.postgres.event_log import EventLog
from durably.stores.postgres.marks import Found, Mark, Marks, WriteInDoubtError
from durably.stores.sql.rows import end_of, labels_from_text, run_from_row
from durably.stores.sql.rules import EXPIRED_AND_REPLACED, RELEASED_AND_REPLACED, cancel_conflict, delete_conflict

T = TypeVar("T")

log = logging.getLogger("durably.postgres")

_CLAIM_TRIES: Final = 20
_CLAIM_PAUSE_SECONDS: Final = 0.002
_MOST_PURGED_PARTS: Final = 20_000


class Writes:
    """Carries out the writes that do not wait for others."""

    def __init__(self, server: Server, pool: Pool, marks: Marks, events: EventLog, clock: Clock) -> None:
        self._server = server
        self._pool = pool
        self._marks = marks
        self._events = events
        self._clock = clock
        self._doubtful_claims: list[Mark] = []
        self._has_expired = False
        """Whether the last claim saw leases that were over."""

    # --- trigger -----------------------------------------------------------------------------------

    async def enqueue(self, runs: Sequence[NewRun]) -> list[TriggerResult[Any]]:
        """Store new runs, or find those that their keys stand for. Raises `ConflictError`."""
        enqueued: list[TriggerResult[Any]] = []

        async def attempt(connection: Connection, mark: Mark) -> list[TriggerResult[Any]]:
            nonlocal enqueued
            rows = await self._server.fetch(connection, sql.RUNS_BY_KEYS, *keys_of(runs))
            enqueueing, enqueued = self._decide(runs, rows)
            batch = enqueueing.batch
            if not batch.is_empty:
                # What changed since the look-up is refused by the unique indexes, and looked up again.
                statement, values = batch.statement(mark)
                (row,) = await self._server.fetch(connection, statement, *values)
                self._events.committed(row["position"], [], batch.told)
            return enqueued

        async def recover(found: Found) -> list[TriggerResult[Any]]:
            # What was decided then: by now a run that was joined may have begun, or be gone.
            self._events.committed(found.position, [], found.events)
            return enqueued

        return await self._marks.write(attempt, recover)

    def _decide(self, runs: Sequence[NewRun], rows: Sequence[Any]) -> tuple[Enqueueing, list[TriggerResult[Any]]]:
        enqueueing = Enqueueing(self._clock.now(), Batch(preserve_steps=True))
        for row in rows:
            enqueueing.know(run_from_row(row))
        return enqueueing, [enqueueing.take(new) for new in runs]

    # --- claim -------------------------------------------------------------------------------------

    async def claim(
        self, owner: str, job_names: Sequence[str], limit: int, lease_seconds: float, *, preserve_steps: bool
    ) -> list[Claimed]:
        """Lease the oldest claimable runs, after returning to the queue what others have lost."""
        await self._settle_claims(preserve_steps=preserve_steps)
        for _ in range(_CLAIM_TRIES):
            if self._has_expired:
                # Before a claim: after it an error here would leave runs leased that nobody executes.
                await self.recover_expired(preserve_steps=preserve_steps)
                self._has_expired = False
            rows = await self._claim_once(owner, job_names, limit, lease_seconds)
            if rows[0]["id"] is not None:
                return [_claimed(row) for row in rows]
            if self._has_expired:
                continue
            if not rows[0]["is_contended"]:
                break
            # Another claimer is looking at the same runs and may leave some of them.
            await asyncio.sleep(_CLAIM_PAUSE_SECONDS)
        return []

    async def _claim_once(
        self, owner: str, job_names: Sequence[str], limit: int, lease_seconds: float
    ) -> Sequence[Any]:
        async def attempt(connection: Connection, mark: Mark) -> Sequence[Any]:
            rows = await self._server.fetch(
                connection, sql.CLAIM_RUNS, mark.origin, mark.number, list(job_names), limit, owner, lease_seconds
            )
            self._has_expired = rows[0]["has_expired"]
            if rows[0]["id"] is not None:
                self._events.committed(rows[0]["position"], [], [_leased_event(row) for row in rows])
            return rows

        async def recover(found: Found) -> Sequence[Any]:
            self._events.committed(found.position, [], found.events)
            leased = {event.run_id: event for event in found.events if isinstance(event, RunLeasedEvent)}
            rows = await self._pool.fetch(sql.RUNS_BY_ID, list(leased))
            held = [row for row in rows if _is_still(row, leased[row["id"]])]
            return held or [{"id": None, "is_contended": True}]

        try:
            return await self._marks.write(attempt, recover)
        except WriteInDoubtError as doubt:
            self._doubtful_claims.append(doubt.mark)
            raise

    async def _settle_claims(self, *, preserve_steps: bool) -> None:
        """Give back what was leased by claims whose answers never came: nobody executes it."""
        while self._doubtful_claims:
            mark = self._doubtful_claims[0]
            found = await self._marks.settle(mark)
            if found is not None:
                leased = {event.run_id: event for event in found.events if isinstance(event, RunLeasedEvent)}
                rows = await self._pool.fetch(sql.RUNS_BY_ID, list(leased))
                claims = [_claimed(row).claim for row in rows if _is_still(row, leased[row["id"]])]
                await self.release(claims, preserve_steps=preserve_steps)
            if mark in self._doubtful_claims:
                self._doubtful_claims.remove(mark)

    async def recover_expired(self, *, preserve_steps: bool) -> int:
        """Put runs with an expired lease back to pending, or fail them where their place is taken."""
        return len(await self._return(sql.RECOVER_EXPIRED, EXPIRED_AND_REPLACED, preserve_steps=preserve_steps))

    async def release(self, claims: Sequence[Claim], *, preserve_steps: bool) -> None:
        """Give back runs that are still held; one whose place in the queue is taken fails."""
        ids, generations = [claim.run_id for claim in claims], [claim.generation for claim in claims]
        await self._return(sql.RELEASE_RUNS, RELEASED_AND_REPLACED, ids, generations, preserve_steps=preserve_steps)

    async def _return(self, statement: str, error: str, *values: Any, preserve_steps: bool) -> Sequence[Any]:
        is_work = False

        def told(rows: Sequence[Any]) -> list[DurablyEvent]:
            nonlocal is_work
            is_work = any(row["status"] == "pending" for row in rows)
            return [RunFailEvent(**_about(row), error=error) for row in rows if row["status"] == "failed"]

        sweep = None if preserve_steps else sql.DROP_STEPS
        rows = await self._write(statement, (error, preserve_steps, *values), told, sweep)
        if is_work:
            self._events.tell_work()
        return rows

    # --- the end of a run --------------------------------------------------------------------------

    async def has_finished(self, claim: Claim, outcome: Completed | Failed) -> bool:
        """Tell whether an end that was not held now had been recorded by an earlier call."""
        rows = await self._pool.fetch(sql.RUN_BY_ID, claim.run_id)
        if not rows or rows[0]["lease_generation"] != claim.generation:
            return False
        status, output, error = end_of(outcome)
        end = (status, output, None if error is None else storable(error))
        return (rows[0]["status"], rows[0]["output"], rows[0]["error"]) == end

    async def cancel(self, run_id: str, *, preserve_steps: bool) -> None:
        """End a pending or leased run from outside. Raises `NotFoundError`, `ConflictError`."""

        def told(rows: Sequence[Any]) -> list[DurablyEvent]:
            return [
                RunCancelEvent(timestamp=run.updated_at, run_id=run.id, job_name=run.job_name, labels=run.labels)
                for run in map(run_from_row, rows)
            ]

        async def found() -> Sequence[Any]:
            return await self._pool.fetch(sql.RUN_BY_ID, run_id)

        sweep = None if preserve_steps else sql.DROP_STEPS
        if not await self._write(sql.CANCEL_RUN, (run_id, preserve_steps), told, sweep, found):
            raise cancel_conflict(await self._must_find(run_id))

    async def delete_run(self, run_id: str) -> None:
        """Delete a terminal run and all that belongs to it. Raises `NotFoundError`, `ConflictError`."""
        if not await self._write(sql.DELETE_RUN, (run_id,), _deleted, sql.DROP_LOGS):
            raise delete_conflict(await self._must_find(run_id))

    async def purge_runs(self, ended_by: str, limit: int) -> int:
        """Delete the terminal runs that ended first, in statements that others do not wait for long."""
        purged, weighed = 0, limit
        while purged < limit:
            weighed = min(weighed, limit - purged)
            rows = await self._write(sql.PURGE_RUNS, (ended_by, weighed, _MOST_PURGED_PARTS), _deleted, sql.DROP_LOGS)
            if not rows:
                break
            purged += len(rows)
            # Where they are heavy, weighing all that are left for each portion would take longest.
            weighed = 2 * len(rows)
        return purged

    async def _must_find(self, run_id: str) -> Run[Any]:
        rows = await self._pool.fetch(sql.RUN_BY_ID, run_id)
        if not rows:
            raise NotFoundError("run", run_id)
        return run_from_row(rows[0])

    # --- all of them -------------------------------------------------------------------------------

    async def _write(
        self,
        statement: str,
        values: Sequence[Any],
        told: Callable[[Sequence[Any]], list[DurablyEvent]],
        sweep: str | None,
        found_rows: Callable[[], Awaitable[Sequence[Any]]] | None = None,
    ) -> Sequence[Any]:
        """Return the rows that a statement wrote; `told` makes events of them, `sweep` follows for their runs.

        Where the answer was lost, the rows are those of `found_rows`, or the stored events.
        """

        async def attempt(connection: Connection, mark: Mark) -> tuple[Sequence[Any], list[DurablyEvent]]:
            rows = await self._server.fetch(connection, statement, mark.origin, mark.number, *values)
            events = told(rows)
            if events:
                self._events.committed(rows[0]["position"], [], events)
            return rows, events

        async def recover(found: Found) -> tuple[Sequence[Any], list[DurablyEvent]]:
            self._events.committed(found.position, [], found.events)
            return found.events if found_rows is None else await found_rows(), found.events

        rows, events = await self._marks.write(attempt, recover)
        if sweep is not None and events:
            await self._sweep(sweep, [event.run_id for event in events if event.run_id])
        return rows

    async def _sweep(self, statement: str, run_ids: list[str]) -> None:
        """Delete what was committed while the statement that ended or deleted the runs waited for it.

        That statement sees only what was there when it began. A transaction around both would be held open by a
        client that is suspended in it.
        """
        try:
            await self._pool.fetch(statement, run_ids)
        except StoreError as error:
            log.warning("what was written to ended runs at the last moment stays in the database: %s", error)


def _claimed(row: Any) -> Claimed:
    run = run_from_row(row)
    if run.lease_expires_at is None or run.lease_owner is None:
        raise StoreUnavailableError(f"run {run.id} was claimed and lost again at once")
    return Claimed(Claim(run.id, run.lease_generation, run.lease_owner, run.lease_expires_at), run)


def _is_still(row: Any, event: RunLeasedEvent) -> bool:
    # The expiry tells this lease from a later one of the same worker, and from one that is being renewed.
    lease = (row["status"], row["lease_owner"], row["lease_expires_at"])
    return lease == ("leased", event.lease_owner, to_text(event.lease_expires_at))


def _leased_event(row: Any) -> RunLeasedEvent:
    return RunLeasedEvent(
        **_about(row),
        input_json=as_json(row["input"]),
        lease_owner=row["lease_owner"],
        lease_expires_at=from_text(row["lease_expires_at"]),
    )


def _deleted(rows: Sequence[Any]) -> list[DurablyEvent]:
    return [RunDeleteEvent(**_about(row)) for row in rows]


def _about(row: Any) -> dict[str, Any]:
    return {
        "timestamp": from_text(row["now"]),
        "run_id": row["id"],
        "job_name": row["job_name"],
        "labels": labels_from_text(row["labels"]),
    }
