"""R1, S3: a run ends whatever its code raises; it neither hangs nor is executed again for the kind of an error."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Any

import pytest

from durably import (
    Durably,
    JobDefinition,
    Run,
    RunStatus,
    StepContext,
    SyncStepContext,
    ValidationError,
    create_durably,
    define_job,
)
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably


class OddError(BaseException):
    """An error that is no `Exception`, as some libraries have for what nobody should catch by accident."""


async def executed(durably: Durably, job: JobDefinition[Any, Any]) -> Run[Any]:
    """Return a run of `job` after its only execution."""
    run = await durably.get_job(job).trigger(None)
    await durably.process_one()
    found = await durably.get_run(run.id)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (GeneratorExit(), "GeneratorExit"),
        (OddError("odd"), "OddError: odd"),
        (BaseExceptionGroup("odd ones", [OddError()]), "OddError"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("in_step", [True, False], ids=["step", "job"])
async def test_an_error_that_is_no_exception(
    open_durably: OpenDurably, error: BaseException, message: str, *, in_step: bool
) -> None:
    """R1, S3: it fails the run, and the step that it came from, as any other."""

    async def fail() -> None:
        raise error

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        await (step.run("one", fail) if in_step else fail())

    durably = await open_durably(job)
    events = Events(durably)

    run = await executed(durably, job)

    assert (run.status, run.error) == (RunStatus.FAILED, message)
    assert [event.failed_step_name for event in events.of("run:fail")] == ["one" if in_step else ""]
    assert [event.error for event in events.of("step:fail")] == [message] * in_step


async def test_an_await_on_something_cancelled_after_a_task_group_that_failed(open_durably: OpenDurably) -> None:
    """S3: some versions of Python count a request to cancel that nobody made from then on."""

    async def fail() -> None:
        raise ValueError

    async def awaits_cancelled() -> None:
        sleeping = asyncio.create_task(asyncio.sleep(60))
        sleeping.cancel()
        await sleeping

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
        except* ValueError:
            pass
        with suppress(asyncio.CancelledError):
            await step.run("one", awaits_cancelled)

    durably = await open_durably(job, preserve_steps=True)
    run = await executed(durably, job)

    assert [(step.name, step.status, step.error) for step in await durably.get_steps(run.id)] == [
        ("one", "failed", "CancelledError")
    ]


@pytest.mark.parametrize(
    "error", [SystemExit(3), GeneratorExit(), StopIteration(), OddError("odd")], ids=lambda error: type(error).__name__
)
@pytest.mark.parametrize("where", ["job", "plain step", "async step", "plain step of an async job"])
async def test_an_error_in_a_thread(open_durably: OpenDurably, error: BaseException, where: str) -> None:
    """R1: also what no thread can hand over as it is; the message names it."""

    def fail() -> None:
        raise error

    async def fail_soon() -> None:
        raise error

    @define_job(name="job")
    def plain_job(step: SyncStepContext, input: Any) -> None:
        if where == "job":
            fail()
        step.run("one", fail if where == "plain step" else fail_soon)

    @define_job(name="job")
    async def async_job(step: StepContext, input: Any) -> None:
        await step.run("one", fail)

    durably = await open_durably(async_job if "async job" in where else plain_job)
    events = Events(durably)

    run = await executed(durably, durably.jobs.job.definition)

    assert run.status == RunStatus.FAILED
    assert type(error).__name__ in str(run.error)
    assert [event.step_name for event in events.of("step:fail")] == ([] if where == "job" else ["one"])


async def test_an_await_on_something_cancelled(open_durably: OpenDurably) -> None:
    """R1: nobody has cancelled the run."""

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        raise asyncio.CancelledError

    run = await executed(await open_durably(job), job)

    assert (run.status, run.error) == (RunStatus.FAILED, "CancelledError")


@pytest.mark.parametrize("where", ["job", "step"])
async def test_a_job_that_cancels_itself(open_durably: OpenDurably, where: str) -> None:
    """R1: the run fails; it is not executed again after each lease."""

    async def give_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        await (step.run("one", give_up) if where == "step" else give_up())

    run = await executed(await open_durably(job), job)

    assert (run.status, run.error) == (RunStatus.FAILED, "CancelledError")


@pytest.mark.parametrize("claims", ["worker", "process_one"])
def test_a_program_that_just_ends(database: str, claims: str) -> None:
    """R1, W4: `asyncio.run` cancels what is left. The run has not failed, another process resumes it."""
    gate = Gate()

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        await gate.pass_through()

    async def begin_and_leave() -> str:
        durably = create_durably(database=database, jobs={"job": job})
        ended.append(durably)
        await durably.migrate()
        run = await durably.jobs.job.trigger(None)
        if claims == "worker":
            await durably.start()
        else:
            kept.append(asyncio.create_task(durably.process_one()))
        await gate.reached()
        return run.id

    async def found_afterwards(run_id: str) -> Run[Any] | None:
        durably = create_durably(database=database)
        try:
            return await durably.get_run(run_id)
        finally:
            await durably.close()
            await ended[0].close()

    ended: list[Durably] = []
    kept: list[asyncio.Task[Any]] = []
    run = asyncio.run(found_afterwards(asyncio.run(begin_and_leave())))

    assert run is not None
    assert (run.status, run.error) == (RunStatus.LEASED, None)


async def test_a_program_that_cancels_everything(open_durably: OpenDurably, caplog: pytest.LogCaptureFixture) -> None:
    """R1, W4: as many do to end. The run has not failed, another process resumes it; that the worker ended is said."""
    gate = Gate()

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        await gate.pass_through()

    durably = await open_durably(job, start=True)
    run = await durably.jobs.job.trigger(None)
    await gate.reached()

    others = asyncio.all_tasks() - {asyncio.current_task()}
    for other in others:
        other.cancel()
    await asyncio.wait(others)

    found = await durably.get_run(run.id)
    assert found is not None
    assert found.status == RunStatus.LEASED
    assert "the worker was cancelled from outside: nothing is claimed here" in caplog.text


class TestStepsNobodyWaitsFor:
    """S3, E1: what a job leaves running when it returns comes too late for its run."""

    async def test_one_that_begins_after_the_end(self, open_durably: OpenDurably) -> None:
        """It is not performed, and its error says what to do."""
        performed: list[str] = []
        left: list[asyncio.Task[Any]] = []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            left.append(asyncio.create_task(begin_late(step)))

        async def begin_late(step: StepContext) -> None:
            await ended.wait()
            await step.run("late", lambda: performed.append("late"))

        ended = asyncio.Event()
        durably = await open_durably(job)
        events = Events(durably)
        run = await executed(durably, job)
        ended.set()

        with pytest.raises(ValidationError, match=r"step 'late' comes too late: job 'job' has ended run .*Await every"):
            await left[0]
        assert run.status == RunStatus.COMPLETED
        assert performed == []
        assert events.of("step:start", "worker:error") == []

    async def test_one_that_was_under_way(self, open_durably: OpenDurably) -> None:
        """Its result is not stored; nobody is told that the lease was lost."""
        gate = Gate()
        left: list[asyncio.Task[Any]] = []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            left.append(asyncio.create_task(step.run("late", gate.pass_through)))
            await gate.reached()

        durably = await open_durably(job, preserve_steps=True)
        events = Events(durably)
        run = await executed(durably, job)
        gate.open()

        with pytest.raises(ValidationError, match="step 'late' comes too late"):
            await left[0]
        assert run.status == RunStatus.COMPLETED
        assert await durably.storage.get_steps(run.id) == []
        assert events.of("worker:error") == []


@pytest.mark.parametrize("in_step", [True, False], ids=["step", "job"])
def test_an_interrupt_from_the_keyboard(database: str, *, in_step: bool) -> None:
    """S3: it ends the process and is no failure; the run goes on in the next one."""

    async def interrupt() -> None:
        raise KeyboardInterrupt

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        await (step.run("one", interrupt) if in_step else interrupt())

    durably = create_durably(database=database, jobs={"job": job}, preserve_steps=True)

    async def begin() -> None:
        await durably.migrate()
        await durably.jobs.job.trigger(None)
        await durably.process_one()

    async def look() -> None:
        (run,) = await durably.get_runs()
        assert (run.status, run.error) == (RunStatus.LEASED, None)
        assert await durably.get_steps(run.id) == []
        await durably.close()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(begin())
    asyncio.run(look())


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_an_exit_in_what_is_told_of_events(database: str, *, is_async: bool) -> None:
    """E2: a listener, a callback or an error handler that exits is reported and ends neither the run nor the loop."""
    reported: list[BaseException] = []

    def leave(told: Any) -> None:
        sys.exit(told.type if hasattr(told, "type") else "progress")

    async def leave_later(told: Any) -> None:
        leave(told)

    listener = leave_later if is_async else leave

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        step.progress(1)

    async def live() -> None:
        async with create_durably(database=database, jobs={"job": job}) as durably:
            durably.on("run:leased", listener)
            durably.on_error(lambda error, event: reported.append(error))
            durably.on_error(lambda error, event: listener(event))
            await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS, on_progress=listener)

    asyncio.run(live())

    assert [(type(error), str(error)) for error in reported] == [(SystemExit, "run:leased"), (SystemExit, "progress")]


def test_an_interrupt_from_the_keyboard_in_a_listener(database: str) -> None:
    """E2: it ends the process."""

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None: ...

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    durably = create_durably(database=database, jobs={"job": job})

    async def begin() -> None:
        await durably.migrate()
        durably.on("run:trigger", interrupt)
        await durably.jobs.job.trigger(None)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(begin())
    asyncio.run(durably.close())


async def test_the_log_says_where_a_job_failed(open_durably: OpenDurably, caplog: pytest.LogCaptureFixture) -> None:
    """S3: the run keeps the message of the error only."""

    def divide() -> float:
        return 1 / 0

    @define_job(name="divides")
    async def divides(step: StepContext, input: Any) -> float:
        return await step.run("divide", divide)

    with caplog.at_level("INFO", "durably"):
        run = await executed(await open_durably(divides), divides)

    assert f"run {run.id} of job 'divides' failed\nTraceback" in caplog.text
    assert "return 1 / 0" in caplog.text


async def test_a_step_in_a_task_of_its_own_that_exits_fails_its_run_and_nothing_else(open_durably: OpenDurably) -> None:
    """S3: as the error of a task it would end the event loop."""

    async def leave() -> None:
        sys.exit(3)

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        await asyncio.gather(step.run("one", leave), step.run("two", asyncio.sleep, 0))

    durably = await open_durably(job)
    events = Events(durably)

    run = await executed(durably, job)

    assert (run.status, run.error) == (RunStatus.FAILED, "SystemExit: 3")
    assert [event.failed_step_name for event in events.of("run:fail")] == ["one"]


async def test_callbacks_whose_await_was_cancelled_are_reported(open_durably: OpenDurably) -> None:
    """R11, E1: nobody cancelled who waits for the run, nor may the error be lost."""

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> int:
        step.progress(1)
        return 7

    async def await_what_is_cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    durably = await open_durably(job, start=True)
    reported: list[str] = []
    durably.on_error(lambda error, event: reported.append(event.type))
    durably.on("run:trigger", await_what_is_cancelled)
    result = await durably.jobs.job.trigger_and_wait(
        None, timeout=PATIENCE_SECONDS, on_progress=await_what_is_cancelled
    )

    assert result.output == 7
    assert sorted(reported) == ["run:progress", "run:trigger"]
