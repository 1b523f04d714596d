"""Rows of the tables and what they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from durably.core.clock import from_text, to_text
from durably.core.event_codec import decode_events
from durably.core.events import RunProgressEvent, RunTriggerEvent
from durably.core.json_values import decode_json, decode_stored, encode_json
from durably.core.logs import Log
from durably.core.outcomes import Completed, Failed
from durably.core.runs import Disposition, ProgressData, Run, RunStatus, TriggerResult
from durably.core.steps import Step
from durably.core.store import NewRun, StepRecord

Row = Sequence[Any]

RUN_COLUMNS: Final = (
    "id, job_name, input, status, idempotency_key, concurrency_key, labels, current_step_index, "
    "completed_step_count, progress, output, error, lease_owner, lease_expires_at, lease_generation, "
    "started_at, completed_at, created_at, updated_at"
)
STEP_COLUMNS: Final = 'id, run_id, name, "index", status, output, error, started_at, completed_at'
LOG_COLUMNS: Final = "id, run_id, step_name, level, message, data, created_at"

PROGRESS_STORED_SECONDS: Final = 2
"""After so long progress is stored, with much to spare: only what the log was told since can be newer."""

_STATUS: Final = {status.value: status for status in RunStatus}


def run_from_row(row: Row) -> Run[Any]:
    """Return the run of a row of `RUN_COLUMNS`."""
    return Run(*_values(row))


def result_from_row(row: Row, disposition: Disposition) -> TriggerResult[Any]:
    """Return the run of a row of `RUN_COLUMNS` as what a trigger found."""
    values: list[Any] = [*_values(row), disposition]
    return TriggerResult(*values)


def run_from_new(new: NewRun) -> TriggerResult[Any]:
    """Return the run that a `NewRun` becomes when it is stored."""
    return TriggerResult(
        new.id,
        new.job_name,
        RunStatus.PENDING,
        decode_json(new.input_json),
        None,
        None,
        None,
        new.labels,
        new.idempotency_key,
        new.concurrency_key,
        0,
        0,
        None,
        None,
        0,
        None,
        None,
        new.created_at,
        new.created_at,
        "created",
    )


def _values(row: Row) -> tuple[Any, ...]:
    """Return the values of a row in the order of the fields of `Run`."""
    return (
        row[0],
        row[1],
        _STATUS[row[3]],
        decode_stored(row[2]),
        _value(row[10]),
        row[11],
        progress_from_text(row[9]),
        labels_from_text(row[6]),
        row[4],
        row[5],
        row[7],
        row[8],
        row[12],
        _instant(row[13]),
        row[14],
        _instant(row[15]),
        _instant(row[16]),
        from_text(row[17]),
        from_text(row[18]),
    )


def step_from_row(row: Row) -> Step:
    """Return the step of a row of `STEP_COLUMNS`."""
    return Step(
        id=row[0],
        run_id=row[1],
        name=row[2],
        index=row[3],
        status=row[4],
        output=_value(row[5]),
        error=row[6],
        started_at=from_text(row[7]),
        completed_at=_instant(row[8]),
    )


def log_from_row(row: Row) -> Log:
    """Return the log line of a row of `LOG_COLUMNS`."""
    return Log(
        id=row[0],
        run_id=row[1],
        step_name=row[2],
        level=row[3],
        message=row[4],
        data=_value(row[5]),
        created_at=from_text(row[6]),
    )


def labels_to_text(labels: dict[str, str]) -> str:
    """Return labels as their column holds them."""
    return encode_json(labels, "labels") if labels else "{}"


def labels_from_text(text: str) -> dict[str, str]:
    """Return the labels of a row; none where another program wrote something else."""
    labels = {} if text == "{}" else decode_stored(text)
    return labels if isinstance(labels, dict) else {}


def progress_from_text(text: str | None) -> ProgressData | None:
    """Return the progress of a row."""
    if text is None:
        return None
    stored = decode_stored(text)
    if not isinstance(stored, dict) or "current" not in stored:
        return None
    return ProgressData(stored["current"], stored.get("total"), stored.get("message"))


def latest_progress(rows_of_events: Iterable[str], run_id: str) -> ProgressData | None:
    """Return what a run told last in rows of the event log, newest first.

    The stored progress is written a few times a second only; the log knows what came since.
    """
    for text in rows_of_events:
        for event in reversed(decode_events(text)):
            if isinstance(event, RunProgressEvent) and event.run_id == run_id:
                return event.progress
    return None


def trigger_event(new: NewRun, at: datetime) -> RunTriggerEvent:
    """Return what tells of a new run."""
    return RunTriggerEvent(
        timestamp=at, run_id=new.id, job_name=new.job_name, labels=new.labels, input_json=new.input_json
    )


def row_of_new(new: NewRun) -> tuple[Any, ...]:
    """Return the values of a new run for an insert of its own columns."""
    created = to_text(new.created_at)
    return (
        new.id,
        new.job_name,
        new.input_json,
        new.idempotency_key,
        new.concurrency_key,
        labels_to_text(new.labels),
        created,
        created,
    )


def row_of_step(run_id: str, step: StepRecord) -> tuple[Any, ...]:
    """Return the values of a finished step in the order of `STEP_COLUMNS`."""
    return (
        step.id,
        run_id,
        step.name,
        step.index,
        "completed" if step.error is None else "failed",
        step.output_json,
        step.error,
        to_text(step.started_at),
        to_text(step.completed_at),
    )


def row_of_log(log: Log, data_json: str | None) -> tuple[Any, ...]:
    """Return the values of a log line in the order of `LOG_COLUMNS`."""
    return log.id, log.run_id, log.step_name, log.level, log.message, data_json, to_text(log.created_at)


def end_of(outcome: Completed | Failed) -> tuple[str, str | None, str | None]:
    """Return status, output and error of a run that ends."""
    match outcome:
        case Completed():
            return "completed", outcome.output_json, None
        case Failed():
            return "failed", None, outcome.error


def _value(text: str | None) -> Any:
    return None if text is None else decode_stored(text)


def _instant(text: str | None) -> Any:
    return None if text is None else from_text(text)
