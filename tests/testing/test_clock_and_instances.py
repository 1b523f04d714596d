"""FakeClock, in_memory and run_until_idle: a user's test decides what time it is and when runs execute."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from durably import RunStatus, StepContext, SyncStepContext, ValidationError, define_job
from durably.testing import FakeClock, in_memory, run_until_idle


@define_job(name="double")
async def double(step: StepContext, input: int) -> int:
    return await step.run("double", lambda: 2 * input)


@define_job(name="plain-double")
def plain_double(step: SyncStepContext, input: int) -> int:
    return step.run("double", lambda: 2 * input)


@define_job(name="refuse")
async def refuse(step: StepContext, input: str) -> None:
    raise RuntimeError(f"no {input}")


def test_the_clock_stands_still_until_it_is_advanced():
    clock = FakeClock()

    before = clock.now(), clock.monotonic()
    assert (clock.now(), clock.monotonic()) == before

    clock.advance(minutes=1, seconds=30)
    assert clock.now() - before[0] == timedelta(seconds=90)
    assert clock.monotonic() - before[1] == 90


def test_the_wall_clock_can_jump_while_no_time_passes():
    clock = FakeClock(datetime(2026, 5, 1, tzinfo=UTC))

    clock.set_wall_clock(clock.now() - timedelta(days=1))

    assert clock.now() == datetime(2026, 4, 30, tzinfo=UTC)
    assert clock.monotonic() == 0


def test_the_clock_refuses_naive_times_and_a_negative_advance():
    with pytest.raises(ValidationError, match=r"Invalid start .* must be an aware datetime"):
        FakeClock(datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is refused
    with pytest.raises(ValidationError, match="Invalid now 5: must be an aware datetime"):
        FakeClock().set_wall_clock(5)
    with pytest.raises(ValidationError, match="set_wall_clock"):
        FakeClock().advance(seconds=-1)


@pytest.mark.parametrize("job", [double, plain_double], ids=lambda job: job.name)
async def test_a_run_is_executed_to_its_end_by_one_call(job):
    async with in_memory({"job": job}) as durably:
        run = await run_until_idle(durably, job, 21, labels={"org": "a"})

    assert (run.status, run.output, run.labels) == (RunStatus.COMPLETED, 42, {"org": "a"})


async def test_a_job_needs_no_registering_before():
    async with in_memory() as durably:
        assert (await run_until_idle(durably, double, 2)).output == 4


async def test_a_failing_job_gives_its_failed_run():
    async with in_memory() as durably:
        run = await run_until_idle(durably, refuse, "entry")

    assert (run.status, run.error) == (RunStatus.FAILED, "no entry")


async def test_without_a_worker_nothing_runs_by_itself():
    async with in_memory({"double": double}) as durably:
        triggered = await durably.jobs.double.trigger(1)
        with pytest.raises(TimeoutError):
            await durably.wait_for_run(triggered.id, timeout=0.05)


async def test_with_a_worker_runs_execute_as_in_production():
    async with in_memory({"double": double}, worker=True) as durably:
        assert (await durably.jobs.double.trigger_and_wait(1, timeout=30)).output == 2


@pytest.mark.parametrize("worker", [False, True], ids=["side by side", "beside a worker"])
async def test_a_run_that_somebody_else_has_taken_is_waited_for(worker):
    async with in_memory({"double": double}, worker=worker) as durably:
        runs = await asyncio.gather(*[run_until_idle(durably, double, n) for n in range(3)])

    assert [(run.status, run.output) for run in runs] == [("completed", 0), ("completed", 2), ("completed", 4)]


async def test_a_run_whose_holder_is_gone_is_not_waited_for():
    async with in_memory({"double": double}) as durably:
        await durably.jobs.double.trigger(1, idempotency_key="once")
        await durably.storage.claim("a lost process", ["double"], 1, 30)

        run = await run_until_idle(durably, double, 1, idempotency_key="once")

    assert run.status == "leased"


async def test_time_decides_which_runs_are_purged():
    clock = FakeClock()
    async with in_memory(clock=clock) as durably:
        await run_until_idle(durably, double, 1)
        assert await durably.purge_runs(older_than="30d") == 0

        clock.advance(days=31)

        assert await durably.purge_runs(older_than="30d") == 1


async def test_a_run_that_ended_this_instant_is_purged_with_no_age_given():
    """R10: `"0s"` means all that have ended, however fast the machine is."""
    async with in_memory(clock=FakeClock()) as durably:
        await run_until_idle(durably, double, 1)

        assert await durably.purge_runs(older_than="0s") == 1


async def test_a_failing_test_does_not_wait_for_jobs_that_wait_for_it():
    @define_job(name="endless")
    async def endless(step: StepContext, input: None) -> None:
        await step.signal.wait()

    async def a_test_that_fails() -> None:
        async with in_memory({"endless": endless}, worker=True) as durably:
            await durably.jobs.endless.trigger(None)
            raise AssertionError("the test has failed")

    with pytest.raises(AssertionError, match="the test has failed"):
        await a_test_that_fails()
