"""What piled up while a round trip was under way, as one statement: one round trip, one commit.

A batch happens as a whole or not at all. Its row in the log of events hangs on the fences: where a run is no
longer held under its claim the row has no text, and the database refuses it and everything with it.

The statement is put together of the parts that a batch needs, so that a lone step stays cheap; there are few
different texts and each connection prepares each of them once. One row travels as plain values, several as one
JSON array per column: the driver looks three times as long at an array of PostgreSQL's, at every single value
of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, NamedTuple

import asyncpg

from durably.core.event_codec import encode_events
from durably.core.events import DurablyEvent
from durably.core.json_values import compact_encoder
from durably.core.leases import Claim
from durably.core.logs import Log
from durably.core.outcomes import Completed, Failed
from durably.core.store import NewRun, StepRecord
from durably.core.texts import storable
from durably.stores.postgres.marks import Mark
from durably.stores.postgres.statements import BATCH_NOW
from durably.stores.sql.rows import LOG_COLUMNS, STEP_COLUMNS, end_of, row_of_log, row_of_new, row_of_step

_NEW_RUN_COLUMNS: Final = "id, job_name, input, idempotency_key, concurrency_key, labels, created_at, updated_at"

_STEP_TYPES: Final = ("text", "text", "text", "int", "text", "text", "text", "text", "text")

_encode: Final = compact_encoder()

Rows = list[tuple[Any, ...]]


@dataclass(slots=True)
class Change:
    """What a batch writes to one leased run."""

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
    announced: list[DurablyEvent] = field(default_factory=list)
    told: list[DurablyEvent] = field(default_factory=list)
    _changes: dict[tuple[str, int], Change] = field(default_factory=dict)
    _steps: Rows = field(default_factory=list)
    _logs: Rows = field(default_factory=list)
    _runs: Rows = field(default_factory=list)
    _labels: Rows = field(default_factory=list)

    def add_step(self, claim: Claim, step: StepRecord, progress: str | None, event: DurablyEvent) -> None:
        """Store a finished step."""
        change = self._change(claim, progress)
        if step.error is None:
            change.step_index = max(change.step_index, step.index + 1)
            change.completed += 1
        else:
            step = replace(step, error=storable(step.error))
        self._steps.append(row_of_step(claim.run_id, step))
        self.told.append(event)

    def add_progress(self, claim: Claim, progress: str | None) -> None:
        """Store the latest progress."""
        self._change(claim, progress)

    def add_end(self, claim: Claim, outcome: Completed | Failed, progress: str | None, event: DurablyEvent) -> None:
        """End a run."""
        change = self._change(claim, progress)
        change.status, change.output, error = end_of(outcome)
        change.error = _text(error)
        self.told.append(event)

    def add_run(self, new: NewRun, event: DurablyEvent) -> None:
        """Store a new run."""
        self._runs.append(row_of_new(new))
        self._labels.extend((new.id, key, value) for key, value in new.labels.items())
        self.told.append(event)

    def add_log(self, log: Log, data_json: str | None) -> None:
        """Store a log line, if its run still exists."""
        as_stored = replace(log, step_name=_text(log.step_name), message=storable(log.message))
        self._logs.append(row_of_log(as_stored, data_json))

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to write."""
        return not (self._changes or self._runs or self._logs or self.announced or self.told)

    def statement(self, mark: Mark, *, hint: tuple[str, str] | None = None) -> tuple[str, list[Any]]:
        """Return the text of the statement and its values; its row tells the `position` of the events.

        With `hint` (channel and payload) the commit wakes other processes.
        """
        statement = _Statement()
        if self._changes:
            statement.update_runs(self._changes, drop_steps=not self.preserve_steps)
        if steps := self._steps_worth_storing():
            statement.insert("stored", _STEP_TYPES, steps)
        if self._runs:
            statement.insert("created", ("text",) * 8, self._runs)
        if self._labels:
            statement.insert("labelled", ("text",) * 3, self._labels)
        if self._logs:
            statement.insert("logged", ("text",) * 7, self._logs)
        return statement.telling(encode_events([*self.announced, *self.told]), mark, hint)

    def _steps_worth_storing(self) -> Rows:
        if self.preserve_steps:
            return self._steps
        ending = {run_id for (run_id, _), change in self._changes.items() if change.status is not None}
        return [step for step in self._steps if step[1] not in ending] if ending else self._steps

    def _change(self, claim: Claim, progress: str | None) -> Change:
        key = claim.run_id, claim.generation
        change = self._changes.get(key)
        if change is None:
            change = self._changes[key] = Change()
        if progress is not None:
            change.progress = progress
        return change


def is_refused(error: asyncpg.NotNullViolationError) -> bool:
    """Tell whether a statement failed because a run of its batch is not held any more."""
    return error.table_name == "durably_events" and error.column_name == "events"


class _Statement:
    """Puts a statement together, part by part. Its text depends on the shape only and is made once for each."""

    _texts: ClassVar[dict[tuple[_Shape, ...], str]] = {}

    def __init__(self) -> None:
        self._shapes: list[_Shape] = []
        self._values: list[Any] = []

    def update_runs(self, changes: dict[tuple[str, int], Change], *, drop_steps: bool) -> None:
        has_progress = any(change.progress is not None for change in changes.values())
        has_ends = any(change.status is not None for change in changes.values())
        # In the order of their ids, so that two batches that meet never wait for each other in a circle.
        rows: Rows = sorted(
            (
                *key,
                change.step_index,
                change.completed,
                *((change.progress,) if has_progress else ()),
                *((change.status, change.output, change.error) if has_ends else ()),
            )
            for key, change in changes.items()
        )
        types = ("text", "int", "int", "int") + ("text",) * has_progress + ("text",) * 3 * has_ends
        self.insert("held", types, rows, (has_progress, has_ends, drop_steps))
        if len(rows) > 1:
            self._values.append(len(rows))

    def insert(self, part: str, types: tuple[str, ...], rows: Rows, flags: tuple[bool, ...] = ()) -> None:
        is_single = len(rows) == 1
        self._shapes.append(_Shape(part, types, is_single, flags))
        self._values += rows[0] if is_single else map(_encode, zip(*rows, strict=True))

    def telling(self, events: str, mark: Mark, hint: tuple[str, str] | None) -> tuple[str, list[Any]]:
        self._shapes.append(_Shape("told", (), True, (hint is not None,)))
        self._values += (mark.origin, mark.number, events, *(hint or ()))
        shape = tuple(self._shapes)
        text = self._texts.get(shape)
        if text is None:
            text = self._texts[shape] = _Text().of(shape)
        return text, self._values


class _Shape(NamedTuple):
    """What the text of a part depends on."""

    part: str
    types: tuple[str, ...]
    is_single: bool
    flags: tuple[bool, ...]


class _Text:
    """The text of a statement, from the shapes of its parts."""

    def __init__(self) -> None:
        self._count = 0
        self._are_held = ""

    def of(self, shapes: tuple[_Shape, ...]) -> str:
        parts = [part for shape in shapes[:-1] for part in self._parts(shape)]
        told, answer = self._telling(has_hint=shapes[-1].flags[0])
        return f"WITH {', '.join([*parts, told])} SELECT {answer} FROM told"

    def _parts(self, shape: _Shape) -> list[str]:
        source = self._source(shape)
        match shape.part:
            case "held":
                return self._update_runs(source, shape)
            case "stored":
                return [f"stored AS (INSERT INTO durably_steps ({STEP_COLUMNS}) SELECT * FROM {source} AS step)"]
            case "created":
                columns, values = f"{_NEW_RUN_COLUMNS}, status", "run.*, 'pending'"
                return [f"created AS (INSERT INTO durably_runs ({columns}) SELECT {values} FROM {source} AS run)"]
            case "labelled":
                columns = "run_id, key, value"
                return [f"labelled AS (INSERT INTO durably_run_labels ({columns}) SELECT * FROM {source} AS label)"]
            case _:
                lines = f"SELECT * FROM {source} AS line({LOG_COLUMNS}) WHERE {self._run_stays()}"
                return [f"logged AS (INSERT INTO durably_logs ({LOG_COLUMNS}) {lines} ON CONFLICT (id) DO NOTHING)"]

    def _run_stays(self) -> str:
        # The lock makes whoever deletes the run wait, and then see the line. A row that this statement has
        # updated is locked by that, and cannot be locked again.
        exists = "EXISTS (SELECT 1 FROM durably_runs AS run WHERE run.id = line.run_id FOR KEY SHARE)"
        return f"(line.run_id IN (SELECT id FROM held) OR {exists})" if self._are_held else exists

    def _update_runs(self, source: str, shape: _Shape) -> list[str]:
        has_progress, has_ends, drop_steps = shape.flags
        names = "run_id, generation, step_index, completed"
        names += ", progress" * has_progress + ", status, output, error" * has_ends
        source = f"{source} AS change({names})"
        count = "1"
        if not shape.is_single:
            # The limit tells the planner that these are few.
            count = self._value("bigint")
            source = f"(SELECT * FROM {source} LIMIT {count}) AS change"
        self._are_held = f"(SELECT count(*) FROM held) = {count}"
        # The sum in the last condition tells the planner that no index on the status will do: each run is looked
        # up by its id, whatever was known when the plan was made.
        held = f"""held AS (
  UPDATE durably_runs AS run
  SET current_step_index = GREATEST(run.current_step_index, change.step_index),
      completed_step_count = run.completed_step_count + change.completed,
      updated_at = {BATCH_NOW}{_PROGRESS * has_progress}{_END * has_ends}
  FROM {source}
  WHERE run.id = change.run_id AND run.lease_generation = change.generation AND run.status || '' = 'leased'
  RETURNING run.id{", change.status AS ended" * has_ends}
)"""
        return [held, _DROP_STEPS] if has_ends and drop_steps else [held]

    def _telling(self, *, has_hint: bool) -> tuple[str, str]:
        origin, number, text = self._value("text"), self._value("bigint"), self._value("text")
        if self._are_held:
            text = f"CASE WHEN {self._are_held} THEN {text} END"
        told = f"""told AS (
  INSERT INTO durably_events (origin, number, events, created_at)
  VALUES ({origin}, {number}, {text}, {BATCH_NOW})
  RETURNING position
)"""
        notify = f", pg_notify({self._value('text')}, {self._value('text')})" if has_hint else ""
        return told, f"position{notify}"

    def _source(self, shape: _Shape) -> str:
        if shape.is_single:
            return f"(VALUES ({', '.join(self._value(name) for name in shape.types)}))"
        columns = ", ".join(f"json_array_elements_text({self._value('json')})" for _ in shape.types)
        names = [f"c{place}" for place in range(len(shape.types))]
        typed = ", ".join(f"{name}::{type_name}" for name, type_name in zip(names, shape.types, strict=True))
        return f"(SELECT {typed} FROM ROWS FROM ({columns}) AS batch({', '.join(names)}))"

    def _value(self, type_name: str) -> str:
        self._count += 1
        return f"${self._count}::{type_name}"


_PROGRESS: Final = ", progress = COALESCE(change.progress, run.progress)"

_END: Final = f""",
      status = COALESCE(change.status, run.status), output = COALESCE(change.output, run.output),
      error = COALESCE(change.error, run.error),
      lease_owner = CASE WHEN change.status IS NULL THEN run.lease_owner END,
      lease_expires_at = CASE WHEN change.status IS NULL THEN run.lease_expires_at END,
      completed_at = CASE WHEN change.status IS NULL THEN run.completed_at ELSE {BATCH_NOW} END"""

_DROP_STEPS: Final = """dropped AS (
  DELETE FROM durably_steps AS step USING held WHERE step.run_id = held.id AND held.ended IS NOT NULL
)"""


def _text(text: str | None) -> str | None:
    return None if text is None else storable(text)
