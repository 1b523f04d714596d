"""What is read, each a function of a connection."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from typing import Any, Final

from durably.core.event_codec import decode_events
from durably.core.events import RunProgressEvent
from durably.core.logs import Log
from durably.core.runs import ProgressData, Run, RunStatus
from durably.core.steps import Step
from durably.core.store import RunQuery
from durably.stores.sql.rows import RUN_COLUMNS, log_from_row, run_from_row, step_from_row
from durably.stores.sqlite import statements as sql

_NO_LIMIT: Final = -1


def run_by_id(connection: sqlite3.Connection, run_id: str) -> Run[Any] | None:
    """Return a run, or None."""
    row = connection.execute(sql.RUN_BY_ID, (run_id,)).fetchone()
    return None if row is None else run_from_row(row)


def which_ended(connection: sqlite3.Connection, run_ids: Collection[str]) -> list[str]:
    """Return those of `run_ids` whose run has ended or is gone."""
    return [row[0] for row in connection.execute(sql.ENDED_AMONG, (json.dumps(list(run_ids)),))]


def runs(connection: sqlite3.Connection, query: RunQuery) -> list[Run[Any]]:
    """Return the runs of a query, newest first."""
    statement, parameters = _list_statement(query)
    return [run_from_row(row) for row in connection.execute(statement, parameters)]


def steps(connection: sqlite3.Connection, run_id: str) -> list[Step]:
    """Return the stored steps of a run by index."""
    return [step_from_row(row) for row in connection.execute(sql.STEPS_OF_RUN, (run_id,))]


def logs(connection: sqlite3.Connection, run_id: str) -> list[Log]:
    """Return the stored log lines of a run, oldest first."""
    return [log_from_row(row) for row in connection.execute(sql.LOGS_OF_RUN, (run_id,))]


def checkpoints(connection: sqlite3.Connection, run_id: str) -> dict[str, str | None]:
    """Return the results of the completed steps of a run by name."""
    return dict(connection.execute(sql.CHECKPOINTS_OF_RUN, (run_id,)).fetchall())


def snapshot(connection: sqlite3.Connection, run_id: str) -> tuple[Run[Any] | None, int, ProgressData | None]:
    """Return a run, the newest row of the event log at that moment, and the latest progress told there."""
    connection.execute("BEGIN")
    try:
        run = run_by_id(connection, run_id)
        (row,) = connection.execute(sql.LAST_EVENT_ROW).fetchone()
        progress = None
        if run is not None and run.status is RunStatus.LEASED:
            progress = _latest_progress(connection, run_id, row)
    finally:
        connection.execute("COMMIT")
    return run, row, progress


def _latest_progress(connection: sqlite3.Connection, run_id: str, row: int) -> ProgressData | None:
    # The stored progress is written a few times a second only; the log knows what came since.
    for _, text in connection.execute(sql.RECENT_EVENTS_OF_RUN, (row, row, run_id)):
        for event in reversed(decode_events(text)):
            if isinstance(event, RunProgressEvent) and event.run_id == run_id:
                return event.progress
    return None


def _list_statement(query: RunQuery) -> tuple[str, list[Any]]:
    """Return a statement whose work depends on the page asked for, not on how many runs are stored.

    Each combination of one job, one status and the first label is a range of an index that is ordered by
    creation. The newest of every range are looked up, and the page is cut out of their union.
    """
    limit = _NO_LIMIT if query.limit is None else query.limit
    if not (query.job_names or query.statuses or query.labels):
        return (
            f"SELECT {RUN_COLUMNS} FROM durably_runs ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?",
            [limit, query.offset],
        )
    reach = _NO_LIMIT if query.limit is None else query.limit + query.offset
    newest = _newest_by_label(query, reach) if query.labels else _newest_by_range(query, reach)
    statement, parameters = newest
    listing = f"SELECT {RUN_COLUMNS} FROM durably_runs WHERE id IN ({statement})"
    return f"{listing} ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?", [*parameters, limit, query.offset]


def _newest_by_range(query: RunQuery, reach: int) -> tuple[str, list[Any]]:
    sources, conditions, parameters = [], [], []
    if query.job_names:
        sources.append("json_each(?) AS job")
        conditions.append("newest.job_name = job.value")
        parameters.append(_array(query.job_names))
    if query.statuses:
        sources.append("json_each(?) AS status")
        conditions.append("newest.status = status.value")
        parameters.append(_array(query.statuses))
    statement = f"""
    SELECT run.id FROM {" CROSS JOIN ".join(sources)} CROSS JOIN durably_runs AS run
    WHERE run.id IN (
      SELECT newest.id FROM durably_runs AS newest WHERE {" AND ".join(conditions)}
      ORDER BY newest.created_at DESC, newest.id DESC LIMIT ?
    )"""
    return statement, [*parameters, reach]


def _newest_by_label(query: RunQuery, reach: int) -> tuple[str, list[Any]]:
    (key, value), *others = query.labels
    conditions, parameters = ["label.key = ?", "label.value = ?"], [key, value]
    for other in others:
        conditions.append(
            "EXISTS (SELECT 1 FROM durably_run_labels AS also"
            " WHERE also.run_id = label.run_id AND also.key = ? AND also.value = ?)"
        )
        parameters += other
    for column, wanted in (("job_name", query.job_names), ("status", query.statuses)):
        if wanted:
            conditions.append(f"run.{column} IN (SELECT value FROM json_each(?))")
            parameters.append(_array(wanted))
    statement = f"""
    SELECT label.run_id FROM durably_run_labels AS label INDEXED BY idx_durably_run_labels_newest
    CROSS JOIN durably_runs AS run ON run.id = label.run_id
    WHERE {" AND ".join(conditions)}
    ORDER BY label.run_id DESC LIMIT ?"""
    return statement, [*parameters, reach]


def _array(values: tuple[Any, ...]) -> str:
    return json.dumps(list(values))
