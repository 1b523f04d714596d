"""What every SQL store refuses, in the same words, and how long it keeps events."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final

from durably.core.errors import ConflictError
from durably.core.runs import Run, RunStatus
from durably.core.store import NewRun

EXPIRED_AND_REPLACED: Final = "Lease expired; pending run already exists"
RELEASED_AND_REPLACED: Final = "Given back by its worker; pending run already exists"
EVENTS_KEPT_FOR: Final = timedelta(minutes=10)
EVENT_ROWS_KEPT: Final = 100_000


def may_coalesce(new: NewRun, pending_id: str) -> bool:
    """Tell whether a new run may be given up for the one that waits under its key."""
    return new.coalesce and new.only_into in (None, pending_id)


def pending_conflict(pending: Run[Any]) -> ConflictError:
    """Return the error for a second pending run of a job and key."""
    return ConflictError(
        f"A pending run already exists for concurrency key {json.dumps(pending.concurrency_key, ensure_ascii=False)} "
        f'in job "{pending.job_name}". Use coalesce="skip" to return the existing run instead.',
        operation="trigger",
        run_id=pending.id,
        job_name=pending.job_name,
        concurrency_key=pending.concurrency_key,
    )


def cancel_conflict(run: Run[Any]) -> ConflictError:
    """Return the error for cancelling a run that has ended."""
    already = "already " if run.status is RunStatus.CANCELLED else ""
    return ConflictError(f"Cannot cancel {already}{run.status} run: {run.id}", operation="cancel", run_id=run.id)


def delete_conflict(run: Run[Any]) -> ConflictError:
    """Return the error for deleting a run that has not ended."""
    return ConflictError(f"Cannot delete {run.status} run: {run.id}", operation="delete", run_id=run.id)
