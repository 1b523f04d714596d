"""E2: what a listener may raise, and what it may wait for."""

from __future__ import annotations

import asyncio
from typing import Any

from durably import LogWriteEvent, RunStatus, StepContext, SyncStepContext, define_job
from tests.conftest import PATIENCE_SECONDS, OpenDurably


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    return await step.run("one", lambda: input)


async def test_a_listener_that_raises_a_cancellation_is_reported(open_durably: OpenDurably) -> None:
    """E2: it is an error of the listener and ends nothing."""
    durably = await open_durably(job)
    reported: list[Any] = []

    def broken(event: Any) -> None:
        raise asyncio.CancelledError

    for event_type in ("run:trigger", "step:start", "step:complete", "run:complete"):
        durably.on(event_type, broken)
    durably.on_error(lambda error, event: reported.append(event.type))
    run = await durably.jobs.job.trigger(1)
    await durably.process_one()
    assert (await durably.get_run(run.id)).status is RunStatus.COMPLETED
    assert reported == ["run:trigger", "step:start", "step:complete", "run:complete"]


async def test_a_listener_of_what_a_plain_job_tells_may_wait_for_its_run(open_durably: OpenDurably) -> None:
    """R11: it is not the job, whose thread waits for nobody here."""
    ended: list[str] = []

    @define_job(name="plain")
    def plain(step: SyncStepContext, input: None) -> None:
        step.log.info("begun")

    durably = await open_durably(plain, start=True)
    told = asyncio.Event()

    @durably.on("log:write")
    async def wait(event: LogWriteEvent) -> None:
        ended.append((await durably.wait_for_run(event.run_id, timeout=PATIENCE_SECONDS)).status)
        told.set()

    await durably.jobs.plain.trigger(None)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await told.wait()
    assert ended == ["completed"]
