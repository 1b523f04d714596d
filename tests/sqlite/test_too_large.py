"""S1, S3, R1: what SQLite can never take, because it is larger than its limit, fails where it was made, for good."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from typing import Any

import pytest

from durably import (
    Durably,
    JobDefinition,
    StepContext,
    SyncStepContext,
    ValueRefusedError,
    WorkerErrorEvent,
    define_job,
)
from durably.core.leases import Claim
from durably.core.store import StepRecord
from tests.conftest import PATIENCE_SECONDS, Events, OpenDurably

LIMIT = 300_000


def lower_the_limit(durably: Durably) -> None:
    """Let the database take values of so many bytes only; by itself it takes a billion."""
    durably.storage.connections.writing.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LIMIT)  # type: ignore[attr-defined]


def letters(count: int) -> str:
    return "x" * count


@define_job(name="in-a-step")
async def in_a_step(step: StepContext, input: int) -> int:
    step.progress(1, message="before")
    return len(await step.run("fetch", letters, input))


@define_job(name="in-a-plain-step")
def in_a_plain_step(step: SyncStepContext, input: int) -> int:
    step.progress(1, message="before")
    return len(step.run("fetch", letters, input))


@define_job(name="as-output")
async def as_output(step: StepContext, input: int) -> str:
    step.progress(1, message="before")
    return letters(input)


@pytest.mark.parametrize("job", [in_a_step, in_a_plain_step], ids=["async", "plain"])
async def test_a_result_that_is_too_large_fails_its_step(
    open_durably: OpenDurably, job: JobDefinition[int, int]
) -> None:
    """S3: the error names the step and its size, and says what to do; nothing is executed a second time."""
    durably = await open_durably(job, preserve_steps=True)
    lower_the_limit(durably)
    events = Events(durably)
    run = await durably.get_job(job).trigger(LIMIT)
    await durably.process_until_idle()

    found = await durably.get_run(run.id)
    assert found is not None
    assert found.status == "failed"
    assert found.error is not None
    assert found.error.startswith("result of step 'fetch' cannot be stored, it is 300,002 characters of JSON: ")
    assert "takes no value of this size" in found.error
    assert found.error.endswith("Store it elsewhere and return where it is")
    assert found.progress is not None
    assert found.progress.message == "before"
    assert [step.status for step in await durably.get_steps(run.id)] == ["failed"]
    assert [event.error for event in events.of("step:fail", "run:fail", "worker:error")] == [found.error] * 2
    assert events.of("run:fail")[0].failed_step_name == "fetch"


async def test_a_job_can_do_something_else_with_it(open_durably: OpenDurably) -> None:
    """S3: the error is an ordinary exception, and other steps are stored."""

    @define_job(name="careful")
    async def careful(step: StepContext, input: int) -> str:
        try:
            return await step.run("fetch", letters, input)
        except ValueRefusedError:
            return await step.run("upload", lambda: "s3://results/1")

    durably = await open_durably(careful, start=True)
    lower_the_limit(durably)

    finished = await durably.jobs.careful.trigger_and_wait(LIMIT, timeout=PATIENCE_SECONDS)
    assert finished.output == "s3://results/1"


async def test_an_output_that_is_too_large_fails_its_run(open_durably: OpenDurably) -> None:
    """R1: for good, and with the last progress."""
    durably = await open_durably(as_output)
    lower_the_limit(durably)
    events = Events(durably)
    run = await durably.jobs.as_output.trigger(LIMIT)
    await durably.process_until_idle()

    found = await durably.get_run(run.id)
    assert found is not None
    assert found.status == "failed"
    assert found.error is not None
    assert found.error.startswith("output cannot be stored, it is 300,002 characters of JSON: ")
    assert found.progress is not None
    assert [event.error for event in events.of("run:fail", "run:complete", "worker:error")] == [found.error]


async def test_messages_are_shortened(open_durably: OpenDurably) -> None:
    """S3, S7: the failure itself can always be stored, and progress does not fail a step."""

    @define_job(name="wordy")
    async def wordy(step: StepContext, input: int) -> None:
        step.progress(1, message=letters(input))
        await step.run("fetch", lambda: 1)
        raise ValueError(letters(input))

    durably = await open_durably(wordy)
    lower_the_limit(durably)
    run = await durably.jobs.wordy.trigger(LIMIT)
    await durably.process_until_idle()

    found = await durably.get_run(run.id)
    assert found is not None
    assert found.error == letters(100_000) + "... (200,000 more characters)"
    assert found.progress is not None
    assert found.progress.message == found.error
    assert found.completed_step_count == 1


async def test_a_trigger_is_refused_to_its_caller(open_durably: OpenDurably) -> None:
    """R3: and nothing is stored."""

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None: ...

    durably = await open_durably(job)
    lower_the_limit(durably)

    with pytest.raises(ValueRefusedError, match=r"jobs\.db takes no value of this size"):
        await durably.jobs.job.trigger(letters(LIMIT))
    assert await durably.get_runs() == []


class TestOthers:
    async def test_who_shares_the_transaction_is_stored(self, open_durably: OpenDurably) -> None:
        """D3: also where only what all have to tell is too large together."""
        together = asyncio.Barrier(4)

        @define_job(name="side-by-side")
        async def side_by_side(step: StepContext, input: int) -> int:
            await step.run("meet", together.wait)
            return len(await step.run("fetch", letters, input))

        durably = await open_durably(side_by_side)
        lower_the_limit(durably)
        await durably.jobs.side_by_side.batch_trigger([LIMIT, *([LIMIT // 3] * 3)])
        await durably.process_until_idle()

        runs = await durably.get_runs()
        assert sorted((run.status, run.output) for run in runs if run.output) == [("completed", LIMIT // 3)] * 3
        assert [run.input for run in runs if run.status == "failed"] == [LIMIT]

    async def test_an_event_that_is_too_large_holds_nothing_up(
        self, open_durably: OpenDurably, caplog: pytest.LogCaptureFixture
    ) -> None:
        """D3: it would go along with every write that follows, and have it refused."""
        durably = await open_durably(in_a_step)
        lower_the_limit(durably)
        huge = WorkerErrorEvent(timestamp=datetime.now(UTC), error=letters(LIMIT), context="test")
        durably.storage.announce(huge)

        await durably.jobs.in_a_step.trigger(1)
        await durably.process_until_idle()

        assert [run.output for run in await durably.get_runs()] == [1]
        assert "1 events are missing in the log of events" in caplog.text

    async def test_a_number_beyond_the_driver_is_refused_as_well(self, open_durably: OpenDurably) -> None:
        """D3: Python's driver has a limit of its own, for long texts too, and an error of its own."""
        durably = await open_durably(in_a_step)
        now = datetime.now(UTC)
        step = StepRecord("1", "fetch", 2**64, "1", None, now, now)
        event = WorkerErrorEvent(timestamp=now, error="", context="test")

        with pytest.raises(ValueRefusedError):
            await durably.storage.record_step(Claim("nobody", 1, "me", now), step, None, event)


@define_job(name="given")
async def given(step: StepContext, input: str) -> int:
    return len(input)


async def test_runs_whose_inputs_are_too_large_together_are_claimed_one_by_one(open_durably: OpenDurably) -> None:
    """L1: each could be stored, so each is executed."""
    durably = await open_durably(given, max_concurrent_runs=3)
    lower_the_limit(durably)
    size = LIMIT * 2 // 5
    for _ in range(5):
        await durably.jobs.given.trigger(letters(size))

    assert await durably.process_until_idle() == 5
    assert [run.output for run in await durably.get_runs()] == [size] * 5
