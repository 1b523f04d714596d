"""New runs whose keys may stand for runs that exist already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from durably.core.events import RunCoalescedEvent
from durably.core.runs import Disposition, Run, RunStatus, TriggerResult
from durably.core.store import NewRun
from durably.stores.postgres.batch import Batch
from durably.stores.sql.rows import run_from_new, trigger_event
from durably.stores.sql.rules import may_coalesce, pending_conflict


def keys_of(runs: Sequence[NewRun]) -> tuple[list[str], list[str], list[str], list[str], list[str]]:
    """Return ids, then jobs and idempotency keys, then jobs and concurrency keys, for the look-up."""
    idempotent = [new for new in runs if new.idempotency_key is not None]
    concurrent = [new for new in runs if new.concurrency_key is not None]
    return (
        [new.id for new in runs],
        [new.job_name for new in idempotent],
        [new.idempotency_key or "" for new in idempotent],
        [new.job_name for new in concurrent],
        [new.concurrency_key or "" for new in concurrent],
    )


@dataclass(slots=True)
class Enqueueing:
    """What becomes of new runs in the light of those that exist."""

    now: datetime
    batch: Batch
    _stored: dict[str, Run[Any]] = field(default_factory=dict)
    _idempotent: dict[tuple[str, str], Run[Any]] = field(default_factory=dict)
    _pending: dict[tuple[str, str], Run[Any]] = field(default_factory=dict)

    def know(self, run: Run[Any]) -> None:
        """Take note of a run that exists."""
        self._stored[run.id] = run
        if run.idempotency_key is not None:
            self._idempotent[run.job_name, run.idempotency_key] = run
        if run.concurrency_key is not None and run.status is RunStatus.PENDING:
            self._pending[run.job_name, run.concurrency_key] = run

    def take(self, new: NewRun) -> TriggerResult[Any]:
        """Return what a new run becomes, and store it if it is one. Raises `ConflictError`."""
        if new.id in self._stored:
            # Stored by an attempt whose answer was lost.
            return _as(self._stored[new.id], "created")
        if new.idempotency_key is not None and (found := self._idempotent.get((new.job_name, new.idempotency_key))):
            return _as(found, "idempotent")
        if new.concurrency_key is not None and (kept := self._pending.get((new.job_name, new.concurrency_key))):
            return self._coalesce(new, kept)
        run = run_from_new(new)
        self.know(run)
        del self._stored[run.id]
        self.batch.add_run(new, trigger_event(new, self.now))
        return run

    def _coalesce(self, new: NewRun, kept: Run[Any]) -> TriggerResult[Any]:
        if not may_coalesce(new, kept.id):
            raise pending_conflict(kept)
        event = RunCoalescedEvent(
            timestamp=self.now,
            run_id=kept.id,
            job_name=kept.job_name,
            labels=kept.labels,
            skipped_input_json=new.input_json,
            skipped_labels=new.labels,
        )
        self.batch.told.append(event)
        return _as(kept, "coalesced")


def _as(run: Run[Any], disposition: Disposition) -> TriggerResult[Any]:
    return TriggerResult(**{name: getattr(run, name) for name in Run.__dataclass_fields__}, disposition=disposition)
