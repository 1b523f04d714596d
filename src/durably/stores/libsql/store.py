"""The libSQL store: a database that is reached by HTTP, from any number of machines."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, TypeVar

from durably.core.clock import Clock
from durably.core.errors import StoreError
from durably.core.event_codec import decode_row
from durably.core.events import DurablyEvent
from durably.core.leases import Claim
from durably.core.logs import Log
from durably.core.outcomes import Completed, Failed
from durably.core.runs import ProgressData, Run, RunStatus, TriggerResult
from durably.core.steps import Step
from durably.core.store import Claimed, Follower, LogPage, NewRun, Position, RunQuery, StepRecord
from durably.stores.libsql import schema
from durably.stores.libsql import statements as sql
from durably.stores.libsql.address import Address
from durably.stores.libsql.client import Client, Server
from durably.stores.libsql.enqueue import enqueue, enqueue_unkeyed
from durably.stores.libsql.event_log import EventLog
from durably.stores.libsql.fenced import FinishedRun, FinishedStep, finish_runs, record_steps, save_progress
from durably.stores.libsql.group_commit import GroupCommit
from durably.stores.libsql.hrana import Rows, Statement
from durably.stores.libsql.ranges import MOST_RANGES, list_statement
from durably.stores.libsql.renewer import LibsqlLeaseRenewer
from durably.stores.libsql.unit import Part, Unit
from durably.stores.libsql.writes import Writes, append_logs, trim_events
from durably.stores.sql import sqlite_queries as queries
from durably.stores.sql.rows import latest_progress, log_from_row, result_from_row, run_from_row, step_from_row
from durably.stores.sql.rules import EVENT_ROWS_KEPT, EVENTS_KEPT_FOR

T = TypeVar("T")

log = logging.getLogger("durably.libsql")

_ROWS_PER_TRIM: Final = 1_000
_ROWS_PER_PAGE: Final = 500
# In one transaction the steps of a run are stored before its end.
_STEPS: Final = 0
_ENDS: Final = 1
_TRIGGERS: Final = 2


class LibsqlStore:
    """Holds runs in one database behind a libSQL server. Made by `open_store`."""

    claims_see_writes_under_way = False

    def __init__(self, address: Address, clock: Clock) -> None:
        self.preserve_steps = False
        self._address = address
        self._clock = clock
        self._server = Server(address)
        self._client = Client(self._server)
        self._events = EventLog(address.poll_seconds)
        self._writes = Writes(self._events.origin)
        self._writer = GroupCommit(self._client, self._writes, self._events)
        self._events.attach(self._writer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        """Return the database as messages name it, without the token."""
        return self._address.name

    async def migrate(self) -> None:
        """Bring the schema up to date; idempotent, safe from many processes at once."""
        self._open()
        await schema.migrate(self._client)

    async def close(self) -> None:
        """Write what is still buffered and close every connection."""
        if self._is_closed:
            return
        self._open()
        self._is_closed = True
        self._events.stop_polling()
        try:
            await self._writer.close()
        except StoreError as error:
            # Every acknowledged write is stored; what is lost are announcements like a last log line's.
            log.warning("the last events could not be written: %s", error)
        finally:
            self._events.unfollow()
            await self._client.close()

    # --- runs ------------------------------------------------------------------------------------

    async def enqueue(self, runs: Sequence[NewRun]) -> list[TriggerResult[Any]]:
        """Store all `runs` or none, by the rules of idempotency and concurrency keys."""
        if not runs:
            return []
        if any(new.has_key for new in runs):
            return await self._write(enqueue(self._events.origin, runs))
        return await self._write(Part(runs, self._enqueue_unkeyed, _TRIGGERS))

    async def get_run(self, run_id: str) -> Run[Any] | None:
        """Return a run, or None."""
        rows = await self._read(queries.RUN_BY_ID, run_id)
        return run_from_row(rows[0]) if rows else None

    async def find_idempotent(self, job_name: str, idempotency_key: str) -> TriggerResult[Any] | None:
        """Return the run that a job's idempotency key stands for, or None."""
        rows = await self._read(queries.RUN_BY_IDEMPOTENCY_KEY, job_name, idempotency_key)
        return result_from_row(rows[0], "idempotent") if rows else None

    async def get_runs(self, query: RunQuery) -> list[Run[Any]]:
        """Return runs, newest first."""
        statement, parameters = list_statement(query)
        return [run_from_row(row) for row in await self._read(statement, *parameters)]

    async def which_ended(self, run_ids: Collection[str]) -> list[str]:
        """Return those of `run_ids` whose run has ended or is gone, in one read."""
        if not run_ids:
            return []
        return [row[0] for row in await self._read(queries.ENDED_AMONG, json.dumps(list(run_ids)))]

    async def get_steps(self, run_id: str) -> list[Step]:
        """Return the stored steps of a run by index."""
        return [step_from_row(row) for row in await self._read(queries.STEPS_OF_RUN, run_id)]

    async def get_logs(self, run_id: str) -> list[Log]:
        """Return the stored log lines of a run, oldest first."""
        return [log_from_row(row) for row in await self._read(queries.LOGS_OF_RUN, run_id)]

    async def cancel(self, run_id: str) -> None:
        """Cancel a pending or leased run."""
        await self._write(self._writes.cancel(run_id, preserve_steps=self.preserve_steps))

    async def delete_run(self, run_id: str) -> None:
        """Delete a terminal run with its steps, logs and labels."""
        await self._write(self._writes.delete_run(run_id))

    async def now(self) -> datetime:
        """Return the instant from which ages are counted: asking the server would be a second round trip."""
        return self._clock.now()

    async def purge_runs(self, ended_by: datetime, limit: int) -> int:
        """Delete up to `limit` terminal runs that ended then or before, oldest first; return how many."""
        return await self._write(self._writes.purge_runs(ended_by, limit))

    # --- execution -------------------------------------------------------------------------------

    async def claim(self, owner: str, job_names: Sequence[str], limit: int, lease_seconds: float) -> list[Claimed]:
        """Claim up to `limit` runs of these jobs, oldest first; expired leases count as pending."""
        claimed: list[Claimed] = []
        for start in range(0, len(job_names), MOST_RANGES):
            names = job_names[start : start + MOST_RANGES]
            left = limit - len(claimed)
            if left > 0:
                unit = self._writes.claim(owner, names, left, lease_seconds, preserve_steps=self.preserve_steps)
                try:
                    claimed = [*claimed, *await self._write(unit)]
                except StoreError:
                    if not claimed:
                        raise
                    # These are leased, and would wait for somebody to execute them until their leases end.
                    break
        return claimed

    def lease_renewer(self) -> LibsqlLeaseRenewer:
        """Return what renews leases; it is used and closed by one thread of the caller's."""
        return LibsqlLeaseRenewer(self._server)

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give runs that are still held back to pending."""
        if claims:
            await self._write(self._writes.release(claims, preserve_steps=self.preserve_steps))

    async def load_checkpoints(self, run_id: str) -> dict[str, str | None]:
        """Return the JSON text of every completed step of a run by name, in one read."""
        return {row[0]: row[1] for row in await self._read(queries.CHECKPOINTS_OF_RUN, run_id)}

    async def record_step(self, claim: Claim, step: StepRecord, progress_json: str | None, event: DurablyEvent) -> bool:
        """Fenced: store a finished step, and the latest progress where it is not stored yet."""
        finished = FinishedStep(claim, step, progress_json, event)
        if await self._write(Part(finished, self._record_steps, _STEPS)):
            return True
        # Refused, or done the first time, when the answer was lost on the way.
        return bool(await self._read(sql.STEP_IS_STORED, step.id))

    async def save_progress(self, claim: Claim, progress_json: str | None) -> bool:
        """Fenced: store the latest progress, after every write that was asked for before."""
        return await self._write(save_progress(claim, progress_json))

    async def finish(
        self, claim: Claim, outcome: Completed | Failed, progress_json: str | None, event: DurablyEvent
    ) -> bool:
        """Fenced: end the run, and delete its steps unless they are preserved."""
        finished = FinishedRun(claim, outcome, progress_json, event)
        if await self._write(Part(finished, self._finish_runs, _ENDS)):
            return True
        return bool(await self._read(sql.IS_FINISHED, claim.run_id, claim.generation, *finished.end))

    async def append_logs(self, logs: Sequence[Log], data_json: Sequence[str | None]) -> None:
        """Store log lines of runs that still exist."""
        if logs:
            await self._write(append_logs(logs, data_json))

    # --- upkeep ----------------------------------------------------------------------------------

    async def recover_expired(self) -> int:
        """Put runs whose lease has expired back to pending, or fail them; return how many were touched."""
        return await self._write(self._writes.recover_expired(preserve_steps=self.preserve_steps))

    async def maintain(self, *, idle: bool) -> None:
        """Clean the event log."""
        trim = trim_events(EVENTS_KEPT_FOR.total_seconds(), EVENT_ROWS_KEPT, _ROWS_PER_TRIM)
        while await self._write(trim) == _ROWS_PER_TRIM:
            await asyncio.sleep(0)

    # --- events ----------------------------------------------------------------------------------

    def announce(self, event: DurablyEvent) -> None:
        """Add an event to the log soon, after those announced before it; never blocks."""
        if not self._is_closed:
            self._open()
            self._events.announce(event)

    @property
    def is_behind(self) -> bool:
        """Tell whether the follower is still to be given what this process has committed."""
        return self._events.is_behind

    async def follow(self, follower: Follower) -> Position:
        """Give a follower every event after the returned position, once it is in the log, in its order."""

        def begin(rows: list[Rows]) -> int:
            # Here, and not later: no other transaction of this process may come between.
            newest: int = rows[0][0][0]
            self._events.follow(follower, newest)
            return newest

        return Position.behind(await self._write(Unit([Statement(queries.LAST_EVENT_ROW)], begin)))

    def unfollow(self) -> None:
        """Tell the follower no more."""
        self._events.unfollow()

    async def events_after(self, position: Position, limit: int) -> LogPage:
        """Return up to `limit` events after `position`, oldest first."""
        rows = await self._read(sql.FIRST_ROW_AND_EVENTS_AFTER, position.row - 1, min(limit, _ROWS_PER_PAGE))
        events = [
            recorded
            for _, row, text in rows
            if row is not None
            for recorded in decode_row(row, text, "elsewhere")
            if recorded.position > position
        ]
        return LogPage(events, is_gapless=rows[0][0] <= position.row + 1)

    async def snapshot(self, run_id: str) -> tuple[Run[Any] | None, Position]:
        """Return a run, its latest progress included, and the position up to which that is the truth."""
        ((row, *columns),) = await self._read(sql.RUN_AND_LAST_EVENT_ROW, run_id)
        if columns[0] is None:
            return None, Position.behind(row)
        run = run_from_row(columns)
        if run.status is RunStatus.LEASED and (progress := await self._latest_progress(run_id, row)):
            run = replace(run, progress=progress)
        return run, Position.behind(row)

    # --- asking ------------------------------------------------------------------------------------

    async def _latest_progress(self, run_id: str, row: int) -> ProgressData | None:
        recent = await self._read(queries.RECENT_EVENTS_OF_RUN, row, run_id)
        return latest_progress((text for _, text in recent), run_id)

    def _enqueue_unkeyed(self, orders: Sequence[Sequence[NewRun]]) -> Unit[list[list[TriggerResult[Any]]]]:
        return enqueue_unkeyed(self._events.origin, orders)

    def _record_steps(self, finished: Sequence[FinishedStep]) -> Unit[list[bool]]:
        return record_steps(self._events.origin, finished)

    def _finish_runs(self, finished: Sequence[FinishedRun]) -> Unit[list[bool]]:
        return finish_runs(self._events.origin, finished, preserve_steps=self.preserve_steps)

    async def _write(self, unit: Unit[T] | Part[T]) -> T:
        self._open()
        return await self._writer.run(unit)

    async def _read(self, statement: str, *arguments: Any) -> Rows:
        self._open()
        return await self._client.query(Statement(statement, arguments))

    def _open(self) -> None:
        if self._is_closed:
            raise StoreError(f"{self.name} was closed: make a new instance to use it again")
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop is not None:
            if not self._loop.is_closed():
                raise StoreError(
                    f"{self.name} is in use on another event loop: an instance belongs to one loop, make one for each"
                )
            self._writer.forget_loop()
            self._events.unfollow()
        self._loop = loop
