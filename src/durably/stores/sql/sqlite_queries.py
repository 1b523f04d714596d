"""What is read in SQLite's dialect (3.9 and later), the same in a file and over the network."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from durably.core.runs import RunStatus
from durably.core.store import RunQuery
from durably.stores.sql.rows import LOG_COLUMNS, PROGRESS_STORED_SECONDS, RUN_COLUMNS, STEP_COLUMNS

NO_LIMIT: Final = -1
_MOST_BOUND: Final = 100

# --- runs ------------------------------------------------------------------------------------------

RUN_BY_IDEMPOTENCY_KEY: Final = f"""
-- The run that a job's idempotency key stands for.
SELECT {RUN_COLUMNS} FROM durably_runs WHERE job_name = ? AND idempotency_key = ?
"""

PENDING_BY_CONCURRENCY_KEY: Final = f"""
-- The one run of a job and key that waits.
SELECT {RUN_COLUMNS} FROM durably_runs WHERE job_name = ? AND concurrency_key = ? AND status = 'pending'
"""

PURGEABLE_RUNS: Final = """
-- The terminal runs that ended first; one index range per status, so that the limit ends the search.
SELECT id, job_name, labels FROM (
  SELECT * FROM (SELECT id, job_name, labels, completed_at FROM durably_runs
                 WHERE status = 'completed' AND completed_at <= ?1 ORDER BY completed_at LIMIT ?2)
  UNION ALL
  SELECT * FROM (SELECT id, job_name, labels, completed_at FROM durably_runs
                 WHERE status = 'failed' AND completed_at <= ?1 ORDER BY completed_at LIMIT ?2)
  UNION ALL
  SELECT * FROM (SELECT id, job_name, labels, completed_at FROM durably_runs
                 WHERE status = 'cancelled' AND completed_at <= ?1 ORDER BY completed_at LIMIT ?2)
)
ORDER BY completed_at, id
LIMIT ?2
"""

RUN_BY_ID: Final = f"SELECT {RUN_COLUMNS} FROM durably_runs WHERE id = ?"

ENDED_AMONG: Final = """
-- Those of some runs that nobody will execute any more.
SELECT value FROM json_each(?) AS wanted
WHERE NOT EXISTS (
  SELECT 1 FROM durably_runs WHERE durably_runs.id = wanted.value AND status IN ('pending', 'leased')
)
"""

STEPS_OF_RUN: Final = f"""
SELECT {STEP_COLUMNS} FROM durably_steps WHERE run_id = ? ORDER BY "index", started_at, id
"""

LOGS_OF_RUN: Final = f"SELECT {LOG_COLUMNS} FROM durably_logs WHERE run_id = ? ORDER BY created_at, id"

CHECKPOINTS_OF_RUN: Final = """
-- Everything a resume needs, in one read.
SELECT name, output FROM durably_steps WHERE run_id = ? AND status = 'completed'
"""

# --- events ---------------------------------------------------------------------------------------

LAST_EVENT_ROW: Final = "SELECT COALESCE(MAX(position), 0) FROM durably_events"

FIRST_EVENT_ROW: Final = "SELECT COALESCE(MIN(position), 0) FROM durably_events"

EVENTS_AFTER: Final = """
SELECT position, origin, events FROM durably_events WHERE position > ? ORDER BY position LIMIT ?
"""

RECENT_EVENTS_OF_RUN: Final = f"""
-- The newest rows that speak of a run, back to the first that is older than what progress waits to be stored.
SELECT position, events FROM durably_events
WHERE position <= ?1 AND position > ?1 - 500 AND position > COALESCE((
  SELECT old.position FROM durably_events AS old
  WHERE old.position <= ?1 AND old.position > ?1 - 500 AND old.created_at < (
    SELECT strftime('%Y-%m-%dT%H:%M:%fZ', created_at, '-{PROGRESS_STORED_SECONDS} seconds')
    FROM durably_events WHERE position = ?1
  )
  ORDER BY old.position DESC LIMIT 1
), 0) AND instr(events, ?2)
ORDER BY position DESC LIMIT 20
"""

# --- lists ----------------------------------------------------------------------------------------


def list_statement(query: RunQuery, *, range_leads: bool = False) -> tuple[str, list[Any]]:
    """Return a statement whose work depends on the page asked for, not on how many runs are stored.

    Each combination of one job and one status is a range of an index that is ordered by creation, and so
    is each label. The newest of every range are looked up, and the page is cut out of their union. Where
    both kinds are given the first label leads, unless `range_leads`.

    Labels know the ids of their runs, which are in the order of creation also when the clock went back: all pages of
    one list are cut in the order in which their runs are looked up.
    """
    query = in_ranges(query)
    limit = NO_LIMIT if query.limit is None else query.limit
    reach = NO_LIMIT if query.limit is None else query.limit + query.offset
    by_label = query.labels and not range_leads
    newest = _newest_by_label(query, reach) if by_label else _newest_by_range(query, reach)
    statement, parameters = newest
    order = "id DESC" if by_label else "created_at DESC, id DESC"
    listing = f"SELECT {RUN_COLUMNS} FROM durably_runs WHERE id IN ({statement}) ORDER BY {order} LIMIT ? OFFSET ?"
    return listing, [*parameters, limit, query.offset]


def in_ranges(query: RunQuery) -> RunQuery:
    """Return a query that says the same and has a filter: all statuses are all runs.

    An index of all runs by creation would do as well, but every trigger would pay for its place in it.
    """
    if query.job_names or query.statuses or query.labels:
        return query
    return replace(query, statuses=tuple(RunStatus))


def count_of_ranges(query: RunQuery, most: int) -> tuple[str, list[Any]]:
    """Return a statement that counts the runs of the jobs and statuses of a query, no further than `most`."""
    sources, conditions, parameters = _ranges(query)
    statement = f"""
    SELECT COUNT(*) FROM (
      SELECT 1 FROM {" CROSS JOIN ".join(sources)} CROSS JOIN durably_runs AS newest
      WHERE {" AND ".join(conditions)} LIMIT ?
    )"""
    return statement, [*parameters, most]


def _ranges(query: RunQuery) -> tuple[list[str], list[str], list[Any]]:
    sources, conditions, parameters = [], [], []
    if query.job_names:
        sources.append("json_each(?) AS job")
        conditions.append("newest.job_name = job.value")
        parameters.append(_array(query.job_names))
    if query.statuses:
        sources.append("json_each(?) AS status")
        conditions.append("newest.status = status.value")
        parameters.append(_array(query.statuses))
    return sources, conditions, parameters


def _newest_by_range(query: RunQuery, reach: int) -> tuple[str, list[Any]]:
    sources, conditions, parameters = _ranges(query)
    for label in query.labels:
        conditions.append(_has_label("newest.id"))
        parameters += label
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
        conditions.append(_has_label("label.run_id"))
        parameters += other
    source = ""
    for column, wanted in (("job_name", query.job_names), ("status", query.statuses)):
        if wanted:
            source = "CROSS JOIN durably_runs AS run ON run.id = label.run_id"
            among, values = _among(wanted)
            conditions.append(f"run.{column} {among}")
            parameters += values
    statement = f"""
    SELECT label.run_id FROM durably_run_labels AS label INDEXED BY idx_durably_run_labels_newest {source}
    WHERE {" AND ".join(conditions)}
    ORDER BY label.run_id DESC LIMIT ?"""
    return statement, [*parameters, reach]


def _has_label(run_id: str) -> str:
    # In this index neighbours are asked for one after the other, and the row itself is not needed.
    return (
        "EXISTS (SELECT 1 FROM durably_run_labels AS also INDEXED BY idx_durably_run_labels_newest"
        f" WHERE also.run_id = {run_id} AND also.key = ? AND also.value = ?)"
    )


def _among(values: tuple[Any, ...]) -> tuple[str, list[Any]]:
    # Some servers hand out the values of JSON as they are escaped there; and a statement takes only so many parameters.
    if len(values) <= _MOST_BOUND:
        return f"IN ({', '.join('?' * len(values))})", list(values)
    return "IN (SELECT value FROM json_each(?))", [_array(values)]


def _array(values: tuple[Any, ...]) -> str:
    return json.dumps(list(values))
