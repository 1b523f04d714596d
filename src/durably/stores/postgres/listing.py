"""Lists of runs, by work that depends on the page asked for and not on how many runs are stored."""

from __future__ import annotations

from typing import Any, Final

from durably.core.runs import RunStatus
from durably.core.store import RunQuery
from durably.stores.sql.rows import RUN_COLUMNS

_NEWEST_FIRST = "ORDER BY created_at DESC, id DESC"


RARE: Final = 1_000
"""A label that fewer runs have is where a list begins: their ids are looked up, however many runs are stored."""


def label_counts(query: RunQuery) -> tuple[str, list[Any]]:
    """Return a statement that counts the runs of each label of a query, no further than it matters."""
    one = "SELECT 1 FROM durably_run_labels AS label WHERE label.key = ${} AND label.value = ${} LIMIT $1::bigint"
    counts = [
        f"(SELECT count(*) FROM ({one.format(2 * n + 2, 2 * n + 3)}) AS counted)" for n in range(len(query.labels))
    ]
    return f"SELECT {', '.join(counts)}", [RARE + 1, *(text for label in query.labels for text in label)]


def list_by_label(query: RunQuery, rare: int) -> tuple[str, list[Any]]:
    """Return the statement for a page of the runs that have a rare label, the `rare`th of the query."""
    values: list[Any] = []

    def value(given: Any, type_name: str) -> str:
        values.append(given)
        return f"${len(values)}::{type_name}"

    key, wanted = query.labels[rare]
    having = f"label.key = {value(key, 'text')} AND label.value = {value(wanted, 'text')}"
    conditions = [_has_label(value(key, "text"), value(wanted, "text")) for key, wanted in query.labels]
    if query.job_names:
        conditions.append(f"run.job_name = ANY({value(list(query.job_names), 'text[]')})")
    if query.statuses:
        conditions.append(f"run.status = ANY({value([str(status) for status in query.statuses], 'text[]')})")
    limit = "" if query.limit is None else f" LIMIT {value(query.limit, 'bigint')}"
    # Materialized, with a limit: else the planner may believe that walking through all runs meets the label soon.
    # The limit leaves room for runs that were triggered since the label was counted.
    return (
        f"""WITH rare AS MATERIALIZED (
  SELECT label.run_id FROM durably_run_labels AS label WHERE {having} LIMIT {value(2 * RARE, "bigint")}
)
SELECT run.* FROM rare CROSS JOIN LATERAL (
  SELECT {RUN_COLUMNS} FROM durably_runs AS run WHERE run.id = rare.run_id AND {" AND ".join(conditions)} OFFSET 0
) AS run {_NEWEST_FIRST}{limit} OFFSET {value(query.offset, "bigint")}""",
        values,
    )


def _has_label(key: str, value: str) -> str:
    return (
        "EXISTS (SELECT 1 FROM durably_run_labels AS label WHERE label.run_id = run.id"
        f" AND label.key = {key} AND label.value = {value})"
    )


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
        conditions.append(_has_label(value(key, "text"), value(wanted, "text")))
    newest = f"SELECT run.* FROM durably_runs AS run WHERE {' AND '.join(conditions)} {_NEWEST_FIRST}"
    if reach is not None:
        newest += f" LIMIT {value(reach, 'bigint')}"
    source = f"{' CROSS JOIN '.join(ranges)} CROSS JOIN LATERAL ({newest}) AS page"
    limit = "" if query.limit is None else f" LIMIT {value(query.limit, 'bigint')}"
    return (
        f"SELECT {RUN_COLUMNS} FROM {source} {_NEWEST_FIRST}{limit} OFFSET {value(query.offset, 'bigint')}",
        values,
    )
