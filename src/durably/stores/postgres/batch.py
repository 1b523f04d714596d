"""What piled up while a round trip was under way, as one statement: one round trip, one commit.

The statement is put together of the parts that a batch needs, so that a lone step stays cheap; there are few
different texts and each connection prepares each of them once. Values travel as one array per column.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from durably.core.clock import to_text
from durably.core.errors import ValidationError
from durably.core.event_codec import encode_events
from durably.core.events import DurablyEvent
from durably.core.json_values import is_storable, storable
from durably.core.leases import Claim
from durably.core.logs import Log
from durably.core.outcomes import Completed, Failed
from durably.core.store import NewRun, StepRecord
from durably.stores.postgres.statements import NOW
from durably.stores.sql.rows import LOG_COLUMNS, STEP_COLUMNS, row_of_new


@dataclass(slots=True)
class Change:
    """What a batch writes to one leased run; `place` is its number in the batch, from 1."""

    place: int
    step_index: int = 0
    completed: int = 0
    progress: str | None = None
    status: str | None = None
    output: str | None = None
    error: str | None = None


@dataclass(slots=True)
class Batch:
    """Units of work that share a transaction."""

    preserve_steps: bool
    changes: dict[tuple[str, int], Change] = field(default_factory=dict)
    steps: list[tuple[Any, ...]] = field(default_factory=list)
    logs: list[tuple[Any, ...]] = field(default_factory=list)
    runs: list[tuple[Any, ...]] = field(default_factory=list)
    labels: list[tuple[str, str, str]] = field(default_factory=list)
    announced: list[DurablyEvent] = field(default_factory=list)
    told: list[tuple[DurablyEvent, int | None, str | None]] = field(default_factory=list)
    """Events, each with the place of the change, or the run, that it depends on."""
    may_exist: bool = False
    """Whether a run of this batch may lose to one that has its key."""

    def change(self, claim: Claim) -> Change:
        """Return what is written to a run under a claim."""
        return self.changes.setdefault((claim.run_id, claim.generation), Change(len(self.changes) + 1))

    def add_step(self, claim: Claim, step: StepRecord, progress: str | None, event: DurablyEvent) -> int:
        """Store a finished step; return the place of the change it depends on."""
        if not is_storable(step.name):
            raise ValidationError(
                f"Invalid step name {step.name!r}: a database cannot hold NUL or half of a surrogate pair",
                field="name",
                value=step.name,
            )
        change = self.change(claim)
        change.progress = progress or change.progress
        if step.error is None:
            change.step_index = max(change.step_index, step.index + 1)
            change.completed += 1
        self.steps.append(
            (
                step.id,
                claim.run_id,
                step.name,
                step.index,
                "completed" if step.error is None else "failed",
                step.output_json,
                _text(step.error),
                to_text(step.started_at),
                to_text(step.completed_at),
                change.place,
            )
        )
        self.told.append((event, change.place, None))
        return change.place

    def add_progress(self, claim: Claim, progress: str) -> int:
        """Store the latest progress; return the place of the change it depends on."""
        change = self.change(claim)
        change.progress = progress
        return change.place

    def add_end(self, claim: Claim, outcome: Completed | Failed, progress: str | None, event: DurablyEvent) -> int:
        """End a run; return the place of the change it depends on."""
        change = self.change(claim)
        change.progress = progress or change.progress
        match outcome:
            case Completed():
                change.status, change.output = "completed", outcome.output_json
            case Failed():
                change.status, change.error = "failed", _text(outcome.error)
        self.told.append((event, change.place, None))
        return change.place

    def add_run(self, new: NewRun, event: DurablyEvent) -> None:
        """Store a new run."""
        self.runs.append(row_of_new(new))
        self.labels.extend((new.id, key, value) for key, value in new.labels.items())
        self.told.append((event, None, new.id))

    def add_log(self, log: Log, data_json: str | None) -> None:
        """Store a log line, if its run still exists."""
        self.logs.append(
            (
                log.id,
                log.run_id,
                _text(log.step_name),
                log.level,
                _text(log.message),
                data_json,
                to_text(log.created_at),
            )
        )

    def drop_useless_steps(self) -> None:
        """Leave out the steps of runs that end in this batch and keep none."""
        if not self.preserve_steps:
            ending = {change.place for change in self.changes.values() if change.status is not None}
            self.steps = [step for step in self.steps if step[-1] not in ending]

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to write."""
        return not (self.changes or self.runs or self.logs or self.announced or self.told)

    def statement(self, origin: str, number: int) -> tuple[str, list[Any]]:
        """Return the text of the statement and its values."""
        return _Statement(self, origin, number).text_and_values()


class _Statement:
    """Puts a statement together, part by part."""

    def __init__(self, batch: Batch, origin: str, number: int) -> None:
        self._batch = batch
        self._mark = (origin, number)
        self._values: list[Any] = []
        self._parts = [f"moment AS MATERIALIZED (SELECT {NOW} AS now)"]
        self._answers = {"position": "NULL::bigint", "held": "NULL::int[]", "created": "NULL::text[]"}

    def text_and_values(self) -> tuple[str, list[Any]]:
        batch = self._batch
        if batch.changes:
            self._update_runs()
        if batch.steps:
            self._insert_steps()
        if batch.runs:
            self._insert_runs()
        if batch.labels:
            self._insert_labels()
        if batch.logs:
            self._insert_logs()
        if batch.announced or batch.told:
            self._insert_events()
        answers = ", ".join(f"{value} AS {name}" for name, value in self._answers.items())
        return f"WITH {', '.join(self._parts)} SELECT {answers}", self._values

    def _value(self, value: Any, type_name: str) -> str:
        self._values.append(value)
        return f"${len(self._values)}::{type_name}"

    def _unnest(self, rows: list[tuple[Any, ...]], types: str) -> str:
        columns = zip(*rows, strict=True)
        arrays = [self._value(list(column), f"{name}[]") for column, name in zip(columns, types.split(), strict=True)]
        return f"unnest({', '.join(arrays)})"

    def _update_runs(self) -> None:
        changes = self._batch.changes
        ends = any(change.status is not None for change in changes.values())
        # In the order of their ids, so that two batches that meet never wait for each other in a circle.
        rows = sorted(
            (
                run_id,
                generation,
                change.place,
                change.step_index,
                change.completed,
                change.progress,
                *((change.status, change.output, change.error) if ends else ()),
            )
            for (run_id, generation), change in changes.items()
        )
        source = self._unnest(rows, "text int int int int text" + (" text text text" if ends else ""))
        columns = "run_id, generation, place, step_index, completed, progress" + (
            ", status, output, error" if ends else ""
        )
        # The limit tells the planner that these are few, and the sum in the last line that no index on the
        # status will do: each run is looked up by its id, whatever the planner knew when it made the plan.
        self._parts.append(
            f"""held AS (
  UPDATE durably_runs AS run
  SET current_step_index = GREATEST(run.current_step_index, change.step_index),
      completed_step_count = run.completed_step_count + change.completed,
      progress = COALESCE(change.progress, run.progress), updated_at = moment.now{_END if ends else ""}
  FROM (SELECT * FROM {source} AS each({columns}) LIMIT {self._value(len(rows), "bigint")}) AS change
  CROSS JOIN moment
  WHERE run.id = change.run_id AND run.lease_generation = change.generation AND run.status || '' = 'leased'
  RETURNING change.place{", run.id, change.status AS ended" if ends else ""}
)"""
        )
        self._answers["held"] = "ARRAY(SELECT place FROM held)"
        if ends and not self._batch.preserve_steps:
            self._parts.append(
                "dropped AS (DELETE FROM durably_steps AS step USING held "
                "WHERE step.run_id = held.id AND held.ended IS NOT NULL)"
            )

    def _insert_steps(self) -> None:
        source = self._unnest(self._batch.steps, "text text text int text text text text text int")
        self._parts.append(
            f"stored AS (INSERT INTO durably_steps ({STEP_COLUMNS}) SELECT {STEP_COLUMNS} "
            f"FROM {source} AS step({STEP_COLUMNS}, place) WHERE (place IN (SELECT place FROM held)) IS TRUE)"
        )

    def _insert_runs(self) -> None:
        # Two batches that insert the same keys in the same order never wait for each other in a circle.
        rows = sorted(self._batch.runs, key=_keys) if self._batch.may_exist else self._batch.runs
        source = self._unnest(rows, "text text text text text text text text")
        columns = "id, job_name, input, idempotency_key, concurrency_key, labels, created_at, updated_at"
        self._parts.append(
            f"created AS (INSERT INTO durably_runs ({columns}, status) SELECT {columns}, 'pending' "
            f"FROM {source} AS run({columns}) "
            f"{'ON CONFLICT DO NOTHING ' if self._batch.may_exist else ''}RETURNING id)"
        )
        if self._batch.may_exist:
            self._answers["created"] = "ARRAY(SELECT id FROM created)"

    def _insert_labels(self) -> None:
        condition = "WHERE (run_id IN (SELECT id FROM created)) IS TRUE" if self._batch.may_exist else ""
        self._parts.append(
            "labelled AS (INSERT INTO durably_run_labels (run_id, key, value) SELECT run_id, key, value "
            f"FROM {self._unnest(list(self._batch.labels), 'text text text')} AS label(run_id, key, value) {condition})"
        )

    def _insert_logs(self) -> None:
        source = self._unnest(self._batch.logs, "text text text text text text text")
        self._parts.append(
            f"logged AS (INSERT INTO durably_logs ({LOG_COLUMNS}) SELECT {LOG_COLUMNS} "
            f"FROM {source} AS line({LOG_COLUMNS}) "
            "WHERE EXISTS (SELECT 1 FROM durably_runs AS run WHERE run.id = line.run_id) ON CONFLICT (id) DO NOTHING)"
        )

    def _insert_events(self) -> None:
        batch = self._batch
        depends = bool(batch.changes) or batch.may_exist
        source, events = self._chosen_events() if depends else self._all_events()
        origin, number = self._value(self._mark[0], "text"), self._value(self._mark[1], "bigint")
        self._parts.append(
            f"""told AS (
  INSERT INTO durably_events (origin, number, events, created_at)
  SELECT {origin}, {number}, {events}, moment.now
  FROM {source}
  RETURNING position
)"""
        )
        self._answers["position"] = "(SELECT position FROM told)"

    def _all_events(self) -> tuple[str, str]:
        """Return source and value of events that depend on nothing."""
        events = [*self._batch.announced, *(event for event, _, _ in self._batch.told)]
        return "moment", self._value(encode_events(events), "text")

    def _chosen_events(self) -> tuple[str, str]:
        """Return source and value of the events whose change held and whose run is new."""
        batch = self._batch
        rows: list[tuple[Any, ...]] = [(encode_events([event])[1:-1], None, None) for event in batch.announced]
        rows += [
            (encode_events([event])[1:-1], place, run_id if batch.may_exist else None)
            for event, place, run_id in batch.told
        ]
        conditions = []
        if batch.changes:
            conditions.append("(event.place IS NULL OR event.place IN (SELECT place FROM held))")
        if batch.may_exist:
            conditions.append("(event.run_id IS NULL OR event.run_id IN (SELECT id FROM created))")
        source = self._unnest(rows, "text int text")
        chosen = (
            f"{source} WITH ORDINALITY AS event(text, place, run_id, nth) CROSS JOIN moment"
            f" WHERE {' AND '.join(conditions)} GROUP BY moment.now"
        )
        return chosen, "'[' || string_agg(event.text, ',' ORDER BY event.nth) || ']'"


_END: Final = """,
      status = COALESCE(change.status, run.status), output = COALESCE(change.output, run.output),
      error = COALESCE(change.error, run.error),
      lease_owner = CASE WHEN change.status IS NULL THEN run.lease_owner END,
      lease_expires_at = CASE WHEN change.status IS NULL THEN run.lease_expires_at END,
      completed_at = CASE WHEN change.status IS NULL THEN run.completed_at ELSE moment.now END"""


def _keys(row: tuple[Any, ...]) -> tuple[str, ...]:
    return row[1], row[3] or "", row[4] or ""


def _text(text: str | None) -> str | None:
    return None if text is None else storable(text)
