"""Ranges of an index, each read as far as its limit: the oldest or newest of several jobs and states.

SQLite's own store says this with one correlated sub-query. Not every server that speaks libSQL's protocol
starts the limit of such a one anew for each outer row, so here every range is written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Final

from durably.core.store import RunQuery
from durably.stores.sql import sqlite_queries as queries
from durably.stores.sql.rows import RUN_COLUMNS

MOST_RANGES: Final = 400
"""SQLite takes at most 500 parts of a compound SELECT."""

_WAITING_OF_JOB: Final = """
SELECT * FROM (
  SELECT candidate.id, candidate.created_at, candidate.concurrency_key FROM durably_runs AS candidate
  WHERE candidate.job_name = ? AND candidate.status = 'pending'
    AND (candidate.concurrency_key IS NULL OR NOT EXISTS (
      SELECT 1 FROM durably_runs AS holder
      WHERE holder.status = 'leased' AND holder.concurrency_key = candidate.concurrency_key
    ))
  ORDER BY candidate.created_at, candidate.id LIMIT ?
)
"""


def oldest_waiting(job_names: Sequence[str], limit: int) -> tuple[str, list[Any]]:
    """Return a query for the oldest pending runs of each job whose key nobody holds: id, created_at, key."""
    parameters = [value for name in job_names for value in (name, limit)]
    return " UNION ALL ".join([_WAITING_OF_JOB] * len(job_names)), parameters


def list_statement(query: RunQuery) -> tuple[str, list[Any]]:
    """Return a statement whose work depends on the page asked for, not on how many runs are stored."""
    query = queries.in_ranges(query)
    columns = [
        (column, values) for column, values in (("job_name", query.job_names), ("status", query.statuses)) if values
    ]
    ranges = list(product(*(values for _, values in columns)))
    if query.labels or len(ranges) > MOST_RANGES:
        return queries.list_statement(query)
    reach = queries.NO_LIMIT if query.limit is None else query.limit + query.offset
    condition = " AND ".join(f"{column} = ?" for column, _ in columns)
    newest = f"SELECT id FROM (SELECT id FROM durably_runs WHERE {condition} ORDER BY created_at DESC, id DESC LIMIT ?)"
    union = " UNION ALL ".join([newest] * len(ranges))
    parameters = [value for values in ranges for value in (*values, reach)]
    limit = queries.NO_LIMIT if query.limit is None else query.limit
    listing = f"SELECT {RUN_COLUMNS} FROM durably_runs WHERE id IN ({union})"
    return f"{listing} ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?", [*parameters, limit, query.offset]
