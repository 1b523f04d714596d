"""What is written, each a unit of statements and what their rows mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from durably.core.clock import from_text, to_text
from durably.core.errors import NotFoundError
from durably.core.event_codec import encode_events
from durably.core.events import DurablyEvent
from durably.core.leases import Claim
from durably.core.logs import Log
from durably.core.runs import Run
from durably.core.store import Claimed
from durably.stores.libsql import statements as sql
from durably.stores.libsql.hrana import Rows, Statement
from durably.stores.libsql.ranges import oldest_waiting
from durably.stores.libsql.unit import Unit
from durably.stores.sql import sqlite_queries as queries
from durably.stores.sql.rows import row_of_log, run_from_row
from durably.stores.sql.rules import EXPIRED_AND_REPLACED, RELEASED_AND_REPLACED, cancel_conflict, delete_conflict


class Writes:
    """Makes the units of one process, whose events carry its `origin`."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def tell(self, events: Sequence[DurablyEvent]) -> Statement:
        """Return the statement that logs events which belong to no other write."""
        return Statement(sql.INSERT_EVENTS, (self._origin, encode_events(events)), tells=True)

    # --- claiming and giving back ------------------------------------------------------------------

    def claim(
        self, owner: str, job_names: Sequence[str], limit: int, lease_seconds: float, *, preserve_steps: bool
    ) -> Unit[list[Claimed]]:
        """Lease the oldest claimable runs, after returning to the queue what others have lost."""
        waiting, parameters = oldest_waiting(job_names, limit)
        statements = [
            Statement(sql.MARK_EXPIRED),
            *self._give_back_marked(EXPIRED_AND_REPLACED, preserve_steps=preserve_steps),
            Statement(sql.CLAIM.format(waiting=waiting), (sql.later(lease_seconds), *parameters, limit)),
            Statement(sql.TELL_LEASED, (self._origin, owner), tells=True),
            Statement(sql.NAME_OWNER, (owner,)),
        ]

        def result(rows: list[Rows]) -> list[Claimed]:
            claimed = sorted(rows[-3], key=lambda row: (row[17], row[0]))
            return [_claimed(row, owner) for row in claimed]

        return Unit(statements, result)

    def recover_expired(self, *, preserve_steps: bool) -> Unit[int]:
        """Put runs with an expired lease back to pending, or fail them where their place is taken."""
        give_back = self._give_back_marked(EXPIRED_AND_REPLACED, preserve_steps=preserve_steps)
        return Unit([Statement(sql.MARK_EXPIRED), *give_back], lambda rows: len(rows[0]))

    def release(self, claims: Sequence[Claim], *, preserve_steps: bool) -> Unit[None]:
        """Give back runs that are still held; one whose place in the queue is taken fails."""
        marks = [Statement(sql.MARK_RELEASED, (claim.run_id, claim.generation)) for claim in claims]
        give_back = self._give_back_marked(RELEASED_AND_REPLACED, preserve_steps=preserve_steps)
        return Unit([*marks, *give_back], _nothing)

    def _give_back_marked(self, error: str, *, preserve_steps: bool) -> list[Statement]:
        return [
            Statement(sql.TELL_REPLACED, (self._origin, error), tells=True),
            *([] if preserve_steps else [Statement(sql.DELETE_STEPS_OF_REPLACED)]),
            Statement(sql.FAIL_REPLACED, (error,)),
            Statement(sql.RETURN_TO_PENDING),
        ]

    # --- from outside ------------------------------------------------------------------------------

    def cancel(self, run_id: str, *, preserve_steps: bool) -> Unit[None]:
        """End a pending or leased run from outside."""
        statements = [
            Statement(queries.RUN_BY_ID, (run_id,)),
            Statement(sql.TELL_CANCELLED, (self._origin, run_id), tells=True),
            *([] if preserve_steps else [Statement(sql.DELETE_STEPS_OF_ACTIVE, (run_id, run_id))]),
            Statement(sql.CANCEL_RUN, (run_id,)),
        ]

        def result(rows: list[Rows]) -> None:
            found = _must_find(rows[0], run_id)
            if not rows[-1]:
                raise cancel_conflict(found)

        return Unit(statements, result)

    def delete_run(self, run_id: str) -> Unit[None]:
        """Delete a terminal run and all that belongs to it."""
        statements = [
            Statement(queries.RUN_BY_ID, (run_id,)),
            Statement(sql.TELL_DELETED, (self._origin, run_id), tells=True),
            *(Statement(delete, (run_id, run_id)) for delete in sql.DELETE_PARTS_OF_ENDED),
            Statement(sql.DELETE_ENDED, (run_id,)),
        ]

        def result(rows: list[Rows]) -> None:
            found = _must_find(rows[0], run_id)
            if not rows[-1]:
                raise delete_conflict(found)

        return Unit(statements, result)

    def purge_runs(self, ended_by: datetime, limit: int) -> Unit[int]:
        """Delete the terminal runs that ended first."""
        which = (to_text(ended_by), limit)
        statements = [
            Statement(sql.TELL_PURGED, (self._origin, *which), tells=True),
            *(Statement(delete, which) for delete in sql.DELETE_PARTS_OF_PURGED),
            Statement(sql.DELETE_PURGED, which),
        ]
        return Unit(statements, lambda rows: len(rows[-1]))


def append_logs(logs: Sequence[Log], data_json: Sequence[str | None]) -> Unit[None]:
    """Store log lines of runs that still exist."""
    lines = list(map(row_of_log, logs, data_json))
    return Unit([Statement(sql.INSERT_LOGS, (json.dumps(lines),))], _nothing)


def trim_events(keep_seconds: float, keep_rows: int, limit: int) -> Unit[int]:
    """Drop old rows of the event log; return how many."""
    arguments = (limit, f"-{keep_seconds:.3f} seconds", keep_rows)
    return Unit([Statement(sql.TRIM_EVENTS, arguments)], lambda rows: len(rows[0]))


def _nothing(_: list[Rows]) -> None:
    """Return the result of a write that has none."""


def _claimed(row: tuple[Any, ...], owner: str) -> Claimed:
    run = run_from_row((*row[:12], owner, *row[13:]))
    return Claimed(Claim(run.id, run.lease_generation, owner, from_text(row[13])), run)


def _must_find(rows: Rows, run_id: str) -> Run[Any]:
    if not rows:
        raise NotFoundError("run", run_id)
    return run_from_row(rows[0])
