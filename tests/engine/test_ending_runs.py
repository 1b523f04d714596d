"""R1: how an execution ends, what is told and freed then, and what may go wrong at the end."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from durably import RunCancelledError, RunStatus, StepContext, define_job
from durably.engine.abort import AbortSignal
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    return await step.run("one", lambda: input)


async def test_a_cancel_that_arrives_while_a_step_is_committed_ends_the_job(open_durably: OpenDurably) -> None:
    """S5: the commit holds, and what comes after the step is not begun."""
    later: list[asyncio.Task[None]] = []

    @define_job(name="job")
    async def job(step: StepContext, input: int) -> None:
        async def work() -> None:
            async def cancel() -> None:
                for _ in range(input):
                    await asyncio.sleep(0)
                await durably.cancel(step.run_id)

            later.append(asyncio.create_task(cancel()))

        await step.run("work", work)
        await asyncio.sleep(PATIENCE_SECONDS * 10)

    durably = await open_durably(job, max_concurrent_runs=10, start=True)
    events = Events(durably)
    for number in range(8):
        await durably.jobs.job.trigger(number)
    await events.until("run:cancel", 8)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await durably.stop()
    assert {run.status for run in await durably.get_runs()} == {RunStatus.CANCELLED}
    await asyncio.gather(*later)


async def test_what_is_called_at_the_end_of_a_run_may_fail(
    open_durably: OpenDurably, caplog: pytest.LogCaptureFixture
) -> None:
    """Its failure is logged and reaches neither who cancels nor the leases."""
    gate = Gate()

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> None:
        step.signal.on_abort(lambda: 1 / 0)
        step.signal.on_abort(step.throw_if_aborted)
        await gate.pass_through()

    durably = await open_durably(job, start=True)
    run = await durably.jobs.job.trigger(1)
    await gate.reached()
    waiting = asyncio.create_task(durably.wait_for_run(run.id))
    await asyncio.sleep(0)
    await durably.cancel(run.id)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(RunCancelledError):
            await waiting
        await durably.stop()
    assert [record.name for record in caplog.records if record.exc_info] == ["durably", "durably"]


async def test_an_output_that_is_refused_by_an_unstorable_name_fails_the_run(open_durably: OpenDurably) -> None:
    """R3: the message is made storable, else the run could never end."""

    @define_job(name="odd")
    async def odd(step: StepContext, input: Any) -> Any:
        return {"\ud800": {1, 2}}

    durably = await open_durably(odd)
    await durably.jobs.odd.trigger(1)
    await durably.process_one()
    (run,) = await durably.get_runs()
    assert run.status is RunStatus.FAILED


@pytest.mark.parametrize("input", ["works", "fails", "fails in a step"])
async def test_a_finished_run_is_freed_at_once(open_durably: OpenDurably, input: str) -> None:
    """It leaves no cycle behind: a busy worker would spend its time in the garbage collector."""
    signals: list[weakref.ref[AbortSignal]] = []

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> Any:
        signals.append(weakref.ref(step.signal))
        step.progress(1, 2)
        await step.run("one", lambda: input if input != "fails in a step" else 1 / 0)
        if input == "fails":
            raise ValueError(input)

    durably = await open_durably(job)
    await durably.jobs.job.trigger(input)
    gc.collect()
    gc.disable()
    try:
        assert await durably.process_one()
        await asyncio.sleep(0)
        assert [signal() for signal in signals] == [None]
    finally:
        gc.enable()


async def test_progress_after_the_end_is_none(open_durably: OpenDurably) -> None:
    """S7, E1: nothing is told of a run after its end, whatever the job left behind; and nothing is kept of it."""
    late: list[StepContext] = []

    @define_job(name="leaves")
    async def leaves(step: StepContext, input: Any) -> None:
        late.append(step)

    durably = await open_durably(leaves)
    events = Events(durably)
    await durably.jobs.leaves.trigger(1)
    await durably.process_one()
    late[0].progress(1)
    await asyncio.sleep(0)

    assert events.of("run:progress") == []
    left = weakref.ref(late.pop().signal)
    gc.collect()
    assert left() is None
