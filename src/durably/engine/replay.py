"""The state of a run told as the events that a late subscriber has missed, and the reverse."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from durably.core.events import (
    DurablyEvent,
    RunCancelEvent,
    RunCompleteEvent,
    RunDeleteEvent,
    RunFailEvent,
    RunLeasedEvent,
    RunProgressEvent,
)
from durably.core.json_values import encode_stored
from durably.core.runs import Run, RunStatus


def replay_of(run: Run[Any], now: datetime) -> list[DurablyEvent]:
    """Return what stands for the current state: sequence 0, duration 0, no failed step's name.

    A pending run has nothing to tell yet; a leased one its lease and latest progress; an ended one its end.
    """
    match run.status:
        case RunStatus.LEASED:
            return _leased(run, now)
        case RunStatus.COMPLETED:
            output = None if run.output is None else encode_stored(run.output)
            return [RunCompleteEvent(**_of(run), timestamp=run.completed_at or now, output_json=output, duration=0.0)]
        case RunStatus.FAILED:
            return [RunFailEvent(**_of(run), timestamp=run.completed_at or now, error=run.error or "")]
        case RunStatus.CANCELLED:
            return [RunCancelEvent(**_of(run), timestamp=run.completed_at or now)]
        case RunStatus.PENDING:
            return []


def deletion_of(run: Run[Any], now: datetime) -> RunDeleteEvent:
    """Return what stands for the state of a run that is gone; `run` is how it was last seen."""
    return RunDeleteEvent(**_of(run), timestamp=now)


def ended_by(event: DurablyEvent, run: Run[Any]) -> Run[Any] | None:
    """Return the run as an event ended it, None when it was deleted; `run` is how it was last seen.

    Its progress and the number of its steps are what was seen.
    """
    ended = replace(
        run, lease_owner=None, lease_expires_at=None, completed_at=event.timestamp, updated_at=event.timestamp
    )
    match event:
        case RunCompleteEvent():
            return replace(ended, status=RunStatus.COMPLETED, output=event.output)
        case RunFailEvent():
            return replace(ended, status=RunStatus.FAILED, error=event.error)
        case RunCancelEvent():
            return replace(ended, status=RunStatus.CANCELLED)
        case _:
            return None


def _leased(run: Run[Any], now: datetime) -> list[DurablyEvent]:
    events: list[DurablyEvent] = [
        RunLeasedEvent(
            **_of(run),
            timestamp=now,
            input_json=encode_stored(run.input),
            lease_owner=run.lease_owner or "",
            lease_expires_at=run.lease_expires_at or now,
        )
    ]
    if run.progress is not None:
        events.append(RunProgressEvent(**_of(run), timestamp=now, progress=run.progress))
    return events


def _of(run: Run[Any]) -> dict[str, Any]:
    return {"run_id": run.id, "job_name": run.job_name, "labels": run.labels}
