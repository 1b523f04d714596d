# ruff: noqa: G004, G010 - `step.log` is the log of a run, not one of the logging module
"""S7, P1: progress and logs never block, never fail the job, and lose nothing that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from durably import (
    Durably,
    Log,
    LogData,
    LogWriteEvent,
    ProgressData,
    RunFailedError,
    StepContext,
    StoreUnavailableError,
    SyncStepContext,
    ValidationError,
    define_job,
    with_log_persistence,
)
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably, until
from tests.store_contract.foreign_writer import write


@define_job(name="plain")
async def plain(step: StepContext, input: Any) -> Any:
    return input


class InstallsLater:
    """What looks like a plugin, and would never be installed."""

    async def install(self, durably: Durably) -> None: ...


async def is_unharmed(durably: Durably) -> bool:
    """Tell whether runs still begin and end."""
    result = await durably.jobs.plain.trigger_and_wait("unharmed", timeout=PATIENCE_SECONDS)
    return result.output == "unharmed"


class TestProgress:
    async def test_the_last_value_before_the_end_is_always_stored(self, open_durably: OpenDurably) -> None:
        """S7: however often it is called."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            for n in range(1, 1001):
                step.progress(n, 1000, f"row {n}")

        durably = await open_durably(job, start=True)
        events = Events(durably)
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        run = await durably.get_run(result.id)
        assert run is not None
        assert run.progress == ProgressData(1000, 1000, "row 1000")
        told = events.of("run:progress")
        assert [event.progress.current for event in told] == list(range(1, 1001))
        assert {(event.run_id, event.job_name) for event in told} == {(run.id, "job")}

    async def test_a_checkpoint_stores_the_progress_with_it(self, open_durably: OpenDurably) -> None:
        """S7: what was not given stays None."""
        seen = []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            step.progress(1)
            await step.run("one", lambda: 1)
            run = await durably.get_run(step.run_id)
            seen.append(run.progress if run is not None else None)

        durably = await open_durably(job, start=True)
        await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        assert seen == [ProgressData(1, None, None)]

    async def test_progress_between_checkpoints_is_stored_soon(self, open_durably: OpenDurably) -> None:
        """S7: a few times per second, so that others can see it while the job is at it."""
        gate = Gate()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            step.progress(1)
            step.progress(2)
            await gate.pass_through()

        durably = await open_durably(job, start=True)
        run = await durably.jobs.job.trigger(None)
        await gate.reached()

        async def is_stored() -> bool:
            found = await durably.get_run(run.id)
            return found is not None and found.progress == ProgressData(2)

        assert await until(is_stored)
        gate.open()

    async def test_a_failed_run_keeps_its_last_progress(self, open_durably: OpenDurably) -> None:
        """S7: the last value before the end, whichever end."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            step.progress(7, 9)
            raise ValueError("broken")

        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(None)
        await durably.process_one()

        found = await durably.get_run(run.id)
        assert found is not None
        assert found.progress == ProgressData(7, 9)

    async def test_a_plain_job_reports_from_its_thread(self, open_durably: OpenDurably) -> None:
        """S7: in order, from any thread."""

        @define_job(name="job")
        def job(step: SyncStepContext, input: Any) -> None:
            for n in range(100):
                step.progress(n)
                step.log.info(f"{n}")

        durably = await open_durably(job, start=True)
        events = Events(durably)
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        assert [event.progress.current for event in events.of("run:progress")] == list(range(100))
        assert [event.message for event in events.of("log:write")] == [str(n) for n in range(100)]
        run = await durably.get_run(result.id)
        assert run is not None
        assert run.progress == ProgressData(99)

    @pytest.mark.parametrize(
        "arguments",
        [
            (float("nan"),),
            (1, float("inf")),
            ("three",),
            (None,),
            pytest.param((object(), object(), object()), id="objects"),
            (Decimal("1.5"), Decimal(3)),
            (10**400,),
            (1, 2, "\ud800 \x00"),
            (1, 2, 3),
        ],
        ids=repr,
    )
    async def test_no_progress_fails_the_job_or_anybody_else(
        self, open_durably: OpenDurably, arguments: tuple[Any, ...]
    ) -> None:
        """S7: whatever is given, the job goes on and so does every other run of the process."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> str:
            step.progress(*arguments)
            await step.run("one", lambda: 1)
            step.progress(5, 5)
            return "done"

        durably = await open_durably(job, plain, start=True)

        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        run = await durably.get_run(result.id)
        assert run is not None
        assert (run.output, run.progress) == ("done", ProgressData(5, 5))
        assert await is_unharmed(durably)


class Thing(BaseModel):
    name: str


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


class TestLogs:
    async def test_log_lines_are_stored_in_order_with_their_data(self, open_durably: OpenDurably) -> None:
        """P1: level, message, data, step, and all are stored when the instance has stopped."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            step.log.info("first")
            step.log.warn("second", {"n": [1, None]})
            await step.run("one", lambda: step.log.error("third", None))

        durably = await open_durably(job, start=True)
        durably.use(with_log_persistence())
        events = Events(durably)
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        await durably.stop()

        lines = await durably.get_logs(result.id)
        assert [(line.level, line.message, line.data, line.step_name) for line in lines] == [
            ("info", "first", None, None),
            ("warn", "second", {"n": [1, None]}, None),
            ("error", "third", None, "one"),
        ]
        assert {line.run_id for line in lines} == {result.id}
        assert [line.created_at for line in lines] == sorted(line.created_at for line in lines)
        assert [(e.level, e.message, e.data, e.data_json, e.step_name) for e in events.of("log:write")] == [
            ("info", "first", None, None, None),
            ("warn", "second", {"n": [1, None]}, '{"n":[1,null]}', None),
            ("error", "third", None, "null", "one"),
        ]

    @pytest.mark.parametrize(
        ("data", "stored"),
        [
            ("text", "text"),
            (0, 0),
            (float("nan"), "nan"),
            ([float("inf"), 1], ["inf", 1]),
            ({1}, [1]),
            ((1, 2), [1, 2]),
            ({1: "a"}, {"1": "a"}),
            (b"bytes", "bytes"),
            (Thing(name="a"), {"name": "a"}),
            (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
            (ValueError("broken"), "ValueError('broken')"),
            ("\ud800", "?"),
            ("\x00", "\x00"),
        ],
        ids=repr,
    )
    async def test_any_data_can_be_logged(self, open_durably: OpenDurably, data: Any, stored: Any) -> None:
        """S7: what JSON cannot carry is stored as its text."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            step.log.info("with data", data)

        durably = await open_durably(job, start=True)
        durably.use(with_log_persistence())
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        await durably.stop()

        (line,) = await durably.get_logs(result.id)
        assert line.data == stored

    async def test_an_announced_line_that_no_database_can_hold_stops_no_other(self, open_durably: OpenDurably) -> None:
        """P1: whoever announces it, it is stored with what can be held of it."""
        durably = await open_durably(plain)
        durably.use(with_log_persistence())
        run = await durably.jobs.plain.trigger(1)
        for message in ("cut \ud800", "after"):
            durably.emit(
                LogWriteEvent(
                    timestamp=run.created_at,
                    run_id=run.id,
                    job_name="plain",
                    labels={},
                    step_name=None,
                    level="info",
                    message=message,
                    data_json=None,
                )
            )
        await durably.stop()

        assert [line.message for line in await durably.get_logs(run.id)] == ["cut ?", "after"]

    @pytest.mark.parametrize("odd", ["endless", "unspeakable", "deep", "bytes", "message", "no text"])
    async def test_no_log_line_fails_the_job_or_anybody_else(self, open_durably: OpenDurably, odd: str) -> None:
        """S7: neither the job nor the log of other lines nor any other run."""
        endless: list[Any] = []
        endless.append(endless)
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        calls: dict[str, tuple[Any, ...]] = {
            "endless": ("m", endless),
            "unspeakable": ("m", {"a": Unspeakable()}),
            "deep": ("m", deep),
            "bytes": ("m", b"\xff\xfe"),
            "message": ("file \udcff \x00",),
            "no text": (Unspeakable(),),
        }

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            step.log.info(*calls[odd])
            await step.run("one", lambda: 1)
            step.log.info("after")

        durably = await open_durably(job, plain, start=True)
        durably.use(with_log_persistence())
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        assert await is_unharmed(durably)
        await durably.stop()

        lines = await durably.get_logs(result.id)
        assert len(lines) == 2
        assert lines[1].message == "after"

    async def test_without_the_plugin_nothing_is_stored(self, open_durably: OpenDurably) -> None:
        """P1: storing logs is the plugin's doing; the events are there without it."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            step.log.info("only told")

        durably = await open_durably(job, start=True)
        events = Events(durably)
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        await durably.stop()

        assert await durably.get_logs(result.id) == []
        assert [event.message for event in events.of("log:write")] == ["only told"]

    @pytest.mark.two_processes
    async def test_lines_are_stored_once_with_the_plugin_in_two_processes(self, open_durably: OpenDurably) -> None:
        """P1: the process that executes the run stores its lines."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            step.log.info("once")

        one, two = await open_durably(job, start=True), await open_durably(job, start=True)
        for durably in (one, two):
            durably.use(with_log_persistence())
        told = Events(two)
        ids = [(await one.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)).id for _ in range(5)]
        await told.until("run:complete", 5)
        await one.stop()
        await two.stop()

        assert [len(await one.get_logs(run_id)) for run_id in ids] == [1] * 5

    async def test_many_lines_are_stored_in_portions(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """P1: a step does not wait for thousands of lines, and one refusal does not lose all of them."""

        @define_job(name="noisy")
        async def noisy(step: StepContext, input: Any) -> None:
            for number in range(2_500):
                step.log.info(f"{number}")

        durably = await open_durably(noisy)
        durably.use(with_log_persistence())
        portions: list[int] = []
        append_logs = durably.storage.append_logs

        async def counted(logs: Sequence[Log], data_json: Sequence[str | None]) -> None:
            portions.append(len(logs))
            await append_logs(logs, data_json)

        monkeypatch.setattr(durably.storage, "append_logs", counted)
        run = await durably.jobs.noisy.trigger(None)
        await durably.process_one()

        assert [line.message for line in await durably.get_logs(run.id)] == [f"{number}" for number in range(2_500)]
        assert portions == [1_000, 1_000, 500]

    async def test_lines_are_stored_once_with_the_plugin_twice_in_one_instance(self, open_durably: OpenDurably) -> None:
        """P1: the second one is ignored, be it the same or one more."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            step.log.info("once")

        durably, plugin = await open_durably(job, start=True), with_log_persistence()
        durably.use(plugin).use(plugin).use(with_log_persistence())
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        assert [line.message for line in await durably.get_logs(result.id)] == ["once"]

    async def test_a_plugin_belongs_to_one_instance_at_a_time(self, open_durably: OpenDurably) -> None:
        """P1: shared, it would have stored the lines of both in one database, and those of the other nowhere."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            step.log.info("kept")

        first, second, plugin = await open_durably(job), await open_durably(job), with_log_persistence()
        first.use(plugin)
        with pytest.raises(
            ValidationError, match=r"log lines of <Durably on .* already: call with_log_persistence\(\) for"
        ):
            second.use(plugin)
        await first.close()
        second.use(plugin)
        run = await second.jobs.job.trigger(None)
        await second.process_one()

        assert [line.message for line in await second.get_logs(run.id)] == ["kept"]

    async def test_lines_whose_answer_was_lost_are_stored_once(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """P1: a batch that is sent again is the same batch, also to the database."""

        @define_job(name="logging")
        async def logging(step: StepContext, input: Any) -> None:
            step.log.info("line")

        durably = await open_durably(logging)
        durably.use(with_log_persistence())
        sent: list[list[Log]] = []

        async def never_answers(logs: Sequence[Log], data_json: Sequence[str | None]) -> None:
            sent.append(list(logs))
            if len(sent) == 1:
                raise StoreUnavailableError("the answer was lost")

        monkeypatch.setattr(durably.storage, "append_logs", never_answers)
        await durably.jobs.logging.trigger(None)
        await durably.process_one()
        await durably.stop()

        assert [line.message for line in sent[0]] == ["line"]
        assert sent == [sent[0], sent[0]]


class TestOverflow:
    async def test_what_is_left_out_of_a_log_that_cannot_keep_up_is_counted(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """S7, P1: who listens beside the job hears every line and stores it; who reads the log is told of the rest."""
        monkeypatch.setattr("durably.stores.sql.overflow._MOST_WAITING", 10)

        @define_job(name="noisy")
        async def noisy(step: StepContext, input: Any) -> None:
            for number in range(100):
                step.log.info(f"{number}")

        durably = await open_durably(noisy, start=True)
        durably.use(with_log_persistence())
        events = Events(durably)
        read: list[str] = []
        result = await durably.jobs.noisy.trigger_and_wait(
            None, timeout=PATIENCE_SECONDS, on_log=lambda line: read.append(line.message)
        )

        lines = [f"{number}" for number in range(100)]
        assert [event.message for event in events.of("log:write")] == lines
        assert [line.message for line in await durably.get_logs(result.id)] == lines
        assert read == lines[: len(read)]
        assert len(read) <= 10
        assert f"{100 - len(read)} events are missing in the log of events" in caplog.text
        assert caplog.text.count("are missing") == 1


async def test_a_run_that_is_read_shows_what_its_stream_told(open_durably: OpenDurably) -> None:
    """S7: in the process that executes it, although progress is stored a moment later only."""
    gate = Gate()

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        step.progress(1)
        await gate.pass_through()

    durably = await open_durably(job, start=True)
    run = await durably.jobs.job.trigger(None)
    stream = durably.subscribe(run.id)
    while (await anext(stream)).type != "run:progress":
        pass
    read = [await durably.get_run(run.id), *await durably.jobs.job.get_runs()]
    gate.open()
    await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)

    assert [each and each.progress for each in read] == [ProgressData(1)] * 2


async def test_a_cancelled_run_keeps_the_progress_that_was_read(open_durably: OpenDurably) -> None:
    """S7: the last value before the end is always stored."""
    gate = Gate()

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        step.progress(1)
        await gate.pass_through()

    durably = await open_durably(job, start=True)
    run = await durably.jobs.job.trigger(None)
    await gate.reached()
    await durably.cancel(run.id)
    cancelled = await durably.get_run(run.id)

    assert cancelled is not None
    assert cancelled.progress == ProgressData(1)


@pytest.mark.two_processes
async def test_a_run_that_came_further_elsewhere_shows_that(open_durably: OpenDurably) -> None:
    """S7: what it told here in an earlier execution is past."""
    gates = {attempt: Gate() for attempt in (1, 2, 3)}

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        if step.attempt < 3:
            step.progress(step.attempt)
            await step.run(f"{step.attempt}", lambda: None)
        await gates[step.attempt].pass_through()

    here, there = await open_durably(job), await open_durably(job)
    run = await here.jobs.job.trigger(None)
    for attempt, durably in enumerate((here, there), 1):
        await durably.start()
        await gates[attempt].reached()
        await durably.stop(timeout=0)
    await here.start()
    await gates[3].reached()
    read = await here.get_run(run.id)
    gates[3].open()
    await here.wait_for_run(run.id, timeout=PATIENCE_SECONDS)

    assert read is not None
    assert read.progress == ProgressData(2)


class TestPlugins:
    async def test_use_installs_and_returns_the_instance(self, open_durably: OpenDurably) -> None:
        """P1: `use(plugin)` calls `plugin.install(durably)`; one with `flush` is awaited on stop."""
        calls: list[Any] = []

        class Plugin:
            def install(self, durably: Durably) -> None:
                calls.append(durably)

            async def flush(self) -> None:
                await asyncio.sleep(0)
                calls.append("flushed")

        durably = await open_durably(plain)
        assert durably.use(Plugin()) is durably
        await durably.stop()

        assert calls == [durably, "flushed"]

    async def test_a_plugin_that_fails_takes_nothing_from_the_others(self, open_durably: OpenDurably) -> None:
        """P1: lines are stored all the same, and what it raised is raised."""
        closed: list[str] = []

        class Broken:
            def install(self, durably: Durably) -> None: ...

            async def flush(self) -> None:
                raise ValueError("broken flush")

            def close(self) -> None:
                closed.append("broken")
                raise ValueError("broken close")

        class Last:
            def install(self, durably: Durably) -> None: ...

            def close(self) -> None:
                closed.append("last")

        @define_job(name="logs")
        async def logs(step: StepContext, input: Any) -> None:
            step.log.info("line")

        durably = await open_durably(logs)
        durably.use(Broken()).use(with_log_persistence()).use(Last())
        run = await durably.jobs.logs.trigger(None)
        await durably.process_one()
        with pytest.raises(ValueError, match="broken flush"):
            await durably.stop()
        assert [line.message for line in await durably.storage.get_logs(run.id)] == ["line"]
        with pytest.raises(ValueError, match="broken close"):
            await durably.close()
        assert closed == ["broken", "last"]

    @pytest.mark.parametrize(
        "plugin",
        [object(), type(with_log_persistence()), with_log_persistence, SimpleNamespace(install=5), InstallsLater()],
        ids=["object", "its class", "its maker", "no function", "async def"],
    )
    async def test_what_is_no_plugin_is_refused(self, open_durably: OpenDurably, plugin: Any) -> None:
        """P1: with an error that says what a plugin is; nobody would await an `install` that is async."""
        durably = await open_durably(plain)

        with pytest.raises(ValidationError, match="install"):
            durably.use(plugin)


class TestCallbacks:
    async def test_trigger_and_wait_reports_everything_from_the_start(self, open_durably: OpenDurably) -> None:
        """R11: `on_progress` and `on_log`, sync or async, in order, nothing missed."""
        progress: list[ProgressData] = []
        lines: list[LogData] = []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            for n in range(50):
                step.progress(n)
                step.log.info(f"{n}", n)
            await step.run("one", lambda: step.log.warn("in a step"))

        async def on_log(line: LogData) -> None:
            await asyncio.sleep(0)
            lines.append(line)

        durably = await open_durably(job, start=True)
        await durably.jobs.job.trigger_and_wait(
            None, timeout=PATIENCE_SECONDS, on_progress=progress.append, on_log=on_log
        )

        assert progress == [ProgressData(n) for n in range(50)]
        assert lines == [
            *[LogData("info", f"{n}", n, None) for n in range(50)],
            LogData("warn", "in a step", None, "one"),
        ]

    @pytest.mark.two_processes
    async def test_wait_for_run_reports_what_another_process_executes(self, open_durably: OpenDurably) -> None:
        """R11, E4: the latest progress first, then what follows."""
        gate = Gate()
        progress: list[float] = []
        begun = asyncio.Event()

        def on_progress(data: ProgressData) -> None:
            progress.append(data.current)
            begun.set()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            step.progress(1)
            step.progress(2)
            await step.run("one", gate.pass_through)
            step.progress(3)

        here, there = await open_durably(job), await open_durably(job, start=True)
        run = await here.jobs.job.trigger(None)
        await gate.reached()
        waiting = asyncio.create_task(here.wait_for_run(run.id, timeout=PATIENCE_SECONDS, on_progress=on_progress))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await begun.wait()
        gate.open()
        await waiting

        assert progress[-2:] == [2, 3]
        assert progress == sorted(set(progress))
        await there.stop()

    @pytest.mark.parametrize("kind", ["sync", "async"])
    async def test_every_line_is_reported_before_a_failure_is_raised(
        self, open_durably: OpenDurably, kind: str
    ) -> None:
        """R11: the last lines tell why."""
        told: list[str] = []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            for n in range(20):
                step.log.info(f"{n}")
            raise ValueError("told to")

        def take(line: LogData) -> None:
            told.append(line.message)

        async def take_slowly(line: LogData) -> None:
            await asyncio.sleep(0)
            take(line)

        durably = await open_durably(job, start=True)
        with pytest.raises(RunFailedError, match="told to"):
            await durably.jobs.job.trigger_and_wait(
                None, timeout=PATIENCE_SECONDS, on_log=take if kind == "sync" else take_slowly
            )

        assert told == [f"{n}" for n in range(20)]

    @pytest.mark.parametrize("kind", ["sync", "async"])
    async def test_an_error_of_a_callback_is_reported_and_the_waiting_goes_on(
        self, open_durably: OpenDurably, kind: str
    ) -> None:
        """R11, E2: as that of a listener; a `TimeoutError` of its own is not taken for ours."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> str:
            step.log.info("one")
            step.log.info("two")
            return "done"

        def fail(line: LogData) -> None:
            raise TimeoutError(f"cannot take {line.message!r}")

        async def fail_later(line: LogData) -> None:
            await asyncio.sleep(0)
            fail(line)

        durably = await open_durably(job, start=True)
        reported: list[str] = []
        durably.on_error(lambda error, event: reported.append(f"{event.type}: {error}"))
        result = await durably.jobs.job.trigger_and_wait(
            None, timeout=PATIENCE_SECONDS, on_log=fail if kind == "sync" else fail_later
        )

        assert result.output == "done"
        assert reported == ["log:write: cannot take 'one'", "log:write: cannot take 'two'"]

    async def test_the_timeout_bounds_the_callbacks_too(self, open_durably: OpenDurably) -> None:
        """R11: one that does not return is cancelled then."""
        cancelled = asyncio.Event()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            step.log.info("line")

        async def never_return(line: LogData) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        durably = await open_durably(job, start=True)
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(TimeoutError, match="did not end within"):
                await durably.jobs.job.trigger_and_wait(None, timeout=1, on_log=never_return)

        assert cancelled.is_set()

    @pytest.mark.two_processes
    async def test_a_run_that_another_program_ends_without_events_ends_the_reporting(
        self, open_durably: OpenDurably, database: str
    ) -> None:
        """R11: polling finds its end, and callbacks wait for nothing that nobody will tell."""
        begun = asyncio.Event()
        durably = await open_durably(plain)
        run = await durably.jobs.plain.trigger(None)
        (claimed,) = await durably.storage.claim("elsewhere", ["plain"], 1, 60)
        # No event belongs to this write: the log may have a row for it that has nothing to tell.
        await durably.storage.save_progress(claimed.claim, '{"current":1}')
        waiting = asyncio.create_task(
            durably.wait_for_run(
                run.id, timeout=PATIENCE_SECONDS, polling_interval=0.05, on_progress=lambda _: begun.set()
            )
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            await begun.wait()
        ended = "status = 'completed', output = '7', completed_at = '2026-01-01T00:00:00.000Z'"
        await write(database, f"UPDATE durably_runs SET {ended}")

        assert (await waiting).output == 7
