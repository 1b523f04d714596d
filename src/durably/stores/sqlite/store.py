"""The SQLite store: any number of processes on one machine share a file."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from durably.core.clock import Clock
from durably.core.errors import StoreError
from durably.core.events import DurablyEvent
from durably.core.leases import Claim
from durably.core.logs import Log
from durably.core.outcomes import Completed, Failed
from durably.core.runs import Run, RunStatus, TriggerResult
from durably.core.steps import Step
from durably.core.store import Claimed, Follower, LogPage, NewRun, Position, RunQuery, StepRecord
from durably.stores.sql.rules import EVENT_ROWS_KEPT, EVENTS_KEPT_FOR
from durably.stores.sqlite import reads, writes
from durably.stores.sqlite.connections import Connections
from durably.stores.sqlite.database import Database
from durably.stores.sqlite.event_log import EventLog
from durably.stores.sqlite.group_commit import GroupCommit
from durably.stores.sqlite.renewer import SqliteLeaseRenewer
from durably.stores.sqlite.unit import Unit

T = TypeVar("T")

log = logging.getLogger("durably.sqlite")

_ROWS_PER_TRIM: Final = 2_000


class SqliteStore:
    """Holds runs in one SQLite database. Made by `open_store`."""

    claims_see_writes_under_way = True
    """They share a transaction, and its units run in the order in which they came."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.preserve_steps = False
        self._database = database
        self._clock = clock
        self.connections: Final = Connections(database, clock)
        self._events = EventLog()
        self._writer: GroupCommit | None = None
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def name(self) -> str:
        """Return the database as messages name it."""
        return self._database.name

    async def migrate(self) -> None:
        """Bring the schema up to date; idempotent, safe from many processes at once."""
        if self.connections.is_single:
            self._open()
        await self.connections.migrate()

    async def close(self) -> None:
        """Write what is still buffered and close every connection."""
        if self._is_closed:
            return
        if self._writer is not None and self._loop is not None and self._loop.is_closed():
            # What the writer began on that loop never ends there, and would be waited for.
            self._open()
        self._is_closed = True
        self.connections.refuse()
        try:
            if self._writer is not None:
                self._writer.hurry()
                await self._writer.submit(lambda _: None)
        except StoreError as error:
            # Every acknowledged write is stored; what is lost are announcements like a last log line's.
            log.warning("the last events could not be written: %s", error)
        finally:
            try:
                # First, for they give their connections back.
                await self.connections.end_reads()
            finally:
                if self._writer is not None:
                    self._events.unfollow()
                    self._writer.close()
                    self._writer = None
                self.connections.close()

    # --- runs ------------------------------------------------------------------------------------

    async def enqueue(self, runs: Sequence[NewRun]) -> list[TriggerResult[Any]]:
        """Store all `runs` or none, by the rules of idempotency and concurrency keys."""
        return await self._write(lambda transaction: writes.enqueue(transaction, runs))

    async def get_run(self, run_id: str) -> Run[Any] | None:
        """Return a run, or None."""
        return self._read_here(lambda connection: reads.run_by_id(connection, run_id))

    async def find_idempotent(self, job_name: str, idempotency_key: str) -> TriggerResult[Any] | None:
        """Return the run that a job's idempotency key stands for, or None."""
        return self._read_here(lambda connection: reads.idempotent(connection, job_name, idempotency_key))

    async def get_runs(self, query: RunQuery) -> list[Run[Any]]:
        """Return runs, newest first."""
        return await self._read(lambda connection: reads.runs(connection, query))

    async def which_ended(self, run_ids: Collection[str]) -> list[str]:
        """Return those of `run_ids` whose run has ended or is gone, in one read."""
        return self._read_here(lambda connection: reads.which_ended(connection, run_ids))

    async def get_steps(self, run_id: str) -> list[Step]:
        """Return the stored steps of a run by index."""
        return await self._read(lambda connection: reads.steps(connection, run_id))

    async def get_logs(self, run_id: str) -> list[Log]:
        """Return the stored log lines of a run, oldest first."""
        return await self._read(lambda connection: reads.logs(connection, run_id))

    async def cancel(self, run_id: str) -> None:
        """Cancel a pending or leased run."""
        await self._write(partial(writes.cancel, run_id=run_id, preserve_steps=self.preserve_steps))

    async def delete_run(self, run_id: str) -> None:
        """Delete a terminal run with its steps, logs and labels."""
        await self._write(partial(writes.delete_run, run_id=run_id), may_take_long=True)

    async def now(self) -> datetime:
        """Return the instant at which a run would be said to have ended now."""
        return self._clock.now()

    async def purge_runs(self, ended_by: datetime, limit: int) -> int:
        """Delete up to `limit` terminal runs that ended then or before, oldest first; return how many."""
        return await self._write(partial(writes.purge_runs, ended_by=ended_by, limit=limit), may_take_long=True)

    # --- execution -------------------------------------------------------------------------------

    def claim(
        self, owner: str, job_names: Sequence[str], limit: int, lease_seconds: float
    ) -> asyncio.Future[list[Claimed]]:
        """Claim up to `limit` runs of these jobs, oldest first; expired leases count as pending."""
        unit = partial(
            writes.claim,
            owner=owner,
            job_names=job_names,
            limit=limit,
            lease_seconds=lease_seconds,
            preserve_steps=self.preserve_steps,
        )
        return self._open().submit(unit).as_future()

    def lease_renewer(self) -> SqliteLeaseRenewer:
        """Return what renews leases; it is used and closed by one thread of the caller's."""
        # Called in the thread that renews, while leases are held: the connection is open.
        shared = self.connections if self.connections.is_single else None
        return SqliteLeaseRenewer(self._database, self._clock, shared)

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give runs that are still held back to pending."""
        await self._write(partial(writes.release, claims=claims, preserve_steps=self.preserve_steps))

    async def load_checkpoints(self, run_id: str) -> dict[str, str | None]:
        """Return the JSON text of every completed step of a run by name, in one read."""
        return await self._read(lambda connection: reads.checkpoints(connection, run_id))

    def record_step(
        self, claim: Claim, step: StepRecord, progress_json: str | None, event: DurablyEvent
    ) -> Awaitable[bool]:
        """Fenced: store a finished step, and the latest progress where it is not stored yet."""
        return self._write(lambda transaction: writes.record_step(transaction, claim, step, progress_json, event))

    async def save_progress(self, claim: Claim, progress_json: str | None) -> bool:
        """Fenced: store the latest progress, after every write that was asked for before."""
        return await self._write(lambda transaction: writes.save_progress(transaction, claim, progress_json))

    async def finish(
        self, claim: Claim, outcome: Completed | Failed, progress_json: str | None, event: DurablyEvent
    ) -> bool:
        """Fenced: end the run, and delete its steps unless they are preserved."""
        return await self._write(
            lambda transaction: writes.finish(
                transaction, claim, outcome, progress_json, event, preserve_steps=self.preserve_steps
            )
        )

    async def append_logs(self, logs: Sequence[Log], data_json: Sequence[str | None]) -> None:
        """Store log lines of runs that still exist."""
        await self._write(lambda transaction: writes.append_logs(transaction, logs, data_json), may_take_long=True)

    # --- upkeep ----------------------------------------------------------------------------------

    async def recover_expired(self) -> int:
        """Put runs whose lease has expired back to pending, or fail them; return how many were touched."""
        return await self._write(partial(writes.recover_expired, preserve_steps=self.preserve_steps))

    async def maintain(self, *, idle: bool) -> None:
        """Clean the event log; when idle also give the write-ahead log's space back."""
        older_than = self._clock.now() - EVENTS_KEPT_FOR
        trim = partial(writes.trim_events, older_than=older_than, keep_rows=EVENT_ROWS_KEPT, limit=_ROWS_PER_TRIM)
        while await self._write(trim, may_take_long=True) == _ROWS_PER_TRIM:
            await asyncio.sleep(0)
        if idle:
            await self.connections.truncate_log()

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
        watch = not self.connections.is_single
        newest = self._read_here(lambda _: self._events.follow(follower, watch=watch))
        return Position.behind(newest)

    def unfollow(self) -> None:
        """Tell the follower no more."""
        self._events.unfollow()

    async def events_after(self, position: Position, limit: int) -> LogPage:
        """Return up to `limit` events after `position`, oldest first."""
        return self._read_here(lambda _: self._events.after(position, limit))

    async def snapshot(self, run_id: str) -> tuple[Run[Any] | None, Position]:
        """Return a run, its latest progress included, and the position up to which that is the truth."""
        run, row = self._read_here(lambda connection: reads.snapshot(connection, run_id))
        if run is not None and run.status is RunStatus.LEASED:
            progress = await self._read(lambda connection: reads.recent_progress(connection, run_id, row))
            run = run if progress is None else replace(run, progress=progress)
        return run, Position.behind(row)

    # --- reading and writing -----------------------------------------------------------------------

    def _open(self) -> GroupCommit:
        self.connections.refuse_when_closed()
        loop, writer = asyncio.get_running_loop(), self._writer
        if writer is None:
            self._loop = loop
            self.connections.open()
            writer = self._writer = GroupCommit(
                self._database,
                self.connections,
                self._clock,
                write_events=self._events.write,
                committed=self._events.committed,
            )
            self._events.attach(writer, self.connections)
        elif loop is not self._loop:
            self._move_to(loop, writer)
        return writer

    def _move_to(self, loop: asyncio.AbstractEventLoop, writer: GroupCommit) -> None:
        self._database.files.refuse_after_fork()
        if self._loop is not None and not self._loop.is_closed():
            raise StoreError(
                f"{self.name} is in use on another event loop: an instance belongs to one loop, make one for each"
            )
        self._loop = loop
        writer.forget_loop()
        self._events.unfollow()

    def _write(self, unit: Unit[T], *, may_take_long: bool = False) -> Awaitable[T]:
        return self._open().submit(unit, may_take_long=may_take_long)

    def _read_here(self, read: Callable[[sqlite3.Connection], T]) -> T:
        self._open()
        return self.connections.read_here(read)

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        self._open()
        return await self.connections.read(read)
