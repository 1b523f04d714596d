"""D1, R11: programs that share the file but write no events: what they do is noticed all the same."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from durably import (
    NotFoundError,
    RunCancelledError,
    StepContext,
    StoreUnavailableError,
    create_durably,
    define_job,
)
from durably.core.event_codec import encode_events
from durably.core.events import RunCancelEvent
from durably.core.store import Position
from durably.engine import silent_ends
from durably.stores.sql import sqlite_queries as queries
from durably.stores.sqlite.statements import INSERT_EVENTS
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably

NEVER = 1000.0
NOW = "2026-01-02T03:04:05.678Z"
CANCEL = f"UPDATE durably_runs SET status = 'cancelled', completed_at = '{NOW}', updated_at = '{NOW}'"
COMPLETE = f"UPDATE durably_runs SET status = 'completed', output = '[ 1 ]', completed_at = '{NOW}'"
DELETE = "DELETE FROM durably_runs"


class Program:
    """Another program with the file open."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)

    def does(self, statement: str, *values: Any) -> None:
        """Change the database behind everybody's back."""
        self._connection.execute(statement, values)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def program(path: Path) -> Iterator[Program]:
    """Return another program; it opens the file when the test asks for it."""
    other = Program(path)
    yield other
    other.close()


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    return input


@define_job(name="job")
async def logging_job(step: StepContext, input: Any) -> Any:
    step.log.info("begun")
    return await step.run("same", lambda: input)


def held_job(gate: Gate, seen: list[Any], *, in_step: bool) -> Any:
    """Return a job that stands still, in a step or between steps, and notes how that ended."""

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        try:
            if in_step:
                await step.run("waiting", gate.pass_through)
            else:
                await gate.pass_through()
        finally:
            seen.append(step.signal.reason)

    return held


class TestReading:
    async def test_what_cannot_be_read_now_is_told_later_with_what_came_after(
        self, open_durably: OpenDurably, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """E4: nothing is passed over, nothing is told twice or out of order, and the run goes on meanwhile."""
        durably = await open_durably(logging_job)
        events = Events(durably)
        foreign = RunCancelEvent(timestamp=datetime.now(UTC), run_id="theirs", job_name="other", labels={})
        with monkeypatch.context() as patch:
            patch.setattr(queries, "EVENTS_AFTER", "SELECT FROM WHERE")
            program.does(INSERT_EVENTS, "other", encode_events([foreign]), NOW)
            await durably.jobs.job.trigger("x")
            assert await durably.process_one()
            assert events.types() == []

        await events.until("run:complete")

        assert events.types() == [
            "run:cancel", "run:trigger", "run:leased", "log:write", "step:start", "step:complete", "run:complete",
        ]  # fmt: skip


class TestTriggering:
    async def test_a_run_inserted_by_another_program_is_executed(
        self, open_durably: OpenDurably, program: Program
    ) -> None:
        """W1, D1: the worker wakes without polling; spaces, escapes and lone surrogates in JSON are read."""
        durably = await open_durably(job, start=True, polling_interval=NEVER)
        await durably.jobs.job.trigger_and_wait("idle now", timeout=PATIENCE_SECONDS)
        program.does(
            "INSERT INTO durably_runs (id, job_name, input, status, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
            "theirs", "job", '{ "text": "\\u00fc", "odd": ["\\ud800"] }', "pending", NOW, NOW,
        )  # fmt: skip
        events = Events(durably)

        assert (await events.until("run:complete")).run_id == "theirs"
        found = await durably.get_run("theirs")
        assert found is not None
        assert found.input == {"text": "ü", "odd": ["\ufffd"]}


class TestEnding:
    @pytest.mark.parametrize(("statement", "error"), [(COMPLETE, None), (CANCEL, RunCancelledError)])
    async def test_who_waits_learns_of_an_end_that_nobody_announced(
        self, open_durably: OpenDurably, program: Program, statement: str, error: Any
    ) -> None:
        """R11: by the change of the file, not by polling."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(1)
        waiting = asyncio.create_task(durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS, polling_interval=NEVER))
        streaming = asyncio.create_task(collect(durably, run.id))
        await asyncio.sleep(0)
        program.does(statement)

        if error is None:
            assert (await waiting).output == [1]
        else:
            with pytest.raises(error):
                await waiting
        assert await streaming == ["run:complete" if error is None else "run:cancel"]

    async def test_an_end_that_could_not_be_looked_for_is_found_later(
        self, open_durably: OpenDurably, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """E3: though nobody writes anything more, which is what makes a process look."""
        monkeypatch.setattr(silent_ends, "_RETRY_SECONDS", 0.01)
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(1)
        streaming = asyncio.create_task(collect(durably, run.id))
        await asyncio.sleep(0)
        which_ended, times_away = durably.storage.which_ended, 2

        async def is_away(run_ids: Any) -> list[str]:
            nonlocal times_away
            if times_away:
                times_away -= 1
                raise StoreUnavailableError("away")
            return await which_ended(run_ids)

        monkeypatch.setattr(durably.storage, "which_ended", is_away)
        program.does(CANCEL)

        assert await asyncio.wait_for(streaming, PATIENCE_SECONDS) == ["run:cancel"]
        assert times_away == 0

    async def test_an_end_that_cannot_be_told_keeps_no_other_from_being_told(
        self, open_durably: OpenDurably, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """E3: whatever another program has made of its row."""
        durably = await open_durably(job)
        broken = await durably.jobs.job.trigger(1)
        run = await durably.jobs.job.trigger(2)
        streaming = [asyncio.create_task(collect(durably, each.id)) for each in (broken, run)]
        await asyncio.sleep(0)
        snapshot = durably.storage.snapshot

        async def fails_for_one(run_id: str) -> Any:
            if run_id == broken.id:
                raise ValueError("not a run")
            return await snapshot(run_id)

        monkeypatch.setattr(durably.storage, "snapshot", fails_for_one)
        program.does(CANCEL)

        assert await asyncio.wait_for(streaming[1], PATIENCE_SECONDS) == ["run:cancel"]
        streaming[0].cancel()

    async def test_a_run_that_another_program_deleted_is_gone(
        self, open_durably: OpenDurably, program: Program
    ) -> None:
        """R11, E3: who waits for it is told, and its streams tell it at their end."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(1)
        waiting = asyncio.create_task(durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS, polling_interval=NEVER))
        streaming = asyncio.create_task(collect(durably, run.id))
        await asyncio.sleep(0)
        program.does(DELETE)

        with pytest.raises(NotFoundError):
            await waiting
        assert await streaming == ["run:delete"]

    @pytest.mark.parametrize(("statement", "event_type"), [(CANCEL, "run:cancel"), (DELETE, "run:delete")])
    async def test_an_end_that_cannot_be_written_down_yet_is_told_once(
        self, open_durably: OpenDurably, program: Program, statement: str, event_type: str
    ) -> None:
        """E1, S5: however often the run is looked at meanwhile; it is stopped as soon as it is seen to have ended."""
        gate, seen = Gate(), []
        durably = await open_durably(held_job(gate, seen, in_step=True), start=True, polling_interval=NEVER)
        events = Events(durably)
        await durably.jobs.held.trigger(None)
        await gate.reached()
        program.does("CREATE TABLE theirs (x)")
        program.does(statement)
        for _ in range(4):
            # The file changes, and our own writes wait for the lock: one has its turn in the end.
            program.does("BEGIN IMMEDIATE")
            program.does("INSERT INTO theirs VALUES (1)")
            await asyncio.sleep(0.3)
            program.does("COMMIT")
            program.does("BEGIN IMMEDIATE")
            program.does("COMMIT")
        assert seen == ["cancelled"]
        await events.until(event_type)
        await durably.stop()

        assert len(events.of(event_type)) == 1

    @pytest.mark.parametrize(("statement", "event_type"), [(CANCEL, "run:cancel"), (DELETE, "run:delete")])
    async def test_a_run_that_executes_here_is_stopped_and_its_end_told_once(
        self, open_durably: OpenDurably, program: Program, statement: str, event_type: str
    ) -> None:
        """S5, E1: its code sees a cancellation, everybody an event."""
        gate, seen = Gate(), []
        held = held_job(gate, seen, in_step=True)
        durably = await open_durably(held, start=True, polling_interval=NEVER)
        other = await open_durably(held)
        events, elsewhere = Events(durably), Events(other)
        run = await durably.jobs.held.trigger(None)
        await gate.reached()
        program.does(statement)

        for each in (events, elsewhere):
            assert (await each.until(event_type)).run_id == run.id
        async with asyncio.timeout(PATIENCE_SECONDS):
            await durably.stop()
        assert seen == ["cancelled"]
        assert len(events.of(event_type)) == len(elsewhere.of(event_type)) == 1

    @pytest.mark.parametrize("finder", ["renewal", "step", "end"])
    async def test_whoever_finds_a_silent_cancellation_first_takes_it_as_one(
        self, open_durably: OpenDurably, program: Program, monkeypatch: pytest.MonkeyPatch, finder: str
    ) -> None:
        """S5: it is no lost lease, whether the renewal, a checkpoint or the end of the run is refused."""
        monkeypatch.setattr(silent_ends, "_LOOK_AFTER_SECONDS", NEVER)
        gate, seen = Gate(), []
        held = held_job(gate, seen, in_step=finder != "end")
        renewal = 0.02 if finder == "renewal" else 29
        durably = await open_durably(held, start=True, polling_interval=NEVER, lease_renew_interval=renewal)
        events = Events(durably)
        await durably.jobs.held.trigger(None)
        await gate.reached()
        program.does(CANCEL)
        if finder != "renewal":
            gate.open()

        async with asyncio.timeout(PATIENCE_SECONDS):
            while not seen:
                await asyncio.sleep(0.001)
            await durably.stop()
        # A step that ended before the news came is refused afterwards, like the end of the run.
        assert seen == [{"renewal": "cancelled", "step": "cancelled", "end": None}[finder]]
        assert events.of("worker:error", "run:complete", "step:complete") == []


async def collect(durably: Any, run_id: str) -> list[str]:
    """Return the types of all events of a run's stream."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [event.type async for event in durably.subscribe(run_id)]


async def test_two_expired_leases_of_one_key_do_not_stop_the_queue(open_durably: OpenDurably, program: Program) -> None:
    """L4: a program that leased two runs of one job and key leaves one to resume, and one that fails."""
    durably = await open_durably(job)
    first, second = [await durably.jobs.job.trigger({}) for _ in range(2)]
    program.does(
        "UPDATE durably_runs SET concurrency_key = 'key', status = 'leased', lease_owner = 'other', "
        "lease_generation = 1, lease_expires_at = '2020-01-01T00:00:00.000Z'"
    )

    assert await durably.process_until_idle() == 1

    resumed, failed = [await durably.get_run(run.id) for run in (first, second)]
    assert resumed is not None
    assert failed is not None
    assert (resumed.status, failed.status) == ("completed", "failed")
    assert failed.error == "Lease expired; pending run already exists"


class TestCleaningTheLog:
    async def test_what_is_cleaned_away_while_a_page_is_read_is_no_silent_gap(
        self, open_durably: OpenDurably, program: Program
    ) -> None:
        """E4: a page either has every row or says that some are missing."""
        durably = await open_durably(job)
        for number in range(5):
            await durably.jobs.job.trigger(number)
        asked: list[str] = []

        def clean(statement: str) -> None:
            asked.append(statement)
            if len(asked) == 2:
                program.does("DELETE FROM durably_events WHERE position <= 3")

        durably.storage.connections.reading.set_trace_callback(clean)  # type: ignore[attr-defined]
        page = await durably.storage.events_after(Position.behind(0), 10)

        assert len(asked) == 2
        assert len(page.events) == 5 or not page.is_gapless


def test_they_are_noticed_on_a_second_event_loop_too(database: str, path: Path) -> None:
    """E4: also when the first one ended while it was about to look."""
    gate, seen = Gate(), []
    held = held_job(gate, seen, in_step=True)
    durably = create_durably(database=database, jobs={"held": held, "job": job})
    program = Program(path)

    async def leave_while_a_look_is_due() -> None:
        await durably.migrate()
        run = await durably.jobs.job.trigger(None)
        streaming = asyncio.create_task(anext(durably.subscribe(run.id)))
        changed = asyncio.Event()
        durably._worker.wake = changed.set  # type: ignore[method-assign]
        await asyncio.sleep(0)
        program.does("UPDATE durably_runs SET error = 'changed'")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await changed.wait()
        streaming.cancel()

    async def follow() -> list[str]:
        run = await durably.jobs.job.trigger(None)
        stream = durably.subscribe(run.id)
        told = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.05)
        program.does(CANCEL)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return [(await told).type]

    asyncio.run(leave_while_a_look_is_due())
    assert asyncio.run(follow()) == ["run:cancel"]
    asyncio.run(durably.close())
    program.close()
