# ruff: noqa: G004 - `step.log` is the log of a run, not one of the logging module
"""E3, E4: one run as a stream: its state, then what happens, no gap and no duplicate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from durably import Durably, DurablyEvent, NotFoundError, ProgressData, StepContext, StoreError, define_job
from tests.conftest import PATIENCE_SECONDS, Gate, OpenDurably, kept_events
from tests.store_contract.foreign_writer import write


async def tell_story(step: StepContext, input: Any) -> Any:
    for n in range(3):
        await step.run(f"step-{n}", lambda n=n: n)
        step.log.info(f"after {n}")
    if input == "fail":
        raise ValueError("told to")
    return "done"


job = define_job(name="job", run=tell_story)
STORY = ["run:leased", *["step:start", "step:complete", "log:write"] * 3]


async def collect(stream: AsyncIterator[DurablyEvent]) -> list[Any]:
    """Return all of a stream."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [event async for event in stream]


async def read_while_executed(durably: Durably, run_id: str, begin: asyncio.Event) -> list[Any]:
    """Return all of a stream, of which only the lease was read when the job got to `begin`."""
    stream = durably.subscribe(run_id)
    processing = asyncio.create_task(durably.process_one())
    leased = await anext(stream)
    begin.set()
    await processing
    return [leased, *await collect(stream)]


class Reader:
    """Reads a stream in a task, so that the test can see what has come."""

    def __init__(self, stream: AsyncIterator[DurablyEvent]) -> None:
        self.seen: list[Any] = []
        self._stream = stream
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self._stream:
            self.seen.append(event)
            self._arrived.set()

    async def until(self, event_type: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while event_type not in self.types():
                self._arrived.clear()
                await self._arrived.wait()

    def types(self) -> list[str]:
        return [event.type for event in self.seen]

    async def end(self) -> list[str]:
        """Return the types of all events, once the stream has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._task
        return self.types()


class TestHere:
    async def test_a_pending_run_is_silent_and_then_tells_everything(self, open_durably: OpenDurably) -> None:
        """E3: it ends with the terminal event."""
        gate = Gate()

        @define_job(name="job")
        async def waiting(step: StepContext, input: Any) -> Any:
            await gate.pass_through()
            return await tell_story(step, input)

        durably = await open_durably(waiting)
        run = await durably.jobs.job.trigger("x", labels={"a": "b"})
        reader = Reader(durably.subscribe(run.id))
        working = asyncio.create_task(durably.process_one())
        # Where the database is a server, the subscription may come later than the claim.
        await reader.until("run:leased")
        gate.open()
        await working

        assert await reader.end() == [*STORY, "run:complete"]
        assert {(event.run_id, event.job_name) for event in reader.seen} == {(run.id, "job")}
        sequences = [event.sequence for event in reader.seen]
        assert sequences == sorted(set(sequences))

    async def test_a_leased_run_tells_its_lease_and_its_latest_progress_first(self, open_durably: OpenDurably) -> None:
        """E3: replays have sequence 0; progress that was told but not stored yet counts."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            await step.run("before", lambda: 1)
            step.progress(1)
            step.progress(2, 4, "half")
            await gate.pass_through()
            step.progress(3)
            await step.run("after", lambda: 1)

        durably = await open_durably(held, start=True, worker_id="me")
        run = await durably.jobs.held.trigger({"n": 1})
        await gate.reached()
        reader = Reader(durably.subscribe(run.id))
        await reader.until("run:progress")
        gate.open()

        types = await reader.end()
        assert types[:2] == ["run:leased", "run:progress"]
        assert types[-4:] == ["run:progress", "step:start", "step:complete", "run:complete"]
        leased = reader.seen[0]
        assert (leased.sequence, leased.lease_owner, leased.input) == (0, "me", {"n": 1})
        told = [event.progress for event in reader.seen if event.type == "run:progress"]
        assert told[-2:] == [ProgressData(2, 4, "half"), ProgressData(3)]
        assert len(told) == len(set(told))

    @pytest.mark.two_processes
    async def test_only_the_end_of_the_log_is_looked_through_for_progress(
        self, open_durably: OpenDurably, database: str
    ) -> None:
        """E3, S7: progress is stored soon, so what stands further back in the log is older than what is stored."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            await step.run("one", gate.pass_through)

        durably = await open_durably(held, job, start=True)
        run = await durably.jobs.held.trigger(None)
        await gate.reached()
        long_ago = [
            {
                "type": "run:progress",
                "timestamp": "2020-01-01T00:00:00.000Z",
                "run_id": run.id,
                "job_name": "held",
                "labels": {},
                "progress": {"current": 1, "total": None, "message": None},
            }
        ]
        number = ", number" if database.startswith("postgresql") else ""
        await write(
            database,
            f"INSERT INTO durably_events (origin, events, created_at{number}) "
            f"VALUES ('another', '{json.dumps(long_ago)}', '2020-01-01T00:00:00.000Z'{', 1' if number else ''})",
        )
        await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        reader = Reader(durably.subscribe(run.id))
        await reader.until("run:leased")
        gate.open()

        assert await reader.end() == ["run:leased", "step:complete", "run:complete"]

    @pytest.mark.parametrize(
        ("input", "event_type"), [("x", "run:complete"), ("fail", "run:fail"), (None, "run:cancel")]
    )
    async def test_an_ended_run_tells_its_end_only(
        self, open_durably: OpenDurably, input: Any, event_type: str
    ) -> None:
        """E3: the replayed end has sequence 0, duration 0 and no failed step."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(input)
        if input is None:
            await durably.cancel(run.id)
        await durably.process_until_idle()
        found = await durably.get_run(run.id)
        assert found is not None

        (event,) = await collect(durably.subscribe(run.id))

        assert (event.type, event.sequence, event.run_id) == (event_type, 0, run.id)
        assert event.timestamp == found.completed_at
        if input == "x":
            assert (event.output, event.duration) == ("done", 0.0)
        if input == "fail":
            assert (event.error, event.failed_step_name) == ("told to", "")

    async def test_an_unknown_run_is_not_found(self, open_durably: OpenDurably) -> None:
        """E3: at the first step of the iteration."""
        durably = await open_durably(job)

        with pytest.raises(NotFoundError):
            await collect(durably.subscribe("nobody"))

    async def test_a_retriggered_and_given_back_run_goes_on_in_the_same_stream(self, open_durably: OpenDurably) -> None:
        """E3: two claims of one run are one story."""
        begin, gate = Gate(), Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            if step.attempt == 1:
                await begin.pass_through()
            await step.run("one", lambda: 1)
            if step.attempt == 1:
                await gate.pass_through()

        durably = await open_durably(held, start=True)
        run = await durably.jobs.held.trigger(None)
        reader = Reader(durably.subscribe(run.id))
        await reader.until("run:leased")
        begin.open()
        await gate.reached()
        await durably.stop(timeout=0)
        await durably.process_one()

        assert await reader.end() == ["run:leased", "step:start", "step:complete", "run:leased", "run:complete"]

    async def test_what_is_said_in_one_breath_comes_before_the_end(self, open_durably: OpenDurably) -> None:
        """E3: however much that is, and though the run ends with it."""
        count, begin = 2500, asyncio.Event()

        @define_job(name="breathless")
        async def breathless(step: StepContext, input: Any) -> None:
            await begin.wait()
            for n in range(count):
                step.log.info(f"{n}")

        durably = await open_durably(breathless)
        run = await durably.jobs.breathless.trigger(None)

        leased, *lines, end = await read_while_executed(durably, run.id, begin)
        assert leased.type == "run:leased"
        assert [line.message for line in lines] == [f"{n}" for n in range(count)]
        assert end.type == "run:complete"

    async def test_a_reader_that_falls_far_behind_misses_nothing(self, open_durably: OpenDurably) -> None:
        """E3: a slow reader reads on from the log; the job does not wait for it."""
        count, begin = 5000, asyncio.Event()

        @define_job(name="loud")
        async def loud(step: StepContext, input: Any) -> None:
            await begin.wait()
            for n in range(count):
                step.log.info(f"{n}")
                if n % 500 == 0:
                    await step.run(f"step-{n}", lambda: None)

        durably = await open_durably(loud)
        run = await durably.jobs.loud.trigger(None)

        leased, *rest = await read_while_executed(durably, run.id, begin)
        assert leased.type == "run:leased"
        assert [event.message for event in rest if event.type == "log:write"] == [str(n) for n in range(count)]
        assert rest[-1].type == "run:complete"

    async def test_a_reader_may_leave(self, open_durably: OpenDurably) -> None:
        """E3: whoever stops reading leaves nothing behind."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger("x")
        stream = durably.subscribe(run.id)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await stream.aclose()  # type: ignore[attr-defined]

        await durably.process_one()
        await durably.jobs.job.trigger("y")
        await durably.process_one()
        assert kept_events(run.id) == []

    async def test_closing_ends_the_streams(self, open_durably: OpenDurably) -> None:
        """E3: with an error, for the run has not ended."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger("x")
        await durably.storage.claim("elsewhere", ["job"], 1, PATIENCE_SECONDS)
        reader = Reader(durably.subscribe(run.id))
        await reader.until("run:leased")
        await durably.close()

        with pytest.raises(StoreError, match=f"was closed before run {run.id} ended"):
            await reader.end()

    async def test_subscribing_at_any_moment_gives_one_whole_story(self, open_durably: OpenDurably) -> None:
        """E3: no gap and no duplicate, wherever the subscription falls into the run."""
        durably = await open_durably(job, start=True)
        for delay in range(30):
            run = await durably.jobs.job.trigger("x")
            for _ in range(delay):
                await asyncio.sleep(0)
            types = [event.type for event in await collect(durably.subscribe(run.id))]
            rest = [each for each in types if each != "run:leased"]
            whole = [*STORY[1:], "run:complete"]
            assert rest == whole[len(whole) - len(rest) :]
            assert types.count("run:leased") <= 1


class TestElsewhere:
    @pytest.mark.two_processes
    async def test_a_run_that_executes_elsewhere_tells_the_same_story(self, open_durably: OpenDurably) -> None:
        """E4: in order."""
        subscribed = asyncio.Event()

        @define_job(name="patient")
        async def patient(step: StepContext, input: Any) -> Any:
            await subscribed.wait()
            return await job(step, input)

        web, worker = await open_durably(patient), await open_durably(patient)
        run = await web.jobs.patient.trigger("x")
        reader = Reader(web.subscribe(run.id))
        executing = asyncio.create_task(worker.process_one())
        await reader.until("run:leased")
        subscribed.set()
        await executing

        assert await reader.end() == [*STORY, "run:complete"]

    @pytest.mark.two_processes
    async def test_subscribing_elsewhere_at_any_moment_gives_one_whole_story(self, open_durably: OpenDurably) -> None:
        """E3, E4: no gap and no duplicate across processes."""
        web, worker = await open_durably(job), await open_durably(job, start=True)
        for delay in range(15):
            run = await worker.jobs.job.trigger("x")
            await asyncio.sleep(delay * 0.001)
            types = [event.type for event in await collect(web.subscribe(run.id))]
            rest = [each for each in types if each != "run:leased"]
            whole = [*STORY[1:], "run:complete"]
            assert rest == whole[len(whole) - len(rest) :]

    @pytest.mark.two_processes
    @pytest.mark.parametrize("verb", ["cancel", "delete_run"])
    async def test_an_end_from_elsewhere_ends_the_stream(self, open_durably: OpenDurably, verb: str) -> None:
        """E4: whoever ends the run."""
        here, there = await open_durably(job), await open_durably(job)
        run = await here.jobs.job.trigger("x")
        await there.storage.claim("there", ["job"], 1, PATIENCE_SECONDS)
        reader = Reader(here.subscribe(run.id))
        await reader.until("run:leased")
        await there.cancel(run.id)
        if verb == "delete_run":
            await there.delete_run(run.id)

        assert await reader.end() == ["run:leased", "run:cancel"]
