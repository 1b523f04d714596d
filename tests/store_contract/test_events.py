"""E1, E2: which events there are, what they hold, in which order, and who is told."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import (
    DurablyEvent,
    RunStatus,
    StepContext,
    SyncStepContext,
    ValidationError,
    WorkerErrorEvent,
    create_durably,
    define_job,
    is_domain_event,
)
from durably.core.events import EVENT_CLASSES, RunEvent, StepEvent
from durably.core.store import Position
from durably.testing import FakeClock
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably
from tests.store_contract.foreign_writer import write

STORY = [
    "run:trigger",
    "run:leased",
    "run:progress",
    "step:start",
    "step:complete",
    "log:write",
    "step:start",
    "step:fail",
    "run:complete",
]
"""What the job below tells when it is given anything but "fail"."""


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    step.progress(1, 2, "half")
    await step.run("first", lambda: {"a": 1})
    step.log.info("between", [1])
    try:
        await step.run("second", lambda: 1 / 0)
    except ZeroDivisionError:
        if input == "fail":
            raise
    return {"out": input}


class TestTheEventsOfARun:
    async def test_what_a_job_does_to_its_labels_stays_with_it(self, open_durably: OpenDurably) -> None:
        """E1: events tell of the run as it is stored."""

        @define_job(name="forger")
        async def forger(step: StepContext, input: Any) -> None:
            step.labels["org"] = "another"

        durably = await open_durably(forger)
        events = Events(durably)
        await durably.jobs.forger.trigger(None, labels={"org": "a"})
        await durably.process_one()

        assert [event.labels for event in events.seen] == [{"org": "a"}] * 3

    async def test_a_completed_run_tells_its_story_in_order(self, open_durably: OpenDurably) -> None:
        """E1: type by type, field by field."""
        durably = await open_durably(job, start=True)
        events = Events(durably)
        result = await durably.jobs.job.trigger_and_wait("x", labels={"org": "a"}, timeout=PATIENCE_SECONDS)
        complete = await events.until("run:complete")

        assert events.types() == STORY
        for event in events.seen:
            assert isinstance(event, RunEvent)
            assert (event.run_id, event.job_name, event.labels) == (result.id, "job", {"org": "a"})
        by_type: dict[str, Any] = {event.type: event for event in events.seen}
        assert by_type["run:trigger"].input == by_type["run:leased"].input == "x"
        assert by_type["run:progress"].progress.message == "half"
        assert (by_type["step:complete"].step_name, by_type["step:complete"].step_index) == ("first", 0)
        assert by_type["step:complete"].output == {"a": 1}
        assert by_type["step:complete"].duration >= 0
        assert (by_type["log:write"].message, by_type["log:write"].data, by_type["log:write"].level) == (
            "between", [1], "info",
        )  # fmt: skip
        assert (by_type["step:fail"].step_name, by_type["step:fail"].step_index) == ("second", 1)
        assert by_type["step:fail"].error == "division by zero"
        assert (complete.output, complete.duration >= 0) == ({"out": "x"}, True)

    async def test_a_step_that_the_job_gives_up_is_told_to_fail(self, open_durably: OpenDurably) -> None:
        """E1: every step that was told to start is told to end; it may be tried again."""

        @define_job(name="hasty")
        async def hasty(step: StepContext, input: Any) -> str:
            try:
                async with asyncio.timeout(0):
                    await step.run("slow", asyncio.Event().wait)
            except TimeoutError:
                return await step.run("slow", lambda: "quick")
            return "never"

        durably = await open_durably(hasty, start=True)
        events = Events(durably)
        finished = await durably.jobs.hasty.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        await events.until("run:complete")

        assert finished.output == "quick"
        assert [event.type for event in events.seen if event.type.startswith("step:")] == [
            "step:start", "step:fail", "step:start", "step:complete",
        ]  # fmt: skip
        (told,) = events.of("step:fail")
        assert (told.step_name, told.step_index, told.error) == ("slow", 0, "given up by the job before it ended")

    async def test_a_step_beside_one_that_fails_is_told_to_end_too(self, open_durably: OpenDurably) -> None:
        """E1, S3: a task group gives up the others; the run fails for the one that raised."""
        gate = Gate()

        @define_job(name="pair")
        async def pair(step: StepContext, input: Any) -> None:
            async def fail() -> None:
                await gate.reached()
                raise ValueError("broken")

            async with asyncio.TaskGroup() as group:
                group.create_task(step.run("waiting", gate.pass_through))
                group.create_task(step.run("failing", fail))

        durably = await open_durably(pair)
        events = Events(durably)
        await durably.jobs.pair.trigger(None)
        await durably.process_one()

        assert {event.step_name: event.error for event in events.of("step:fail")} == {
            "failing": "broken",
            "waiting": "given up by the job before it ended",
        }

    async def test_a_step_whose_own_await_was_cancelled_has_failed(self, open_durably: OpenDurably) -> None:
        """S3: nobody gave it up; it is an error like any other."""

        @define_job(name="job")
        async def awaiting(step: StepContext, input: Any) -> None:
            async def await_what_is_cancelled() -> None:
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future

            await step.run("one", await_what_is_cancelled)

        durably = await open_durably(awaiting)
        events = Events(durably)
        await durably.jobs.job.trigger(None)
        await durably.process_one()

        assert [(event.step_name, event.error) for event in events.of("step:fail")] == [("one", "CancelledError")]
        assert [event.failed_step_name for event in events.of("run:fail")] == ["one"]

    async def test_the_duration_of_a_run_is_no_matter_of_wall_clocks(self, open_durably: OpenDurably) -> None:
        """E1: that of the worker may differ from the one that wrote the start of the run, and jump."""
        clock = FakeClock()

        @define_job(name="jumping")
        async def jumping(step: StepContext, input: Any) -> None:
            clock.advance(seconds=2)
            clock.set_wall_clock(clock.now() - timedelta(hours=1))

        durably = await open_durably(jumping, clock=clock)
        events = Events(durably)
        await durably.jobs.jumping.trigger(None)
        await durably.process_one()

        assert (await events.until("run:complete")).duration == 2

    async def test_every_event_has_a_time_and_a_rising_sequence(self, open_durably: OpenDurably) -> None:
        """E1: `sequence` increases per instance; timestamps are UTC."""
        durably = await open_durably(job, start=True)
        events = Events(durably)
        for _ in range(3):
            await durably.jobs.job.trigger_and_wait("x", timeout=PATIENCE_SECONDS)
        await events.until("run:complete", 3)

        sequences = [event.sequence for event in events.seen]
        assert sequences == sorted(set(sequences))
        assert sequences[0] > 0
        assert {event.timestamp.tzinfo for event in events.seen} == {UTC}

    async def test_every_way_to_end_is_announced(self, open_durably: OpenDurably) -> None:
        """E1: complete, fail, cancel, delete, purge."""
        durably = await open_durably(job)
        events = Events(durably)
        failed = await durably.jobs.job.trigger("fail")
        await durably.process_until_idle()
        cancelled = await durably.jobs.job.trigger("x")
        await durably.cancel(cancelled.id)
        await durably.delete_run(failed.id)
        assert await durably.purge_runs(older_than=timedelta(0)) == 1

        assert [(e.type, e.run_id) for e in events.of("run:fail", "run:cancel", "run:delete")] == [
            ("run:fail", failed.id),
            ("run:cancel", cancelled.id),
            ("run:delete", failed.id),
            ("run:delete", cancelled.id),
        ]
        (fail,) = events.of("run:fail")
        assert (fail.error, fail.failed_step_name) == ("division by zero", "second")

    async def test_runs_that_interleave_each_tell_their_story_in_order(self, open_durably: OpenDurably) -> None:
        """E1: whatever else is written at the same time."""
        durably = await open_durably(job, start=True, max_concurrent_runs=20)
        events = Events(durably)

        async def trigger(number: int) -> None:
            await asyncio.sleep(number / 1_000)
            await durably.jobs.job.trigger("x", concurrency_key=str(number) if number % 3 == 0 else None)

        await asyncio.gather(*(trigger(number) for number in range(60)))
        await events.until("run:complete", 60)

        stories: dict[str, list[str]] = {}
        for event in events.seen:
            assert isinstance(event, RunEvent)
            stories.setdefault(event.run_id, []).append(event.type)
        assert len(stories) == 60
        assert all(story == STORY for story in stories.values())

    @pytest.mark.two_processes
    async def test_who_comes_first_hears_of_everything(self, open_durably: OpenDurably) -> None:
        """E1: also where many calls at once are the first use of an instance."""
        await open_durably(job)
        durably = await open_durably(job, migrate=False)
        events = Events(durably)

        await asyncio.gather(*(durably.jobs.job.trigger(number) for number in range(20)))

        await events.until("run:trigger", 20)

    async def test_domain_events_are_told_from_operational_ones(self, open_durably: OpenDurably) -> None:
        """E1: six of them are part of a run's life."""
        durably = await open_durably(job, start=True)
        events = Events(durably)
        await durably.jobs.job.trigger_and_wait("x", timeout=PATIENCE_SECONDS)
        await events.until("run:complete")

        assert [event.type for event in events.seen if is_domain_event(event)] == ["run:trigger", "run:complete"]
        assert sum(issubclass(event_class, StepEvent) for event_class in EVENT_CLASSES.values()) == 4

    @pytest.mark.two_processes
    async def test_old_events_are_cleaned_away(self, open_durably: OpenDurably, database: str) -> None:
        """W3: but for the newest row, and whoever comes too late for them is told."""
        durably = await open_durably(job)
        start = Position.behind(0)
        for number in range(5):
            await durably.jobs.job.trigger(number)
        assert (await durably.storage.events_after(start, 10)).is_gapless

        await write(database, "UPDATE durably_events SET created_at = '2020-01-01T00:00:00.000Z'")
        await durably.storage.maintain(idle=False)

        page = await durably.storage.events_after(start, 10)
        assert [getattr(each.event, "input", None) for each in page.events] == [4]
        assert not page.is_gapless

    async def test_a_run_without_output_says_none(self, open_durably: OpenDurably) -> None:
        """E1: no output is None, not the text null."""

        @define_job(name="silent")
        async def silent(step: StepContext, input: Any) -> None: ...

        durably = await open_durably(silent, start=True)
        events = Events(durably)
        await durably.jobs.silent.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        complete = await events.until("run:complete")
        assert (complete.output, complete.output_json) == (None, None)

    @pytest.mark.two_processes
    async def test_events_of_a_newer_version_are_passed_over_and_keep_their_places(
        self, open_durably: OpenDurably, database: str
    ) -> None:
        """E4: whoever reads on from a position means the same event by it in every version."""
        durably = await open_durably(job)
        await durably.jobs.job.trigger(1)
        await write(
            database, """UPDATE durably_events SET events = '[{"type":"run:teleported"},' || substr(events, 2)"""
        )

        (found,) = (await durably.storage.events_after(Position.behind(0), 10)).events
        row = found.position.row
        assert (found.event.type, found.position) == ("run:trigger", Position(row, 1))
        for place, types in ((0, ["run:trigger"]), (1, [])):
            page = await durably.storage.events_after(Position(row, place), 10)
            assert [recorded.event.type for recorded in page.events] == types

    @pytest.mark.two_processes
    async def test_listeners_hear_of_other_processes_too(self, open_durably: OpenDurably) -> None:
        """E4: every event of the database, in order; with `scope="process"` only what happens here."""
        worker, web = await open_durably(job, start=True), await open_durably(job)
        here: list[str] = []
        web.on("step:complete", lambda event: here.append(event.type), scope="process")
        web.on("run:trigger", lambda event: here.append(event.type), scope="process")
        told, done = Events(web), Events(worker)
        await web.jobs.job.trigger("x")
        await told.until("run:complete")
        await done.until("run:complete")

        assert told.types() == done.types()
        assert here == ["run:trigger"]


class TestListeners:
    async def test_they_are_called_in_order_of_registration(self, open_durably: OpenDurably) -> None:
        """E2: synchronously; what unsubscribed is not called."""
        durably = await open_durably(job)
        calls: list[str] = []
        durably.on("run:trigger", lambda _: calls.append("first"))
        forget = durably.on("run:trigger", lambda _: calls.append("second"))

        @durably.on("run:trigger")
        def third(event: Any) -> None:
            calls.append("third")

        await durably.jobs.job.trigger(1)
        forget()
        forget()
        await durably.jobs.job.trigger(2)

        assert calls == ["first", "second", "third", "first", "third"]
        third(None)
        assert calls[-1] == "third"

    async def test_one_that_raises_is_reported_and_stops_nobody(self, open_durably: OpenDurably) -> None:
        """E2: neither the next listener, nor the job, nor the trigger."""
        durably = await open_durably(job)
        calls: list[str] = []
        reported: list[tuple[BaseException, DurablyEvent]] = []
        error = ValueError("listener")

        def broken(event: Any) -> None:
            raise error

        def broken_handler(error: Any, event: Any) -> None:
            raise RuntimeError("handler")

        durably.on("run:trigger", broken)
        durably.on("run:trigger", lambda _: calls.append("next"))
        durably.on_error(broken_handler)
        forget = durably.on_error(lambda error, event: reported.append((error, event)))
        run = await durably.jobs.job.trigger(1)

        assert calls == ["next"]
        ((reported_error, event),) = reported
        assert reported_error is error
        assert getattr(event, "run_id", None) == run.id
        forget()
        forget()
        await durably.jobs.job.trigger(2)
        assert len(reported) == 1

    async def test_without_a_handler_the_log_has_it(
        self, open_durably: OpenDurably, caplog: pytest.LogCaptureFixture
    ) -> None:
        """E2: no failure is silent."""
        durably = await open_durably(job)

        def broken(event: Any) -> None:
            raise ValueError("nobody listens to me")

        durably.on("run:trigger", broken)
        await durably.jobs.job.trigger(1)

        assert "nobody listens to me" in caplog.text

    async def test_an_async_listener_is_started_not_awaited(self, open_durably: OpenDurably) -> None:
        """E2: its failure is reported the same way."""
        durably = await open_durably(job)
        gate = Gate()
        reported = asyncio.Event()

        async def slow(event: Any) -> None:
            await gate.pass_through()
            raise ValueError("late")

        durably.on("run:trigger", slow)
        durably.on_error(lambda error, event: reported.set())
        run = await durably.jobs.job.trigger(1)
        assert run.status is RunStatus.PENDING
        await gate.reached()
        gate.open()

        async with asyncio.timeout(PATIENCE_SECONDS):
            await reported.wait()

    async def test_an_async_error_handler_is_started_too(
        self, open_durably: OpenDurably, caplog: pytest.LogCaptureFixture
    ) -> None:
        """E2: it is told like any other, and its own failure goes to the log."""
        durably = await open_durably(job)
        reported: list[Any] = []
        all_told = asyncio.Event()

        def broken(event: Any) -> None:
            raise ValueError("listener")

        async def broken_handler(error: Exception, event: DurablyEvent) -> None:
            await asyncio.sleep(0)
            raise RuntimeError("handler")

        async def handler(error: Exception, event: DurablyEvent) -> None:
            await asyncio.sleep(0)
            reported.append((str(error), event.type))
            all_told.set()

        durably.on("run:trigger", broken)
        durably.on_error(broken_handler)
        durably.on_error(handler)
        await durably.jobs.job.trigger(1)

        async with asyncio.timeout(PATIENCE_SECONDS):
            await all_told.wait()
        assert reported == [("listener", "run:trigger")]
        assert "RuntimeError: handler" in caplog.text

    async def test_an_unknown_event_type_is_refused(self, open_durably: OpenDurably) -> None:
        """A misspelt name is an error, not silence."""
        durably = await open_durably(job)

        with pytest.raises(ValidationError, match="run:complete"):
            durably.on("run:completed", print)  # type: ignore[call-overload]

    async def test_what_cannot_be_called_is_no_listener(self, open_durably: OpenDurably) -> None:
        """It is refused here, not when the first event arrives."""
        durably = await open_durably(job)

        with pytest.raises(ValidationError, match="Invalid listener 'run'"):
            durably.on("run:complete", "run")  # type: ignore[call-overload]
        with pytest.raises(ValidationError, match="Invalid handler 5"):
            durably.on_error(5)  # type: ignore[arg-type]

    async def test_a_listener_may_trigger_and_read(self, open_durably: OpenDurably) -> None:
        """E2: what an event tells of has happened."""
        durably = await open_durably(job, start=True)
        chained: list[Any] = []

        async def on_complete(event: Any) -> None:
            found = await durably.get_run(event.run_id)
            chained.append(found.output if found is not None else None)
            if len(chained) < 3:
                await durably.jobs.job.trigger(len(chained))

        durably.on("run:complete", on_complete)
        events = Events(durably)
        await durably.jobs.job.trigger(0)
        await events.until("run:complete", 3)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(chained) < 3:
                await asyncio.sleep(0.001)

        assert chained == [{"out": 0}, {"out": 1}, {"out": 2}]

    async def test_emit_delivers_to_listeners_here(self, open_durably: OpenDurably) -> None:
        """E1: an emitted event gets a sequence; what is no event is refused."""
        durably = await open_durably(job)
        events = Events(durably)
        run = await durably.jobs.job.trigger(1)
        durably.emit(WorkerErrorEvent(timestamp=run.created_at, error="mine", context="test"))

        (told,) = events.of("worker:error")
        assert (told.error, told.sequence > events.of("run:trigger")[0].sequence) == ("mine", True)
        first = told.sequence
        durably.emit(told)
        assert [event.sequence for event in events.of("worker:error")] == [first, first + 1]
        with pytest.raises(ValidationError, match="event"):
            durably.emit({"type": "worker:error"})  # type: ignore[arg-type] # what a checker refuses

    async def test_what_a_thread_emits_is_told_on_the_event_loop(self, open_durably: OpenDurably) -> None:
        """E2: from a plain job too, whose thread has no loop for an async listener."""
        threads: list[int] = []
        was_started = asyncio.Event()

        async def start(event: WorkerErrorEvent) -> None:
            threads.append(threading.get_ident())
            was_started.set()

        @define_job(name="plain")
        def plain(step: SyncStepContext, input: Any) -> None:
            durably.emit(WorkerErrorEvent(timestamp=datetime.now(UTC), error="mine", context="test"))

        durably = await open_durably(plain, start=True)
        durably.on("worker:error", start)
        durably.on("worker:error", lambda event: threads.append(threading.get_ident()))
        await durably.jobs.plain.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await was_started.wait()

        assert threads == [threading.get_ident()] * 2

    async def test_a_listener_that_another_removes_hears_no_more(self, open_durably: OpenDurably) -> None:
        """E2: not even of the event that is being told."""
        durably = await open_durably(job)
        told: list[str] = []
        durably.on("run:trigger", lambda event: forget())
        forget = durably.on("run:trigger", lambda event: told.append("removed"))
        durably.on("run:trigger", lambda event: told.append("kept"))
        await durably.jobs.job.trigger(1)
        forget()

        assert told == ["kept"]


def test_an_async_listener_without_an_event_loop_is_reported(tmp_path: Path) -> None:
    """E2: `emit` in a program that has none yet says so, and goes on with the next listener."""
    durably = create_durably(database=tmp_path / "durably.db")
    reported: list[str] = []
    told: list[str] = []

    async def start(event: WorkerErrorEvent) -> None:
        told.append("never")

    durably.on("worker:error", start)
    durably.on("worker:error", lambda event: told.append(event.error))
    durably.on_error(lambda error, event: reported.append(str(error)))
    durably.emit(WorkerErrorEvent(timestamp=datetime.now(UTC), error="mine", context="test"))

    assert told == ["mine"]
    assert reported == ["an async listener needs an event loop: none runs where the event was emitted"]
