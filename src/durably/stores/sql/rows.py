"""Rows of the tables and what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from durably.core.clock import from_text, to_text
from durably.core.json_values import decode_json, encode_json
from durably.core.logs import Log
from durably.core.runs import ProgressData, Run, RunStatus
from durably.core.steps import Step
from durably.core.store import NewRun

Row = Sequence[Any]

RUN_COLUMNS: Final = (
    "id, job_name, input, status, idempotency_key, concurrency_key, labels, current_step_index, "
    "completed_step_count, progress, output, error, lease_owner, lease_expires_at, lease_generation, "
    "started_at, completed_at, created_at, updated_at"
)
STEP_COLUMNS: Final = 'id, run_id, name, "index", status, output, error, started_at, completed_at'
LOG_COLUMNS: Final = "id, run_id, step_name, level, message, data, created_at"

_STATUS: Final = {status.value: status for status in RunStatus}


def run_from_row(row: Row) -> Run[Any]:
    """Return the run of a row of `RUN_COLUMNS`."""
    return Run(
        id=row[0],
        job_name=row[1],
        input=decode_json(row[2]),
        status=_STATUS[row[3]],
        idempotency_key=row[4],
        concurrency_key=row[5],
        labels=labels_from_text(row[6]),
        current_step_index=row[7],
        completed_step_count=row[8],
        progress=progress_from_text(row[9]),
        output=_value(row[10]),
        error=row[11],
        lease_owner=row[12],
        lease_expires_at=_instant(row[13]),
        lease_generation=row[14],
        started_at=_instant(row[15]),
        completed_at=_instant(row[16]),
        created_at=from_text(row[17]),
        updated_at=from_text(row[18]),
    )


def run_from_new(new: NewRun) -> Run[Any]:
    """Return the run that a `NewRun` becomes when it is stored."""
    return Run(
        id=new.id,
        job_name=new.job_name,
        input=decode_json(new.input_json),
        status=RunStatus.PENDING,
        idempotency_key=new.idempotency_key,
        concurrency_key=new.concurrency_key,
        labels=new.labels,
        current_step_index=0,
        completed_step_count=0,
        progress=None,
        output=None,
        error=None,
        lease_owner=None,
        lease_expires_at=None,
        lease_generation=0,
        started_at=None,
        completed_at=None,
        created_at=new.created_at,
        updated_at=new.created_at,
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
    """Return the labels of a row."""
    labels: dict[str, str] = {} if text == "{}" else decode_json(text)
    return labels


def progress_to_text(progress: ProgressData) -> str:
    """Return progress as its column holds it: what was not given is left out."""
    given = {"current": progress.current, "total": progress.total, "message": progress.message}
    return encode_json({name: value for name, value in given.items() if value is not None}, "progress")


def progress_from_text(text: str | None) -> ProgressData | None:
    """Return the progress of a row."""
    if text is None:
        return None
    stored = decode_json(text)
    return ProgressData(stored["current"], stored.get("total"), stored.get("message"))


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


def _value(text: str | None) -> Any:
    return None if text is None else decode_json(text)


def _instant(text: str | None) -> Any:
    return None if text is None else from_text(text)
