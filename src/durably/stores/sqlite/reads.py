"""What is read, each a function of a connection."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

from durably.core.logs import Log
from durably.core.runs import ProgressData, Run, TriggerResult
from durably.core.steps import Step
from durably.core.store import RunQuery
from durably.stores.sql import sqlite_queries as queries
from durably.stores.sql.rows import latest_progress, log_from_row, result_from_row, run_from_row, step_from_row
from durably.stores.sqlite import statements as sql

_MOST_COUNTED: Final = 10_000


def run_by_id(connection: sqlite3.Connection, run_id: str) -> Run[Any] | None:
    """Return a run, or None."""
    row = connection.execute(queries.RUN_BY_ID, (run_id,)).fetchone()
    return None if row is None else run_from_row(row)


def idempotent(connection: sqlite3.Connection, job_name: str, idempotency_key: str) -> TriggerResult[Any] | None:
    """Return the run that a job's idempotency key stands for, or None."""
    row = connection.execute(queries.RUN_BY_IDEMPOTENCY_KEY, (job_name, idempotency_key)).fetchone()
    return None if row is None else result_from_row(row, "idempotent")


def which_ended(connection: sqlite3.Connection, run_ids: Collection[str]) -> list[str]:
    """Return those of `run_ids` whose run has ended or is gone."""
    return [row[0] for row in connection.execute(queries.ENDED_AMONG, (json.dumps(list(run_ids)),))]


def runs(connection: sqlite3.Connection, query: RunQuery) -> list[Run[Any]]:
    """Return the runs of a query, newest first."""
    statement, parameters = _led_by_the_rarest(connection, query)
    return [run_from_row(row) for row in connection.execute(statement, parameters)]


def _led_by_the_rarest(connection: sqlite3.Connection, query: RunQuery) -> tuple[str, list[Any]]:
    """Let the filter lead that fewest runs pass: the runs of the others are not looked through."""
    has_ranges = bool(query.job_names or query.statuses)
    if not query.labels or (len(query.labels) == 1 and not has_ranges):
        return queries.list_statement(query)
    labels = [
        (connection.execute(sql.COUNT_OF_LABEL, (*label, _MOST_COUNTED)).fetchone()[0], label) for label in query.labels
    ]
    labels.sort()
    query = replace(query, labels=tuple(label for _, label in labels))
    if not has_ranges or (fewest := labels[0][0]) == 0:
        return queries.list_statement(query)
    (in_ranges,) = connection.execute(*queries.count_of_ranges(query, _MOST_COUNTED)).fetchone()
    return queries.list_statement(query, range_leads=in_ranges < fewest)


def steps(connection: sqlite3.Connection, run_id: str) -> list[Step]:
    """Return the stored steps of a run by index."""
    return [step_from_row(row) for row in connection.execute(queries.STEPS_OF_RUN, (run_id,))]


def logs(connection: sqlite3.Connection, run_id: str) -> list[Log]:
    """Return the stored log lines of a run, oldest first."""
    return [log_from_row(row) for row in connection.execute(queries.LOGS_OF_RUN, (run_id,))]


def checkpoints(connection: sqlite3.Connection, run_id: str) -> dict[str, str | None]:
    """Return the results of the completed steps of a run by name."""
    return dict(connection.execute(queries.CHECKPOINTS_OF_RUN, (run_id,)).fetchall())


def snapshot(connection: sqlite3.Connection, run_id: str) -> tuple[Run[Any] | None, int]:
    """Return a run and the newest row of the event log at that moment."""
    connection.execute("BEGIN")
    try:
        run = run_by_id(connection, run_id)
        (row,) = connection.execute(queries.LAST_EVENT_ROW).fetchone()
    finally:
        connection.execute("COMMIT")
    return run, row


def recent_progress(connection: sqlite3.Connection, run_id: str, row: int) -> ProgressData | None:
    """Return the progress that a run told last up to a row of the event log, if it may not be stored yet."""
    # By name: Python 3.12 warns of a sequence for placeholders with numbers.
    recent = connection.execute(queries.RECENT_EVENTS_OF_RUN, {"1": row, "2": run_id})
    return latest_progress((text for _, text in recent), run_id)
