"""Triggering in one round trip: what the keys of new runs stand for is found where they are stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from durably.core.clock import to_text
from durably.core.errors import DurablyError
from durably.core.event_codec import encode_events
from durably.core.runs import TriggerResult
from durably.core.store import NewRun
from durably.stores.libsql import statements as sql
from durably.stores.libsql.hrana import Rows, Statement
from durably.stores.libsql.unit import Unit
from durably.stores.sql import sqlite_queries as queries
from durably.stores.sql.rows import (
    labels_to_text,
    result_from_row,
    row_of_new,
    run_from_new,
    run_from_row,
    trigger_event,
)
from durably.stores.sql.rules import may_coalesce, pending_conflict

_KEYED_STATEMENTS: Final = 6


@dataclass(frozen=True, slots=True)
class _Part:
    """The statements of one run with keys, or of several without, from a place in the unit on."""

    start: int
    runs: Sequence[NewRun]
    is_keyed: bool


def enqueue(origin: str, runs: Sequence[NewRun]) -> Unit[list[TriggerResult[Any]]]:
    """Store all runs or none, or find those that their keys stand for."""
    statements: list[Statement] = []
    parts: list[_Part] = []
    is_single = len(runs) == 1
    for group in _groups(runs):
        is_keyed = group[0].has_key
        parts.append(_Part(len(statements), group, is_keyed))
        statements += _store_keyed(origin, group[0], is_single=is_single) if is_keyed else _store(origin, group)

    def result(rows: list[Rows]) -> list[TriggerResult[Any]]:
        found: list[TriggerResult[Any]] = []
        for part in parts:
            if part.is_keyed:
                found.append(_found(part.runs[0], rows[part.start : part.start + _KEYED_STATEMENTS]))
            else:
                found += [run_from_new(new) for new in part.runs]
        return found

    def refused(position: int, rows: list[Rows]) -> DurablyError | None:
        part = next((part for part in reversed(parts) if part.start <= position), None)
        if part is None or not part.is_keyed or not (waiting := rows[part.start + 1]):
            return None
        return pending_conflict(run_from_row(waiting[0]))

    # Several runs are undone together when one of them meets a waiting run of its key.
    return Unit(statements, result, alone=not is_single and any(new.has_key for new in runs), refused=refused)


def enqueue_unkeyed(origin: str, orders: Sequence[Sequence[NewRun]]) -> Unit[list[list[TriggerResult[Any]]]]:
    """Store the runs of several orders, none of which has a key."""
    runs = [new for order in orders for new in order]
    return Unit(_store(origin, runs), lambda _: [[run_from_new(new) for new in order] for order in orders])


def _groups(runs: Sequence[NewRun]) -> list[list[NewRun]]:
    groups: list[list[NewRun]] = []
    for new in runs:
        if groups and not new.has_key and not groups[-1][0].has_key:
            groups[-1].append(new)
        else:
            groups.append([new])
    return groups


def _store(origin: str, runs: Sequence[NewRun]) -> list[Statement]:
    stored = json.dumps(
        [[new.id, new.job_name, new.input_json, labels_to_text(new.labels), to_text(new.created_at)] for new in runs]
    )
    return [
        Statement(sql.INSERT_RUNS, (stored,)),
        Statement(sql.INSERT_LABELS, (_labels(runs),)),
        Statement(sql.INSERT_EVENTS, (origin, _triggered(runs)), tells=True),
    ]


def _store_keyed(origin: str, new: NewRun, *, is_single: bool) -> list[Statement]:
    idempotency = (new.job_name, new.idempotency_key)
    concurrency = (new.job_name, new.concurrency_key)
    values = row_of_new(new)
    if is_single or new.coalesce:
        insert = Statement(sql.INSERT_UNLESS_KEYS_TAKEN, (*values, *idempotency, *concurrency, new.only_into))
    else:
        insert = Statement(sql.INSERT_UNLESS_KEY_TAKEN, (*values, *idempotency))
    skipped = (labels_to_text(new.labels), new.input_json) if new.coalesce else ("{}", "null")
    # A key that nobody has makes the statement tell nothing.
    coalesced = (*(concurrency if new.coalesce else (new.job_name, None)), new.only_into, new.id, *idempotency)
    return [
        Statement(queries.RUN_BY_IDEMPOTENCY_KEY, idempotency),
        Statement(queries.PENDING_BY_CONCURRENCY_KEY, concurrency),
        insert,
        Statement(sql.INSERT_LABELS, (_labels([new]),)),
        Statement(sql.TELL_TRIGGERED, (origin, _triggered([new]), new.id), tells=True),
        Statement(sql.TELL_COALESCED, (origin, *skipped, *coalesced), tells=True),
    ]


def _found(new: NewRun, rows: list[Rows]) -> TriggerResult[Any]:
    idempotent, waiting, inserted, *_ = rows
    if idempotent:
        return result_from_row(idempotent[0], "idempotent")
    if inserted:
        return run_from_new(new)
    if may_coalesce(new, waiting[0][0]):
        return result_from_row(waiting[0], "coalesced")
    raise pending_conflict(run_from_row(waiting[0]))


def _triggered(runs: Sequence[NewRun]) -> str:
    return encode_events([trigger_event(new, new.created_at) for new in runs])


def _labels(runs: Sequence[NewRun]) -> str:
    return json.dumps([[new.id, key, value] for new in runs for key, value in new.labels.items()])
