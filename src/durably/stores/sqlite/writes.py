"""What is written, each a function of a transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from durably.core.clock import to_text
from durably.core.errors import NotFoundError
from durably.core.events import (
    DurablyEvent,
    RunCancelEvent,
    RunCoalescedEvent,
    RunDeleteEvent,
    RunFailEvent,
    RunLeasedEvent,
)
from durably.core.json_values import as_json
from durably.core.leases import Claim
from durably.core.logs import Log
from durably.core.outcomes import Completed, Failed
from durably.core.runs import ALLOWED_FROM, Run, TriggerResult
from durably.core.store import Claimed, NewRun, StepRecord
from durably.stores.sql import sqlite_queries as queries
from durably.stores.sql.rows import (
    end_of,
    labels_from_text,
    result_from_row,
    row_of_log,
    row_of_new,
    row_of_step,
    run_from_new,
    run_from_row,
    trigger_event,
)
from durably.stores.sql.rules import (
    EXPIRED_AND_REPLACED,
    RELEASED_AND_REPLACED,
    cancel_conflict,
    delete_conflict,
    may_coalesce,
    pending_conflict,
)
from durably.stores.sqlite import reads
from durably.stores.sqlite import statements as sql
from durably.stores.sqlite.unit import Transaction


def enqueue(transaction: Transaction, runs: Sequence[NewRun]) -> list[TriggerResult[Any]]:
    """Store new runs, or find those that their keys stand for."""
    enqueued: list[TriggerResult[Any]] = []
    fresh: list[NewRun] = []
    for new in runs:
        found = None
        if new.has_key:
            _insert(transaction, fresh)
            fresh = []
            found = _find_existing(transaction, new)
        if found is None:
            fresh.append(new)
            found = run_from_new(new)
        enqueued.append(found)
    _insert(transaction, fresh)
    return enqueued


def _insert(transaction: Transaction, runs: Sequence[NewRun]) -> None:
    if not runs:
        return
    transaction.connection.executemany(sql.INSERT_RUN, map(row_of_new, runs))
    labels = [(new.id, key, value) for new in runs for key, value in new.labels.items()]
    if labels:
        transaction.connection.executemany(sql.INSERT_LABEL, labels)
    transaction.events += [trigger_event(new, transaction.instant) for new in runs]


def _find_existing(transaction: Transaction, new: NewRun) -> TriggerResult[Any] | None:
    if new.idempotency_key is not None:
        found = reads.idempotent(transaction.connection, new.job_name, new.idempotency_key)
        if found is not None:
            return found
    if new.concurrency_key is None:
        return None
    row = transaction.execute(queries.PENDING_BY_CONCURRENCY_KEY, (new.job_name, new.concurrency_key)).fetchone()
    if row is None:
        return None
    kept = run_from_row(row)
    if not may_coalesce(new, kept.id):
        raise pending_conflict(kept)
    transaction.events.append(
        RunCoalescedEvent(
            timestamp=transaction.instant,
            run_id=kept.id,
            job_name=kept.job_name,
            labels=kept.labels,
            skipped_input_json=new.input_json,
            skipped_labels=new.labels,
        )
    )
    return result_from_row(row, "coalesced")


def claim(
    transaction: Transaction,
    owner: str,
    job_names: Sequence[str],
    limit: int,
    lease_seconds: float,
    *,
    preserve_steps: bool,
) -> list[Claimed]:
    """Lease the oldest claimable runs, after returning to the queue what others have lost."""
    recover_expired(transaction, preserve_steps=preserve_steps)
    rows = transaction.execute(sql.CLAIMABLE_RUNS, (json.dumps(list(job_names)), limit)).fetchall()
    if not rows:
        return []
    expires_at = transaction.instant + timedelta(seconds=lease_seconds)
    expires = to_text(expires_at)
    claimed: list[Claimed] = []
    keys: set[str] = set()
    for row in rows:
        key = row[5]
        if key in keys or len(claimed) == limit:
            continue
        if key is not None:
            keys.add(key)
        generation = row[14] + 1
        started = row[15] or transaction.now
        leased = (*row[:3], "leased", *row[4:12], owner, expires, generation, started, None, row[17], transaction.now)
        run = run_from_row(leased)
        claimed.append(Claimed(Claim(run.id, generation, owner, expires_at), run))
        transaction.events.append(
            RunLeasedEvent(
                timestamp=transaction.instant,
                run_id=run.id,
                job_name=run.job_name,
                labels=run.labels,
                input_json=as_json(row[2]),
                lease_owner=owner,
                lease_expires_at=expires_at,
            )
        )
    transaction.connection.executemany(
        sql.LEASE_RUN,
        [(owner, expires, transaction.now, transaction.now, each.claim.run_id) for each in claimed],
    )
    return claimed


def recover_expired(transaction: Transaction, *, preserve_steps: bool) -> int:
    """Put runs with an expired lease back to pending, or fail them where their place is taken."""
    expired = transaction.execute(sql.EXPIRED_RUNS, (transaction.now,)).fetchall()
    for run_id, job_name, labels in expired:
        # Asked for each in turn: another program may have leased two runs of one job and key.
        if transaction.execute(sql.PENDING_RIVAL, (run_id,)).fetchone() is None:
            transaction.execute(sql.RETURN_TO_PENDING, (transaction.now, run_id))
        else:
            replaced = (run_id, job_name, labels)
            _fail_replaced(transaction, *replaced, EXPIRED_AND_REPLACED, preserve_steps=preserve_steps)
    return len(expired)


def _fail_replaced(
    transaction: Transaction, run_id: str, job_name: str, labels: str, error: str, *, preserve_steps: bool
) -> None:
    transaction.execute(sql.FAIL_REPLACED, (error, transaction.now, transaction.now, run_id))
    if not preserve_steps:
        transaction.execute(sql.DELETE_STEPS, (run_id,))
    transaction.events.append(
        RunFailEvent(
            timestamp=transaction.instant,
            run_id=run_id,
            job_name=job_name,
            labels=labels_from_text(labels),
            error=error,
        )
    )


def release(transaction: Transaction, claims: Sequence[Claim], *, preserve_steps: bool) -> None:
    """Give back runs that are still held; one whose place in the queue is taken fails."""
    for claim in claims:
        if transaction.execute(sql.PENDING_RIVAL, (claim.run_id,)).fetchone() is None:
            transaction.execute(sql.RELEASE_RUN, (transaction.now, claim.run_id, claim.generation))
            continue
        row = transaction.execute(queries.RUN_BY_ID, (claim.run_id,)).fetchone()
        if row[3] == "leased" and row[14] == claim.generation:
            replaced = (claim.run_id, row[1], row[6])
            _fail_replaced(transaction, *replaced, RELEASED_AND_REPLACED, preserve_steps=preserve_steps)


def record_step(
    transaction: Transaction, claim: Claim, step: StepRecord, progress_json: str | None, event: DurablyEvent
) -> bool:
    """Store a finished step, if the claim still holds."""
    fence = (transaction.now, claim.run_id, claim.generation)
    if step.error is None:
        held = transaction.change(sql.ADVANCE_RUN, (step.index + 1, progress_json, *fence)).rowcount
    else:
        held = transaction.change(sql.TOUCH_RUN, (progress_json, *fence)).rowcount
    if not held:
        return False
    transaction.change(sql.INSERT_STEP, row_of_step(claim.run_id, step))
    transaction.events.append(event)
    return True


def save_progress(transaction: Transaction, claim: Claim, progress_json: str | None) -> bool:
    """Store the latest progress, if the claim still holds."""
    return (
        transaction.change(sql.TOUCH_RUN, (progress_json, transaction.now, claim.run_id, claim.generation)).rowcount
        == 1
    )


def finish(
    transaction: Transaction,
    claim: Claim,
    outcome: Completed | Failed,
    progress_json: str | None,
    event: DurablyEvent,
    *,
    preserve_steps: bool,
) -> bool:
    """End the run, if the claim still holds."""
    fence = (claim.run_id, claim.generation)
    held = transaction.change(
        sql.FINISH_RUN, (*end_of(outcome), progress_json, transaction.now, transaction.now, *fence)
    ).rowcount
    if not held:
        return False
    if not preserve_steps:
        transaction.change(sql.DELETE_STEPS, (claim.run_id,))
    transaction.events.append(event)
    return True


def cancel(transaction: Transaction, run_id: str, *, preserve_steps: bool) -> None:
    """End a pending or leased run from outside."""
    run = _must_find(transaction, run_id)
    if run.status not in ALLOWED_FROM["cancel"]:
        raise cancel_conflict(run)
    transaction.execute(sql.CANCEL_RUN, (transaction.now, transaction.now, run_id))
    if not preserve_steps:
        transaction.execute(sql.DELETE_STEPS, (run_id,))
    transaction.events.append(
        RunCancelEvent(timestamp=transaction.instant, run_id=run_id, job_name=run.job_name, labels=run.labels)
    )


def delete_run(transaction: Transaction, run_id: str) -> None:
    """Delete a terminal run and all that belongs to it."""
    run = _must_find(transaction, run_id)
    if run.status not in ALLOWED_FROM["delete"]:
        raise delete_conflict(run)
    _delete(transaction, run_id, run.job_name, run.labels)


def purge_runs(transaction: Transaction, ended_by: datetime, limit: int) -> int:
    """Delete the terminal runs that ended first."""
    # By name: Python 3.12 warns of a sequence for placeholders with numbers.
    chosen = {"1": to_text(ended_by), "2": limit}
    rows = transaction.execute(queries.PURGEABLE_RUNS, chosen).fetchall()
    for run_id, job_name, labels in rows:
        _delete(transaction, run_id, job_name, labels_from_text(labels))
    return len(rows)


def _delete(transaction: Transaction, run_id: str, job_name: str, labels: dict[str, str]) -> None:
    for statement in sql.DELETE_RUN_PARTS:
        transaction.execute(statement, (run_id,))
    transaction.events.append(
        RunDeleteEvent(timestamp=transaction.instant, run_id=run_id, job_name=job_name, labels=labels)
    )


def append_logs(transaction: Transaction, logs: Sequence[Log], data_json: Sequence[str | None]) -> None:
    """Store log lines of runs that still exist."""
    transaction.connection.executemany(
        sql.INSERT_LOG,
        [(*row_of_log(log, data), log.run_id) for log, data in zip(logs, data_json, strict=True)],
    )


def trim_events(transaction: Transaction, older_than: datetime, keep_rows: int, limit: int) -> int:
    """Drop old rows of the event log; return how many."""
    values = {"older_than": to_text(older_than), "keep_rows": keep_rows, "limit": limit}
    return transaction.execute(sql.TRIM_EVENTS, values).rowcount


def _must_find(transaction: Transaction, run_id: str) -> Run[Any]:
    row = transaction.execute(queries.RUN_BY_ID, (run_id,)).fetchone()
    if row is None:
        raise NotFoundError("run", run_id)
    return run_from_row(row)
