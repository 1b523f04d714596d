"""The one port to a database, in domain words.

Every method is atomic: it happens wholly or not at all, and has happened durably when it returns. A write
that takes a `Claim` is fenced: it holds only while the run is leased under that claim's generation, and
answers whether it held. Events that a method records are stored in the same transaction as what they tell
of, and reach who follows the log after it. What writes raises `ValueRefusedError` when the database can never
take what it was given; nobody else's write suffers by it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Protocol, runtime_checkable

from durably.core.events import DurablyEvent
from durably.core.leases import Claim
from durably.core.logs import Log
from durably.core.outcomes import Completed, Failed
from durably.core.runs import Run, RunStatus, TriggerResult
from durably.core.steps import Step

LARGEST_COUNT: Final = 2**61
"""Where the integers of databases end, with room for a sum of two; no list is longer."""

# What is made for every step or run is a NamedTuple: a frozen dataclass takes four times as long to make.


class NewRun(NamedTuple):
    """A run that is about to be stored."""

    id: str
    job_name: str
    input_json: str
    labels: dict[str, str]
    idempotency_key: str | None
    concurrency_key: str | None
    coalesce: bool
    created_at: datetime
    only_into: str | None = None
    """The one run that it may be coalesced into; any other that waits under its key is a conflict."""

    @property
    def has_key(self) -> bool:
        """Tell whether another run may stand for this one."""
        return self.idempotency_key is not None or self.concurrency_key is not None


class Claimed(NamedTuple):
    """A run that was claimed, and the lease on it."""

    claim: Claim
    run: Run[Any]


@dataclass(slots=True)
class StepRecord:
    """A step that ended: `output_json` when it completed, `error` when it failed."""

    id: str
    name: str
    index: int
    output_json: str | None
    error: str | None
    started_at: datetime
    completed_at: datetime


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list, newest first; an empty tuple does not filter."""

    statuses: tuple[RunStatus, ...] = ()
    job_names: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    limit: int | None = None
    offset: int = 0


class Position(NamedTuple):
    """Where an event stands in the log of one database: a row, and the place in it."""

    row: int
    place: int = 0

    @staticmethod
    def behind(row: int) -> Position:
        """Return the position up to which everything of a row was told."""
        return Position(row, sys.maxsize)


Source = Literal["announced", "committed", "elsewhere"]
"""Whence an event reached the log: announced here before its commit, made here by it, or by another process."""


class Recorded(NamedTuple):
    """An event of the log and where it stands there."""

    position: Position
    event: DurablyEvent
    source: Source


def recorded_here(row: int, announced: Sequence[DurablyEvent], committed: Sequence[DurablyEvent]) -> list[Recorded]:
    """Return the events of a row that this process wrote: first those announced before its commit."""
    # Two events per step: made as the named tuples make themselves, without a call of Python in between.
    new, recorded = tuple.__new__, []
    for place, event in enumerate(announced):
        recorded.append(new(Recorded, (new(Position, (row, place)), event, "announced")))
    for place, event in enumerate(committed, len(announced)):
        recorded.append(new(Recorded, (new(Position, (row, place)), event, "committed")))
    return recorded


@dataclass(frozen=True, slots=True)
class LogPage:
    """Events that follow a position. `is_gapless` is False when older ones were cleaned away already."""

    events: list[Recorded]
    is_gapless: bool


class Follower(Protocol):
    """Who follows the log of events; a store tells it on the event loop what is in there."""

    @property
    def is_listening(self) -> bool:
        """Tell whether all events of other processes are wanted, and not only those of `WAKING_EVENTS`."""
        ...

    def take(self, batch: Sequence[Recorded]) -> None:
        """Take what comes next in the log."""
        ...

    def missed(self) -> None:
        """Hear that events will not come, as they were cleaned away before they were read; told before what follows."""
        ...

    def others_wrote(self) -> None:
        """Hear that another process may have written something, events or not."""
        ...


class LeaseRenewer(Protocol):
    """Renews leases from a thread of its own, on a connection of its own. Its methods block."""

    def renew(self, claims: Sequence[Claim], lease_seconds: float) -> dict[str, Claim]:
        """Prolong what is still held and not expired; return the renewed claims by run id.

        One of which nobody knows, because its row was held up, is returned as it was.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


@runtime_checkable
class Store(Protocol):
    """A database that holds runs. Made by `open_store`; methods are called from one event loop at a time.

    On another one they raise `StoreError` until the first is closed. It serves one instance at a time, which takes
    its events and closes it.
    """

    preserve_steps: bool
    """Whether the steps of runs that end are kept; set before the first use."""
    claims_see_writes_under_way: bool
    """Whether a claim sees what writes that began before it in the same turn of the event loop will have done."""

    @property
    def name(self) -> str:
        """Return the database as messages name it, without secrets."""
        ...

    async def migrate(self) -> None:
        """Bring the schema up to date; idempotent, safe from many processes at once.

        Raises `SchemaTooNewError`, or `StoreError` saying what is wrong with the database.
        """
        ...

    async def close(self) -> None:
        """Write what is still buffered and close every connection. The store cannot be used again."""
        ...

    # --- runs ------------------------------------------------------------------------------------

    async def enqueue(self, runs: Sequence[NewRun]) -> list[TriggerResult[Any]]:
        """Store all `runs` or none, by the rules of idempotency and concurrency keys.

        Returns the run that now stands for each, in their order.

        Raises `ConflictError` when a pending run holds the concurrency key of one that does not coalesce.
        """
        ...

    async def get_run(self, run_id: str) -> Run[Any] | None:
        """Return a run, or None."""
        ...

    async def find_idempotent(self, job_name: str, idempotency_key: str) -> TriggerResult[Any] | None:
        """Return the run that a job's idempotency key stands for, or None."""
        ...

    async def get_runs(self, query: RunQuery) -> list[Run[Any]]:
        """Return runs, newest first."""
        ...

    async def get_steps(self, run_id: str) -> list[Step]:
        """Return the stored steps of a run by index."""
        ...

    async def get_logs(self, run_id: str) -> list[Log]:
        """Return the stored log lines of a run, oldest first."""
        ...

    async def which_ended(self, run_ids: Collection[str]) -> list[str]:
        """Return those of `run_ids` whose run has ended or is gone, in one read."""
        ...

    async def cancel(self, run_id: str) -> None:
        """Cancel a pending or leased run. Raises `NotFoundError`, or `ConflictError` when it has ended."""
        ...

    async def delete_run(self, run_id: str) -> None:
        """Delete a terminal run with its steps, logs and labels. Raises `NotFoundError`, `ConflictError`."""
        ...

    async def now(self) -> datetime:
        """Return the instant from which the ages of runs are counted: now, by the clock that says when they ended."""
        ...

    async def purge_runs(self, ended_by: datetime, limit: int) -> int:
        """Delete up to `limit` terminal runs that ended then or before, oldest first; return how many."""
        ...

    # --- execution -------------------------------------------------------------------------------

    def claim(self, owner: str, job_names: Sequence[str], limit: int, lease_seconds: float) -> Awaitable[list[Claimed]]:
        """Claim up to `limit` runs of these jobs, oldest first; expired leases count as pending."""
        ...

    def lease_renewer(self) -> LeaseRenewer:
        """Return what renews leases; it is used and closed by one thread of the caller's."""
        ...

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give runs that are still held back to pending."""
        ...

    async def load_checkpoints(self, run_id: str) -> dict[str, str | None]:
        """Return the JSON text of every completed step of a run by name, in one read."""
        ...

    def record_step(
        self, claim: Claim, step: StepRecord, progress_json: str | None, event: DurablyEvent
    ) -> Awaitable[bool]:
        """Fenced: store a finished step, and the latest progress where it is not stored yet.

        Every step awaits this; a store may hand out the future that it has, without a coroutine around it.
        """
        ...

    async def save_progress(self, claim: Claim, progress_json: str | None) -> bool:
        """Fenced: store the latest progress, if there is any, after every write that was asked for before."""
        ...

    async def finish(
        self,
        claim: Claim,
        outcome: Completed | Failed,
        progress_json: str | None,
        event: DurablyEvent,
    ) -> bool:
        """Fenced: end the run, and delete its steps unless they are preserved."""
        ...

    async def append_logs(self, logs: Sequence[Log], data_json: Sequence[str | None]) -> None:
        """Store log lines of runs that still exist."""
        ...

    # --- upkeep ----------------------------------------------------------------------------------

    async def recover_expired(self) -> int:
        """Put runs whose lease has expired back to pending, or fail them; return how many were touched."""
        ...

    async def maintain(self, *, idle: bool) -> None:
        """Clean the event log; when idle also whatever else the database wants done now and then."""
        ...

    # --- events ----------------------------------------------------------------------------------

    def announce(self, event: DurablyEvent) -> None:
        """Add an event to the log soon, after those announced before it; never blocks.

        Raises `StoreError` on another event loop while the first is open, and in a forked process.
        """
        ...

    @property
    def is_behind(self) -> bool:
        """Tell whether the follower is still to be given what this process has committed."""
        ...

    async def follow(self, follower: Follower) -> Position:
        """Give the one follower every event after the returned position, once it is in the log, in its order."""
        ...

    def unfollow(self) -> None:
        """Tell the follower no more, after a last time with what has been committed here and waited for others."""
        ...

    async def events_after(self, position: Position, limit: int) -> LogPage:
        """Return up to `limit` events after `position`, oldest first."""
        ...

    async def snapshot(self, run_id: str) -> tuple[Run[Any] | None, Position]:
        """Return a run, its latest progress included, and the position up to which that is the truth."""
        ...
