"""D3: who writes at the same moment shares one commit; a unit that fails is undone alone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import (
    BatchItem,
    ConflictError,
    Durably,
    NotFoundError,
    Run,
    StepContext,
    StoreUnavailableError,
    WorkerErrorEvent,
    create_durably,
    define_job,
    with_log_persistence,
)
from durably.core.store import Position
from durably.stores.sqlite import pacing
from durably.stores.sqlite.pacing import CommitPace
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably, until

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    step.log.info("line")
    return await step.run("one", lambda: input)


OPTIONS = ["", "?synchronous=normal", "?commit=in-place", "?commit=thread", "?synchronous=full&commit=auto"]


LONG: dict[str, tuple[str, Callable[[Durably, str], Awaitable[Any]]]] = {
    "delete": ("DELETE FROM durably_logs", lambda durably, run_id: durably.delete_run(run_id)),
    "purge": ("DELETE FROM durably_logs", lambda durably, _: durably.purge_runs(older_than=timedelta(0))),
    "store logs": ("INSERT INTO durably_logs", lambda durably, run_id: durably.get_logs(run_id)),
    "clean the log of events": ("DELETE FROM durably_events", lambda durably, _: durably.storage.maintain(idle=False)),
}
"""What each is known by in SQL, and how it is asked for."""


def length_of_log(database: str) -> int:
    """Return how many bytes the write-ahead log of a database has."""
    return Path(f"{database.removeprefix('sqlite:///')}-wal").stat().st_size


class TestOptions:
    @pytest.mark.parametrize("options", OPTIONS)
    async def test_every_option_stores_and_executes(self, database: str, options: str) -> None:
        """D3: where and how commits happen changes nothing else."""
        async with create_durably(database=database + options, jobs={"job": job}) as durably:
            runs = await asyncio.gather(*[durably.jobs.job.trigger(n) for n in range(20)])
            for run in runs:
                await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)
            assert {run.status for run in await durably.get_runs()} == {"completed"}

    @pytest.mark.parametrize(("options", "synchronous"), [("", 2), ("?synchronous=normal", 1)])
    async def test_synchronous_is_what_was_asked_for(self, database: str, options: str, synchronous: int) -> None:
        """D3: FULL by default; the file is in WAL mode."""
        async with create_durably(database=database + options, jobs={"job": job}) as durably:
            connection = durably.storage.connections.writing  # type: ignore[attr-defined]
            assert connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    @pytest.mark.parametrize(("option", "in_loop"), [("in-place", True), ("thread", False)])
    async def test_commits_happen_where_they_were_asked_to(self, database: str, option: str, *, in_loop: bool) -> None:
        """D3: on the loop, or in a thread of their own."""
        committed: set[int] = set()

        def note(statement: str) -> None:
            if statement.startswith("COMMIT"):
                committed.add(threading.get_ident())

        async with create_durably(database=f"{database}?commit={option}", jobs={"job": job}) as durably:
            await durably.jobs.job.trigger(1)
            durably.storage.connections.writing.set_trace_callback(note)  # type: ignore[attr-defined]
            await durably.jobs.job.trigger_and_wait(2, timeout=PATIENCE_SECONDS)

        assert (threading.get_ident() in committed) is in_loop
        assert len(committed) == 1

    @pytest.mark.parametrize("option", ["in-place", "thread"])
    async def test_events_that_could_not_be_stored_are_tried_again_now_and_then(
        self, database: str, monkeypatch: pytest.MonkeyPatch, option: str
    ) -> None:
        """E4: nothing else need be written for it; and a disk that is full does not keep a processor busy."""
        monkeypatch.setattr("durably.stores.sqlite.group_commit._RETRY_SECONDS", 0.2)
        durably = create_durably(database=f"{database}?commit={option}", jobs={"job": job})
        await durably.migrate()
        run = await durably.jobs.job.trigger(1)
        files, tried, is_full = durably.storage._database.files, [], True  # type: ignore[attr-defined]

        def check() -> None:
            tried.append(None)
            if is_full:
                raise StoreUnavailableError("the disk is full")

        monkeypatch.setattr(files, "check", check)
        durably.storage.announce(WorkerErrorEvent(timestamp=NOW, error="boom", context="worker", run_id=run.id))
        await asyncio.sleep(0.5)
        assert 1 <= len(tried) <= 5
        is_full = False

        async def is_stored() -> bool:
            page = await durably.storage.events_after(Position(0), 10)
            return any(recorded.event.type == "worker:error" for recorded in page.events)

        await until(is_stored)
        await durably.close()

    @pytest.mark.parametrize("verb", LONG)
    async def test_what_may_take_long_is_kept_off_the_event_loop(self, database: str, verb: str) -> None:
        """D3: however fast the disk is."""
        part, call = LONG[verb]
        threads: set[int] = set()

        def note(statement: str) -> None:
            if part in statement:
                threads.add(threading.get_ident())

        durably = create_durably(database=f"{database}?synchronous=normal", jobs={"job": job})
        durably.use(with_log_persistence())
        await durably.migrate()
        run = await durably.jobs.job.trigger(1)
        durably.storage.connections.writing.set_trace_callback(note)  # type: ignore[attr-defined]
        await durably.process_one()
        await call(durably, run.id)
        await durably.close()

        assert threads
        assert threading.get_ident() not in threads

    def test_a_slow_disk_moves_commits_to_a_thread_and_a_fast_one_back(self) -> None:
        """D3: measured, with two thresholds so that it does not change at every commit."""
        pace = CommitPace("auto")
        assert pace.is_affordable_in_place()
        for _ in range(50):
            pace.saw(0.01)
        assert not pace.is_affordable_in_place()
        for _ in range(100):
            pace.saw(0.0015)
        assert not pace.is_affordable_in_place()
        for _ in range(100):
            pace.saw(0.0001)
        assert pace.is_affordable_in_place()

    @pytest.mark.parametrize(("limit", "in_loop"), [(3600.0, True), (0.0, False)], ids=["quick", "slow"])
    async def test_the_write_ahead_log_is_moved_where_it_holds_up_least(
        self, database: str, monkeypatch: pytest.MonkeyPatch, limit: float, *, in_loop: bool
    ) -> None:
        """D3: the first time off the event loop, then on it where that was quick. The log stays short in any case."""
        monkeypatch.setattr(pacing, "_QUICK_CHECKPOINT_SECONDS", limit)
        threads: set[int] = set()

        def note(statement: str) -> None:
            if "wal_checkpoint" in statement:
                threads.add(threading.get_ident())

        durably = create_durably(database=f"{database}?commit=in-place", jobs={"job": job})
        await durably.migrate()
        durably.storage.connections.writing.set_trace_callback(note)  # type: ignore[attr-defined]
        for n in range(1000):
            await durably.jobs.job.trigger(n)

        assert length_of_log(database) < 4 * 1000 * 4096
        await durably.close()
        assert (threading.get_ident() in threads) is in_loop
        assert len(threads) == 1 + in_loop

    async def test_the_write_ahead_log_stays_short_whatever_is_stored(self, database: str) -> None:
        """D3: large inputs count for what they are."""
        async with create_durably(database=f"{database}?commit=in-place", jobs={"job": job}) as durably:
            await durably.stop()
            for _ in range(60):
                await durably.jobs.job.trigger("x" * 500_000)

            assert length_of_log(database) < 16_000_000

    def test_a_path_object_is_a_database(self, tmp_path: Path) -> None:
        """`database` takes a `Path`; the name shows in messages."""
        durably = create_durably(database=tmp_path / "a b?.db")

        assert durably.storage.name == f"database {tmp_path / 'a b?.db'}"


TRIGGERS = "INSERT INTO durably_runs"
CLAIMS = "SET status = 'leased'"
ENDS = "SET status = 'completed'"


class Transactions:
    """What one instance writes from now on, statement by statement, a list for each transaction."""

    def __init__(self, durably: Durably) -> None:
        self._seen: list[list[str]] = [[]]
        durably.storage.connections.writing.set_trace_callback(self._take)  # type: ignore[attr-defined]

    def _take(self, statement: str) -> None:
        self._seen[-1].append(statement)
        if statement == "COMMIT":
            self._seen.append([])

    def with_all(self, *parts: str) -> int:
        """Return how many transactions have a statement with each of these parts."""
        return sum(all(_count(part, each) for part in parts) for each in self._seen)

    def count(self, part: str, *, beside: str = "COMMIT") -> int:
        """Return how many statements have this part, in transactions that have the other one as well."""
        return sum(_count(part, each) for each in self._seen if _count(beside, each))


def _count(part: str, statements: list[str]) -> int:
    return sum(part in statement for statement in statements)


async def until_nothing_moves() -> None:
    """Let everything that is ready run: without a disk or a thread to wait for, that is all there is."""
    for _ in range(100):
        await asyncio.sleep(0)


class TestSharedCommits:
    async def test_writers_of_one_moment_share_one_transaction(self, open_durably: OpenDurably) -> None:
        """D3: many steps, one commit."""
        durably = await open_durably(job)
        await durably.jobs.job.trigger(0)
        commits: list[str] = []
        connection = durably.storage.connections.writing  # type: ignore[attr-defined]
        connection.set_trace_callback(lambda statement: commits.append(statement) if "COMMIT" in statement else None)
        await asyncio.gather(*[durably.jobs.job.trigger(n) for n in range(100)])

        assert len(commits) == 1

    async def test_an_idle_worker_claims_in_the_transaction_of_the_trigger(self, database: str) -> None:
        """D3: one flush to the disk, not two, before a run starts."""
        async with create_durably(database=f"{database}?commit=in-place", jobs={"job": job}) as durably:
            transactions = Transactions(durably)
            for n in range(20):
                await until_nothing_moves()
                await durably.jobs.job.trigger_and_wait(n, timeout=PATIENCE_SECONDS)

        assert transactions.with_all(TRIGGERS) == 20
        # Not where the worker happened to look, or maintenance to write, in the very turn of a trigger.
        assert transactions.with_all(TRIGGERS, CLAIMS) > 10

    @pytest.mark.parametrize("by_worker", [True, False], ids=["worker", "process_until_idle"])
    async def test_the_next_run_is_claimed_in_the_transaction_that_ends_the_one_before(
        self, database: str, *, by_worker: bool
    ) -> None:
        """D3, L1: and never more of them than there are slots."""
        executing: set[str] = set()
        most = 0

        @define_job(name="counted")
        async def counted(step: StepContext, input: int) -> None:
            nonlocal most
            executing.add(step.run_id)
            most = max(most, len(executing))
            await step.run("one", asyncio.sleep, 0)
            executing.discard(step.run_id)

        durably = create_durably(
            database=f"{database}?commit=in-place", jobs={"counted": counted}, max_concurrent_runs=2
        )
        await durably.migrate()
        triggered = await durably.jobs.counted.batch_trigger(range(10))
        transactions = Transactions(durably)
        if by_worker:
            await durably.start()
            for run in triggered:
                await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)
        else:
            assert await durably.process_until_idle() == 10
        await durably.stop()
        await durably.close()

        assert transactions.count(CLAIMS) == 10
        # Not the first two, which nothing came before, nor where maintenance wrote in the very turn of an end.
        assert transactions.count(CLAIMS, beside=ENDS) > 5
        assert most == 2

    @pytest.mark.parametrize("option", ["in-place", "thread"])
    async def test_a_unit_that_fails_is_undone_alone(self, database: str, option: str) -> None:
        """D3: the others of its transaction are stored, and nobody else sees its error."""
        async with create_durably(database=f"{database}?commit={option}", jobs={"job": job}) as durably:
            await durably.stop()
            events = Events(durably)
            await durably.jobs.job.trigger("taken", concurrency_key="k")
            results = await asyncio.gather(
                durably.jobs.job.trigger("a"),
                durably.jobs.job.batch_trigger(["b", "c"]),
                durably.jobs.job.trigger("conflict", concurrency_key="k"),
                durably.cancel("nobody"),
                durably.jobs.job.trigger("d", labels={"l": "1"}),
                return_exceptions=True,
            )

            kinds = [type(each) for each in results]
            assert (kinds[2], kinds[3]) == (ConflictError, NotFoundError)
            assert sorted(run.input for run in await durably.get_runs()) == ["a", "b", "c", "d", "taken"]
            assert sorted(event.input for event in events.of("run:trigger")) == ["a", "b", "c", "d", "taken"]

    @pytest.mark.parametrize("option", ["in-place", "thread"])
    @pytest.mark.parametrize("turns", [0, 1, 2])
    async def test_who_gives_up_takes_nothing_from_the_others(self, database: str, option: str, turns: int) -> None:
        """D3: whenever a writer is cancelled, those of its moment are stored, and it is stored or was never begun."""
        async with create_durably(database=f"{database}?commit={option}", jobs={"job": job}) as durably:
            await durably.stop()
            giving_up = asyncio.create_task(durably.jobs.job.trigger("given up"))
            others = [asyncio.create_task(durably.jobs.job.trigger(n)) for n in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            giving_up.cancel()
            (ended, *stored) = await asyncio.gather(giving_up, *others, return_exceptions=True)

            inputs = {run.input for run in await durably.get_runs()}
            assert [run.input for run in stored if isinstance(run, Run)] == [0, 1, 2]
            assert inputs - {"given up"} == {0, 1, 2}
            assert isinstance(ended, asyncio.CancelledError) or "given up" in inputs

    async def test_the_event_loop_never_waits_for_a_lock(self, database: str) -> None:
        """D3: not even where a transaction is begun again, because one of its units was refused after it wrote."""
        other = sqlite3.connect(database.removeprefix("sqlite:///"), isolation_level=None)
        loop = asyncio.get_running_loop()
        seen: list[str] = []

        def take_lock(statement: str) -> None:
            seen.append(statement)
            if seen[-2:] == ["ROLLBACK", "BEGIN IMMEDIATE"] and not other.in_transaction:
                other.execute("BEGIN IMMEDIATE")
                # Released by the loop: if that waited for the lock, nobody would ever get it.
                loop.call_later(0.01, other.execute, "ROLLBACK")

        async with create_durably(database=f"{database}?commit=in-place", jobs={"job": job}) as durably:
            await durably.stop()
            await durably.jobs.job.trigger("taken", concurrency_key="k")
            durably.storage.connections.writing.set_trace_callback(take_lock)  # type: ignore[attr-defined]
            refused, stored = await asyncio.gather(
                durably.jobs.job.batch_trigger(["a", BatchItem("b", concurrency_key="k")]),
                durably.jobs.job.trigger("c"),
                return_exceptions=True,
            )
            durably.storage.connections.writing.set_trace_callback(None)  # type: ignore[attr-defined]

            assert seen.count("BEGIN IMMEDIATE") > 2
            assert isinstance(refused, ConflictError)
            assert isinstance(stored, Run)
            assert [run.input for run in await durably.get_runs()] == ["c", "taken"]
        other.close()

    async def test_events_announced_beside_a_refused_write_are_not_held_back(self, open_durably: OpenDurably) -> None:
        """E4: a refusal undoes its own unit, not the news of others that shared its transaction."""
        gate, arrived = Gate(), asyncio.Event()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            step.log.info("beside a refusal")
            with pytest.raises(ConflictError):
                await durably.jobs.held.batch_trigger([1, 2, 3, *conflicting])
            await gate.pass_through()

        conflicting = [BatchItem(4, concurrency_key="k"), BatchItem(5, concurrency_key="k")]
        durably = await open_durably(held)
        run = await durably.jobs.held.trigger(None)

        async def read() -> None:
            async for event in durably.subscribe(run.id):
                if event.type == "log:write":
                    arrived.set()

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        processing = asyncio.create_task(durably.process_one())
        await gate.reached()

        async with asyncio.timeout(PATIENCE_SECONDS):
            await arrived.wait()
        gate.open()
        await processing
        await reading
