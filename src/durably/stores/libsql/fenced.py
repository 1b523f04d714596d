"""What is written under leases: all of it that goes out together is one set of statements.

A statement is prepared anew by the server, and carries its own condition; so what counts is how many there are,
and not how many steps are in them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from durably.core.event_codec import encode_events
from durably.core.events import DurablyEvent
from durably.core.leases import Claim
from durably.core.outcomes import Completed, Failed
from durably.core.store import StepRecord
from durably.stores.libsql import statements as sql
from durably.stores.libsql.hrana import Rows, Statement
from durably.stores.libsql.unit import Unit
from durably.stores.sql.rows import end_of, row_of_step


@dataclass(frozen=True, slots=True)
class FinishedStep:
    """A step that ended under a claim."""

    claim: Claim
    step: StepRecord
    progress_json: str | None
    event: DurablyEvent


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """The end of a run under a claim."""

    claim: Claim
    outcome: Completed | Failed
    progress_json: str | None
    event: DurablyEvent

    @property
    def end(self) -> tuple[str, str | None, str | None]:
        """Return status, output and error."""
        return end_of(self.outcome)


def record_steps(origin: str, finished: Sequence[FinishedStep]) -> Unit[list[bool]]:
    """Store finished steps whose claims still hold; tell of each whether it was stored now."""
    # Of several steps of one run that end together the last one knows the latest progress.
    latest = {each.claim.run_id: each.progress_json for each in finished if each.progress_json is not None}
    told, changes, rows = [], [], []
    for each in finished:
        claim, step = each.claim, each.step
        fence = (step.id, claim.run_id, claim.generation)
        is_completed = step.error is None
        told.append((*fence, _text_of(each.event)))
        changes.append((*fence, step.index + 1 if is_completed else 0, int(is_completed), latest.get(claim.run_id)))
        rows.append((*row_of_step(claim.run_id, step), claim.generation))
    statements = [
        Statement(sql.TELL_STEPS, (origin, json.dumps(told)), tells=True),
        Statement(sql.ADVANCE_RUNS, (json.dumps(changes),)),
        Statement(sql.INSERT_STEPS, (json.dumps(rows),)),
    ]
    return Unit(statements, lambda answer: _found([each.step.id for each in finished], answer[-1]))


def finish_runs(origin: str, finished: Sequence[FinishedRun], *, preserve_steps: bool) -> Unit[list[bool]]:
    """End runs whose claims still hold; tell of each whether it was ended now."""
    fences = [(each.claim.run_id, each.claim.generation) for each in finished]
    told = [(*fence, _text_of(each.event)) for fence, each in zip(fences, finished, strict=True)]
    ends = [(*fence, *each.end, each.progress_json) for fence, each in zip(fences, finished, strict=True)]
    statements = [
        Statement(sql.TELL_ENDS, (origin, json.dumps(told)), tells=True),
        *([] if preserve_steps else [Statement(sql.DELETE_STEPS_OF_HELD, (json.dumps(fences),))]),
        Statement(sql.FINISH_RUNS, (json.dumps(ends),)),
    ]
    return Unit(statements, lambda answer: _found([run_id for run_id, _ in fences], answer[-1]))


def save_progress(claim: Claim, progress_json: str | None) -> Unit[bool]:
    """Store the latest progress, if the claim still holds."""
    arguments = (progress_json, claim.run_id, claim.generation)
    return Unit([Statement(sql.TOUCH_RUN, arguments)], lambda rows: bool(rows[0]))


def _found(ids: Sequence[str], rows: Rows) -> list[bool]:
    written = {row[0] for row in rows}
    return [each in written for each in ids]


def _text_of(event: DurablyEvent) -> str:
    return encode_events([event])[1:-1]
