"""D3, S1: writes that share a commit share nothing else."""

from __future__ import annotations

import asyncio

import pytest

from durably import JobHandle, Run, StepContext, StoreError, define_job
from tests.conftest import PATIENCE_SECONDS, Events, OpenDurably

RUNS = 60


@pytest.mark.two_processes
@pytest.mark.parametrize("gone", [(0,), (17,), (RUNS - 1,), (3, 4, 30, 58)])
async def test_a_run_that_is_gone_takes_nothing_of_its_group_with_it(
    open_durably: OpenDurably, gone: tuple[int, ...]
) -> None:
    """S1, S5: the steps of the others are stored, once, and told of, once."""
    inside: set[int] = set()
    all_inside, opened = asyncio.Event(), asyncio.Event()

    async def arrive_together(number: int) -> int:
        inside.add(number)
        if len(inside) == RUNS:
            all_inside.set()
        await opened.wait()
        return number

    async def add_one(number: int) -> int:
        return number + 1

    @define_job(name="together")
    async def together(step: StepContext, input: int) -> int:
        first: int = await step.run("first", arrive_together, input)
        second: int = await step.run("second", add_one, first)
        return second

    worker = await open_durably(together, max_concurrent_runs=RUNS, preserve_steps=True)
    elsewhere = await open_durably(together)
    events = Events(worker)
    runs: list[Run[int]] = list(await worker.jobs.together.batch_trigger(list(range(RUNS))))
    await worker.start()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await all_inside.wait()
    worker.storage.unfollow()  # it must not hear of the cancellation before it writes
    for number in gone:
        await elsewhere.cancel(runs[number].id)
    opened.set()
    await worker.stop()

    for number, run in enumerate(runs):
        ended = await elsewhere.get_run(run.id)
        assert ended is not None
        steps = [(step.name, step.output) for step in await elsewhere.get_steps(run.id)]
        if number in gone:
            assert (ended.status, steps) == ("cancelled", [])
        else:
            assert (ended.status, ended.output, ended.completed_step_count) == ("completed", number + 1, 2)
            assert steps == [("first", number), ("second", number + 1)]
    started_second = {event.run_id for event in events.of("step:start") if event.step_name == "second"}
    assert started_second == {run.id for number, run in enumerate(runs) if number not in gone}


async def test_who_writes_while_the_database_is_closed_is_told_so(open_durably: OpenDurably) -> None:
    """W5: a write is stored or refused, and nobody waits for ever."""

    @define_job(name="job")
    async def job(step: StepContext, input: int) -> None:
        pass

    for _ in range(5):
        durably = await open_durably(job)
        await durably.jobs.job.trigger(0)

        async def write_on(handle: JobHandle[int, None] = durably.jobs.job) -> None:
            while True:
                await handle.trigger(1)

        writers = [asyncio.create_task(write_on()) for _ in range(3)]
        await durably.jobs.job.trigger(2)
        await durably.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            errors = await asyncio.gather(*writers, return_exceptions=True)
        assert [type(error) for error in errors] == [StoreError] * 3
