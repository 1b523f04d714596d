"""Lists of runs, by work that depends on the page asked for and not on how many runs are stored."""

from __future__ import annotations

from typing import Any

from durably.core.runs import RunStatus
from durably.core.store import RunQuery
from durably.stores.sql.rows import RUN_COLUMNS

_NEWEST_FIRST = "ORDER BY created_at DESC, id DESC"


def list_statement(query: RunQuery) -> tuple[str, list[Any]]:
    """Return the statement for a page of runs, newest first, and its values.

    Each combination of one job and one status is a range of an index that is ordered by creation, and a list
    without a filter is one of all statuses. The newest of every range are looked up, and the page is cut out
    of their union.
    """
    values: list[Any] = []

    def value(given: Any, type_name: str) -> str:
        values.append(given)
        return f"${len(values)}::{type_name}"

    reach = None if query.limit is None else query.limit + query.offset
    ranges, conditions = [], ["true"]
    if query.job_names:
        ranges.append(f"unnest({value(list(query.job_names), 'text[]')}) AS job(value)")
        conditions.append("run.job_name = job.value")
    if query.statuses or not query.job_names:
        ranges.append(
            f"unnest({value([str(status) for status in query.statuses or RunStatus], 'text[]')}) AS kind(value)"
        )
        conditions.append("run.status = kind.value")
    for key, wanted in query.labels:
        conditions.append(
            "EXISTS (SELECT 1 FROM durably_run_labels AS label WHERE label.run_id = run.id"
            f" AND label.key = {value(key, 'text')} AND label.value = {value(wanted, 'text')})"
        )
    newest = f"SELECT run.* FROM durably_runs AS run WHERE {' AND '.join(conditions)} {_NEWEST_FIRST}"
    if reach is not None:
        newest += f" LIMIT {value(reach, 'bigint')}"
    source = f"{' CROSS JOIN '.join(ranges)} CROSS JOIN LATERAL ({newest}) AS page"
    limit = "" if query.limit is None else f" LIMIT {value(query.limit, 'bigint')}"
    return (
        f"SELECT {RUN_COLUMNS} FROM {source} {_NEWEST_FIRST}{limit} OFFSET {value(query.offset, 'bigint')}",
        values,
    )
