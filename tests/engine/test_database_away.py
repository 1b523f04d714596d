"""W3, S7: a database that goes away, comes back, or is beyond help: what is tried again, and what is given up."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from durably import (
    Durably,
    LeaseLostError,
    StepContext,
    StoreError,
    StoreUnavailableError,
    ValueRefusedError,
    create_durably,
    define_job,
    with_log_persistence,
)
from durably.testing import FakeClock
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably
from tests.engine.scenes import fail, give_to_another, job, poll


async def test_a_database_that_goes_away_is_looked_for_again(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W3: the worker tells, backs off with jitter, goes on by itself, and has lost nothing."""
    durably = await open_durably(job)
    events = Events(durably)
    claim, failures = durably.storage.claim, [StoreUnavailableError("gone")] * 3

    async def flaky(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await claim(*args, **kwargs)

    monkeypatch.setattr(durably.storage, "claim", flaky)
    run = await durably.jobs.job.trigger(1)
    await durably.start()

    assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == 1
    assert [event.error for event in events.of("worker:error")] == ["cannot look for work, trying again: gone"] * 3


async def test_an_unexpected_error_does_not_stop_the_worker(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W3: whatever a store or a row throws, errors become `worker:error` and never stop the loop."""
    durably = await open_durably(job)
    events = Events(durably)
    claim, failures = durably.storage.claim, [ValueError("a row that cannot be read")]

    async def flaky(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await claim(*args, **kwargs)

    monkeypatch.setattr(durably.storage, "claim", flaky)
    run = await durably.jobs.job.trigger(1)
    await durably.start()

    assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == 1
    assert "a row that cannot be read" in (await events.until("worker:error")).error


@pytest.mark.parametrize("error", [StoreError("broken"), ValueError("unexpected")], ids=repr)
async def test_maintenance_that_fails_is_told_and_tried_again(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, clock: FakeClock, error: Exception
) -> None:
    """W3: it stops nobody."""
    durably = await open_durably(job, clock=clock)
    events = Events(durably)

    async def fail() -> int:
        raise error

    monkeypatch.setattr(durably.storage, "recover_expired", fail)
    await durably.start()
    told = await events.until("worker:error")
    assert (told.context, str(error) in told.error) == ("maintenance", True)
    assert (await durably.jobs.job.trigger_and_wait(1, timeout=PATIENCE_SECONDS)).output == 1

    clock.advance(minutes=2)
    await poll(durably)
    await events.until("worker:error", 2)


@pytest.mark.parametrize("verb", ["record_step", "finish"])
async def test_a_checkpoint_is_written_again_while_the_database_is_away(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """S1, W3: the step does not run again, it waits."""
    executed: list[int] = []

    @define_job(name="counted")
    async def counted(step: StepContext, input: Any) -> Any:
        await step.run("one", lambda: executed.append(1))
        return "done"

    durably = await open_durably(counted)
    write, failures = getattr(durably.storage, verb), [StoreUnavailableError("gone")] * 2

    async def flaky(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await write(*args, **kwargs)

    monkeypatch.setattr(durably.storage, verb, flaky)
    events = Events(durably)
    run = await durably.jobs.counted.trigger(None)
    await durably.process_one()

    assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == "done"
    assert executed == [1]
    assert len(events.of("worker:error")) == 2


@pytest.mark.parametrize("verb", ["record_step", "finish", "load_checkpoints"])
async def test_a_store_beyond_help_gives_the_run_up(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, clock: FakeClock, verb: str
) -> None:
    """S1: nothing is pretended; when the lease ends the run goes on."""
    durably = await open_durably(job, clock=clock)
    events = Events(durably)
    run = await durably.jobs.job.trigger(1)
    if verb == "load_checkpoints":
        await durably.storage.claim("dead", ["job"], 1, 1)
        clock.advance(seconds=1)

    async def fail(*args: Any, **kwargs: Any) -> Any:
        raise StoreError("damaged")

    with monkeypatch.context() as broken:
        broken.setattr(durably.storage, verb, fail)
        await durably.process_one()
    found = await durably.get_run(run.id)
    assert found is not None
    assert found.status in ("leased", "pending")
    assert events.of("run:fail", "run:complete") == []
    (told,) = events.of("worker:error")
    assert told.run_id == run.id
    assert "damaged" in told.error
    clock.advance(minutes=1)
    assert await durably.process_one()
    assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == 1


@pytest.mark.parametrize("input", ["works", "fails", "fails in a step", "works in a step"])
async def test_a_store_that_refuses_even_a_failure_gives_the_run_up(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, input: str
) -> None:
    """S1: as a server that takes nothing at all; it is told once, and the run goes on when the lease ends."""

    @define_job(name="refused")
    async def refused(step: StepContext, input: str) -> None:
        if "step" in input:
            await step.run("one", lambda: 1 / (input == "works in a step"))
        elif input == "fails":
            raise ValueError(input)

    durably = await open_durably(refused)
    events = Events(durably)
    run = await durably.jobs.refused.trigger(input)

    async def refuse(*args: Any, **kwargs: Any) -> Any:
        raise ValueRefusedError("takes nothing")

    monkeypatch.setattr(durably.storage, "record_step", refuse)
    monkeypatch.setattr(durably.storage, "finish", refuse)
    await durably.process_one()

    found = await durably.get_run(run.id)
    assert found is not None
    assert found.status == "leased"
    assert events.of("run:fail", "run:complete", "step:fail", "step:complete") == []
    (told,) = events.of("worker:error")
    assert "is executed again when its lease has ended, because it cannot be written: takes nothing" in told.error


async def test_the_last_progress_is_stored_whatever_became_of_the_write_before(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S7: the end of the run does not rely on a write that is under way and fails."""
    monkeypatch.setattr("durably.engine.progress._STORE_SECONDS", 0.0)
    gate, ending = Gate(), asyncio.Event()

    @define_job(name="tells")
    async def tells(step: StepContext, input: Any) -> None:
        step.progress(5, 5)
        await gate.reached()

    async def fails(*args: Any) -> bool:
        await gate.pass_through()
        raise StoreUnavailableError("gone")

    durably = await open_durably(tells)
    monkeypatch.setattr(durably.storage, "save_progress", fails)
    run = await durably.jobs.tells.trigger(1)
    executing = asyncio.create_task(durably.process_one())
    await gate.reached()
    asyncio.get_running_loop().call_later(0.05, ending.set)
    await ending.wait()
    gate.open()
    await executing

    found = await durably.get_run(run.id)
    assert found is not None
    assert found.progress is not None
    assert found.progress.current == 5


async def test_logs_wait_while_the_database_is_away(open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: lines are stored when it is back."""
    monkeypatch.setattr("durably.log_persistence._RETRY_SECONDS", 0.01)
    durably = await open_durably(job)
    durably.use(with_log_persistence())
    append, failures = durably.storage.append_logs, [StoreUnavailableError("gone")] * 2

    async def flaky(*args: Any) -> None:
        if failures:
            raise failures.pop()
        await append(*args)

    monkeypatch.setattr(durably.storage, "append_logs", flaky)
    run = await durably.jobs.job.trigger(1)
    await durably.process_one()
    await durably.stop()

    assert [line.message for line in await durably.get_logs(run.id)] == ["line"]


@pytest.mark.parametrize("is_silent", [False, True], ids=["refusing", "silent"])
async def test_a_database_that_stays_away_holds_up_neither_stop_nor_close(
    open_durably: OpenDurably,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_silent: bool,
) -> None:
    """P1: lines that are lost are counted in the log; a database that gives no answer is away too."""
    monkeypatch.setattr("durably.plugins._SHORTEST_FLUSH_SECONDS", 0.05)
    durably = await open_durably(job)
    durably.use(with_log_persistence())

    async def be_away(*args: Any) -> None:
        if is_silent:
            await asyncio.Event().wait()
        raise StoreUnavailableError("gone")

    monkeypatch.setattr(durably.storage, "append_logs", be_away)
    await durably.jobs.job.batch_trigger([1, 2])
    assert await durably.process_until_idle() == 2
    async with asyncio.timeout(PATIENCE_SECONDS):
        await durably.stop(timeout=0.05)
        assert "stopped before every plugin had stored what it holds" in caplog.text
        assert "are lost" not in caplog.text
        await durably.close()

    assert "2 log lines are lost" in caplog.text


async def test_whoever_waits_and_listens_begins_when_the_database_is_back(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11: with callbacks too; the run goes on, or is resumed, and its end is told."""
    gate = Gate()

    @define_job(name="gated")
    async def gated(step: StepContext, input: int) -> int:
        await gate.pass_through()
        step.progress(7)
        return input

    durably = await open_durably(gated, start=True)
    run = await durably.jobs.gated.trigger(1)
    await gate.reached()
    snapshot, failures = durably.storage.snapshot, [StoreUnavailableError("gone")] * 2

    async def flaky(run_id: str) -> Any:
        if failures:
            raise failures.pop()
        found = await snapshot(run_id)
        gate.open()
        return found

    monkeypatch.setattr(durably.storage, "snapshot", flaky)
    seen: list[float] = []
    ended = await durably.wait_for_run(run.id, on_progress=lambda progress: seen.append(progress.current))

    assert (ended.output, seen) == (1, [7])


async def test_reading_logs_fails_while_the_database_is_away(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: what a run has told is not known then; nobody waits for the database to come back."""
    durably = await open_durably(job)
    durably.use(with_log_persistence())

    async def be_away(*args: Any) -> None:
        raise StoreUnavailableError("gone")

    run = await durably.jobs.job.trigger(1)
    with monkeypatch.context() as away:
        away.setattr(durably.storage, "append_logs", be_away)
        await durably.process_one()
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(StoreUnavailableError, match="gone"):
                await durably.get_logs(run.id)

    assert [line.message for line in await durably.get_logs(run.id)] == ["line"]


async def test_lines_are_counted_also_when_the_event_loop_ends_without_a_close(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: nothing is lost without a word."""
    monkeypatch.setattr("durably.plugins._SHORTEST_FLUSH_SECONDS", 0.05)

    async def be_away(*args: Any) -> None:
        raise StoreUnavailableError("gone")

    async def forget_to_close() -> None:
        durably = create_durably(database=database, jobs={"job": job})
        durably.use(with_log_persistence())
        await durably.migrate()
        monkeypatch.setattr(durably.storage, "append_logs", be_away)
        await durably.jobs.job.trigger(1)
        await durably.process_one()
        await durably.stop(timeout=0.05)
        instances.append(durably)

    instances: list[Durably] = []
    await asyncio.to_thread(asyncio.run, forget_to_close())

    assert "1 log lines are lost" in caplog.text
    await instances[0].storage.close()


async def test_logs_that_cannot_be_stored_are_said_to_be_lost(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: the run is not harmed; too many waiting lines are dropped, and that is said too."""
    monkeypatch.setattr("durably.log_persistence._MOST_WAITING", 2)
    durably = await open_durably(job)
    durably.use(with_log_persistence())

    async def fail(*args: Any) -> None:
        raise StoreError("damaged")

    monkeypatch.setattr(durably.storage, "append_logs", fail)
    for run in await durably.jobs.job.batch_trigger([1, 2, 3]):
        assert run.status == "pending"
    assert await durably.process_until_idle() == 3
    await durably.stop()

    assert "2 log lines are lost" in caplog.text
    assert "damaged" in caplog.text
    assert "1 log lines were dropped" in caplog.text


async def test_a_job_that_catches_a_broken_store_starts_no_further_step(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1: once a step could not be stored, none after it may run."""
    seen: list[Any] = []

    @define_job(name="stubborn")
    async def stubborn(step: StepContext, input: Any) -> None:
        try:
            await step.run("one", lambda: 1)
        except StoreError as error:
            seen.append(str(error))
        try:
            await step.run("two", lambda: seen.append("executed"))
        except LeaseLostError:
            seen.append("refused")

    durably = await open_durably(stubborn)
    run = await durably.jobs.stubborn.trigger(None)
    monkeypatch.setattr(durably.storage, "record_step", fail)
    await durably.process_one()

    assert seen == ["damaged", "refused"]
    found = await durably.get_run(run.id)
    assert found is not None
    assert found.status == "leased"


async def test_checkpoints_that_cannot_be_read_nor_the_run_given_back(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """S4: the run is not executed from the start; it is free when its lease ends."""
    durably = await open_durably(job, clock=clock)
    run = await durably.jobs.job.trigger(1)
    await durably.storage.claim("dead", ["job"], 1, 1)
    clock.advance(seconds=1)
    with monkeypatch.context() as broken:
        broken.setattr(durably.storage, "load_checkpoints", fail)
        broken.setattr(durably.storage, "release", fail)
        assert await durably.process_one()
    clock.advance(minutes=1)

    assert await durably.process_one()
    assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).lease_generation == 3


async def test_checkpoints_are_read_again_when_the_database_was_away(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """W3: a run that was claimed is not left to the end of its lease because one read failed."""
    durably = await open_durably(job, clock=clock)
    events = Events(durably)
    run = await durably.jobs.job.trigger(1)
    await durably.storage.claim("dead", ["job"], 1, 1)
    clock.advance(seconds=1)
    read = durably.storage.load_checkpoints
    answers: list[Any] = [StoreUnavailableError("away")] * 2

    async def read_at_last(run_id: str) -> dict[str, str | None]:
        if answers:
            raise answers.pop()
        return await read(run_id)

    monkeypatch.setattr(durably.storage, "load_checkpoints", read_at_last)
    assert await durably.process_one()

    assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).lease_generation == 2
    assert len([event for event in events.of("worker:error") if "trying again: away" in event.error]) == 2


async def test_why_a_write_was_refused_is_asked_again_when_the_database_was_away(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L2: a job whose lease is lost never sees that the reason could not be read."""
    seen: list[BaseException] = []

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        await give_to_another(durably.storage, run.id)
        try:
            await step.run("late", lambda: 1)
        except BaseException as error:
            seen.append(error)
            raise

    durably = await open_durably(held, lease_duration=60, lease_renew_interval=50)
    run = await durably.jobs.held.trigger(None)
    read = durably.storage.get_run
    answers: list[Any] = [StoreUnavailableError("away")]

    async def read_at_last(run_id: str) -> Any:
        held_by = await read(run_id)
        if held_by is not None and held_by.lease_owner == "thief" and answers:
            raise answers.pop()
        return held_by

    monkeypatch.setattr(durably.storage, "get_run", read_at_last)
    await durably.process_one()

    assert answers == []
    assert [type(error) for error in seen] == [LeaseLostError]


@pytest.mark.parametrize("error", [ValueError("unexpected"), LeaseLostError("run")], ids=repr)
async def test_an_error_of_the_worker_itself_stops_nobody(
    open_durably: OpenDurably,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    clock: FakeClock,
    error: BaseException,
) -> None:
    """W3: whatever happens around one run, the next one is executed."""

    async def throw(*args: Any) -> Any:
        raise error

    durably = await open_durably(job, clock=clock)
    await durably.jobs.job.trigger(1)
    await durably.storage.claim("dead", ["job"], 1, 1)
    clock.advance(seconds=1)
    with monkeypatch.context() as broken:
        broken.setattr(durably.storage, "load_checkpoints", throw)
        await durably.process_one()
    second = await durably.jobs.job.trigger(2)
    await durably.process_one()

    assert (await durably.wait_for_run(second.id, timeout=PATIENCE_SECONDS)).output == 2
    assert repr(error) in caplog.text


async def test_progress_that_could_not_be_stored_is_stored_with_the_end(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S7: the last value is always stored."""
    gate, tried = Gate(), asyncio.Event()

    async def away(*args: Any) -> bool:
        tried.set()
        raise StoreUnavailableError("away")

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        step.progress(7)
        await gate.pass_through()

    durably = await open_durably(held)
    monkeypatch.setattr(durably.storage, "save_progress", away)
    run = await durably.jobs.held.trigger(None)
    processing = asyncio.create_task(durably.process_one())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await tried.wait()
        gate.open()
        await processing

    found = await durably.get_run(run.id)
    assert found is not None
    assert found.progress is not None
    assert found.progress.current == 7


@pytest.mark.parametrize("ends", ["well", "with an error"])
async def test_progress_that_went_with_a_step_that_was_given_up_is_stored_later(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """S7: the last value is always stored."""

    async def end() -> int:
        return 1 if ends == "well" else 1 // 0

    @define_job(name="gives-up")
    async def gives_up(step: StepContext, input: None) -> None:
        step.progress(7, 10)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await step.run("one", end)

    async def is_away(*args: Any) -> bool:
        raise StoreUnavailableError("away")

    durably = await open_durably(gives_up)
    monkeypatch.setattr(durably.storage, "record_step", is_away)
    run = await durably.jobs.gives_up.trigger(None)
    await durably.process_one()

    found = await durably.get_run(run.id)
    assert found is not None
    assert found.progress is not None
    assert found.progress.current == 7
