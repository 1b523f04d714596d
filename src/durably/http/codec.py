"""The wire shape: camelCase names, milliseconds, timestamps as text; what is absent is left out, not null.

Values that are JSON text already (inputs, outputs, log data of events) are put in as they are.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from durably.core.clock import to_text
from durably.core.errors import ConflictError, DurablyError, NotFoundError, ValidationError
from durably.core.events import (
    DurablyEvent,
    LogWriteEvent,
    RunCoalescedEvent,
    RunCompleteEvent,
    RunEvent,
    RunFailEvent,
    RunLeasedEvent,
    RunProgressEvent,
    StepCompleteEvent,
    StepEvent,
    StepFailEvent,
)
from durably.core.json_values import encode_leniently
from durably.core.logs import Log
from durably.core.runs import ProgressData, Run
from durably.core.steps import Step
from durably.options import TriggerRequest

encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

RUN_STREAM_EVENTS: Final = frozenset(
    {
        "run:leased",
        "run:progress",
        "run:complete",
        "run:fail",
        "run:cancel",
        "run:delete",
        "step:start",
        "step:complete",
        "step:fail",
        "log:write",
    }
)
ALL_RUNS_EVENTS: Final = RUN_STREAM_EVENTS | {"run:trigger", "run:coalesced", "step:cancel"}

_WIRE_NAMES: Final = {
    "idempotency_key": "idempotencyKey",
    "concurrency_key": "concurrencyKey",
    "job_name": "jobName",
}

Fields = dict[str, Any]
Texts = dict[str, str | None]


def run_to_wire(run: Run[Any]) -> Fields:
    """Return a run as clients see it: no keys, no lease."""
    return {
        "id": run.id,
        "jobName": run.job_name,
        "input": run.input,
        "status": str(run.status),
        "currentStepIndex": run.current_step_index,
        "completedStepCount": run.completed_step_count,
        "progress": None if run.progress is None else progress_to_wire(run.progress),
        "output": run.output,
        "error": run.error,
        "labels": run.labels,
        "startedAt": _instant(run.started_at),
        "completedAt": _instant(run.completed_at),
        "createdAt": to_text(run.created_at),
        "isTerminal": run.is_terminal,
        "isActive": run.is_active,
    }


def step_to_wire(step: Step) -> Fields:
    """Return a stored step as clients see it."""
    return {
        "id": step.id,
        "runId": step.run_id,
        "name": step.name,
        "index": step.index,
        "status": step.status,
        "output": step.output,
        "error": step.error,
        "startedAt": to_text(step.started_at),
        "completedAt": _instant(step.completed_at),
    }


def log_to_wire(log: Log) -> Fields:
    """Return a stored log line as clients see it."""
    return {
        "id": log.id,
        "runId": log.run_id,
        "stepName": log.step_name,
        "level": log.level,
        "message": log.message,
        "data": log.data,
        "createdAt": to_text(log.created_at),
    }


def progress_to_wire(progress: ProgressData) -> Fields:
    """Return progress without what was not given."""
    fields: Fields = {"current": progress.current}
    if progress.total is not None:
        fields["total"] = progress.total
    if progress.message is not None:
        fields["message"] = progress.message
    return fields


def trigger_from_wire(body: Fields) -> TriggerRequest:
    """Return a trigger for the auth hook: what is not of the promised type is left out of it.

    The hook comes before validation; it decides about well-formed facts, and the rest is refused after it.
    """
    labels = body.get("labels")
    return TriggerRequest(
        job_name=body["jobName"],
        input=body.get("input"),
        idempotency_key=_text_or_none(body.get("idempotencyKey")),
        concurrency_key=_text_or_none(body.get("concurrencyKey")),
        coalesce=_text_or_none(body.get("coalesce")),
        labels={key: value for key, value in labels.items() if isinstance(value, str)}
        if isinstance(labels, dict)
        else None,
    )


def run_stream_event(event: DurablyEvent, sequence: int) -> str:
    """Return an event as the stream of one run carries it: whole, with its timestamp and sequence."""
    fields, texts = _whole(event)
    return _object(event, {**fields, "timestamp": to_text(event.timestamp), "sequence": sequence}, texts)


def all_runs_event(event: DurablyEvent, _sequence: int) -> str:
    """Return an event as the stream of all runs carries it: what a list shows, no inputs or outputs, no sequence."""
    fields, texts = _slim(event)
    return _object(event, fields, texts)


def error_to_wire(error: DurablyError) -> str:
    """Return an error's text in the words of the wire, where names and option syntax are not Python's."""
    match error:
        case NotFoundError(kind="run"):
            return "Run not found"
        case ConflictError(operation="trigger", concurrency_key=str()):
            return (
                f"A pending run already exists for concurrency key {encode(error.concurrency_key)} in job "
                f"\"{error.job_name}\". Use coalesce: 'skip' to return the existing run instead."
            )
        case ValidationError(field=str() as field) if field in _WIRE_NAMES:
            return _in_json(error).replace(field, _WIRE_NAMES[field])
        case ValidationError(field=str() as field) if field.partition(".")[0] == "labels":
            return _in_json(error)
    return str(error)


def _in_json(error: ValidationError) -> str:
    """Return the text of an error with the value that was sent as it was sent: null, not None."""
    if isinstance(error.value, str):
        return str(error)
    return str(error).replace(f" {error.value!r}", f" {encode_leniently(error.value)}", 1)


def _object(event: DurablyEvent, fields: Fields, texts: Texts) -> str:
    head: Fields = {"type": event.type}
    if isinstance(event, RunEvent):
        head |= {"runId": event.run_id, "jobName": event.job_name, "labels": event.labels}
    body = encode(head | fields)[:-1]
    raw = "".join([f',"{name}":{text}' for name, text in texts.items() if text is not None])
    return f"{body}{raw}}}"


def _whole(event: DurablyEvent) -> tuple[Fields, Texts]:
    match event:
        case RunLeasedEvent():
            lease = {"leaseOwner": event.lease_owner, "leaseExpiresAt": to_text(event.lease_expires_at)}
            return lease, {"input": event.input_json}
        case RunCompleteEvent():
            return {"duration": _milliseconds(event.duration)}, {"output": event.output_json}
        case RunFailEvent():
            return {"error": event.error, "failedStepName": event.failed_step_name}, {}
        case StepCompleteEvent():
            return {**_step(event), "duration": _milliseconds(event.duration)}, {"output": event.output_json}
        case _:
            return _slim(event)


def _slim(event: DurablyEvent) -> tuple[Fields, Texts]:
    match event:
        case RunProgressEvent():
            return {"progress": progress_to_wire(event.progress)}, {}
        case StepFailEvent():
            return {**_step(event), "error": event.error}, {}
        case StepEvent():
            return _step(event), {}
        case LogWriteEvent():
            line = {"stepName": event.step_name, "level": event.level, "message": event.message}
            return line, {"data": event.data_json}
        case RunCoalescedEvent():
            return {"skippedLabels": event.skipped_labels}, {"skippedInput": event.skipped_input_json}
        case _:
            return {}, {}


def _step(event: StepEvent) -> Fields:
    return {"stepName": event.step_name, "stepIndex": event.step_index}


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None else to_text(instant)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
