# ruff: noqa: G004 - `step.log` is the log of a run, not one of the logging module
"""E3, E4: a process that stood still for longer than the log keeps its rows has missed events, and learns of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably import Durably, StepContext, define_job
from durably.core.leases import Claim
from tests.conftest import PATIENCE_SECONDS, Events, Gate, MeanwhileElsewhere, OpenDurably, until
from tests.store_contract.foreign_writer import write
from tests.store_contract.test_subscribe import Reader, collect

pytestmark = pytest.mark.two_processes


@define_job(name="job")
async def job(step: StepContext, input: Any) -> None: ...


MORE_THAN_A_BUFFER = 1_500


async def leased_elsewhere(here: Durably) -> Claim:
    await here.jobs.job.trigger("x")
    (claimed,) = await here.storage.claim("elsewhere", ["job"], 1, PATIENCE_SECONDS)
    return claimed.claim


async def test_subscribe_tells_the_state_again(
    open_durably: OpenDurably, meanwhile_elsewhere: MeanwhileElsewhere
) -> None:
    here = await open_durably(job)
    claim = await leased_elsewhere(here)
    reader = Reader(here.subscribe(claim.run_id))
    await reader.until("run:leased")

    meanwhile_elsewhere(lambda there: there.storage.save_progress(claim, '{"current":5}'))
    await reader.until("run:progress")
    await here.cancel(claim.run_id)

    assert await reader.end() == ["run:leased", "run:leased", "run:progress", "run:cancel"]
    assert reader.seen[2].progress.current == 5


async def test_subscribe_tells_that_the_run_is_gone(
    open_durably: OpenDurably, meanwhile_elsewhere: MeanwhileElsewhere
) -> None:
    here = await open_durably(job)
    claim = await leased_elsewhere(here)
    reader = Reader(here.subscribe(claim.run_id))
    await reader.until("run:leased")

    async def end_it(there: Durably) -> None:
        await there.cancel(claim.run_id)
        await there.delete_run(claim.run_id)

    meanwhile_elsewhere(end_it)

    assert await reader.end() == ["run:leased", "run:delete"]


@pytest.mark.parametrize("reports", [False, True])
async def test_waiting_ends_with_the_run(
    open_durably: OpenDurably, meanwhile_elsewhere: MeanwhileElsewhere, reports: bool
) -> None:
    """R11: whoever waited while the run ended, with no poll to help."""
    here = await open_durably(job)
    told: list[Any] = []
    options: dict[str, Any] = {"on_progress": told.append} if reports else {}
    waiting = asyncio.create_task(
        here.jobs.job.trigger_and_wait("x", timeout=PATIENCE_SECONDS, polling_interval=10 * PATIENCE_SECONDS, **options)
    )
    await until(here.get_runs)

    meanwhile_elsewhere(lambda there: there.process_one())

    assert (await waiting).output is None


async def test_a_late_burst_is_no_gap(open_durably: OpenDurably, database: str) -> None:
    """E3: what happened between two events of a run may be cleaned away: its reader misses nothing by it."""
    gate = Gate()

    @define_job(name="chatty")
    async def chatty(step: StepContext, input: Any) -> None:
        await step.run("wait", gate.pass_through)
        for number in range(MORE_THAN_A_BUFFER):
            step.log.info(f"line {number}")
        await step.run("flush", lambda: None)

    here = await open_durably(chatty, job)
    run = await here.jobs.chatty.trigger("x")
    executing = asyncio.create_task(here.process_one())
    await gate.reached()
    # Takes along what was announced, so that the state says it all.
    await here.jobs.job.trigger("x")
    stream = here.subscribe(run.id)
    assert (await anext(stream)).type == "run:leased"
    for number in range(5):
        await here.jobs.job.trigger(number)
    await write(database, "UPDATE durably_events SET created_at = '2020-01-01T00:00:00.000Z'")
    await here.storage.maintain(idle=False)
    gate.open()
    await executing

    types = [event.type for event in await collect(stream)]
    assert (types.count("run:leased"), types.count("log:write")) == (0, MORE_THAN_A_BUFFER)


async def test_what_it_does_next_is_told_once(
    open_durably: OpenDurably, meanwhile_elsewhere: MeanwhileElsewhere
) -> None:
    """E1: though it comes to the log together with what is left of what was missed."""
    here = await open_durably(job)
    events = Events(here)

    meanwhile_elsewhere(lambda there: there.storage.maintain(idle=False))
    own = await here.jobs.job.trigger("own")
    await here.cancel(own.id)
    await events.until("run:cancel")

    assert [event.input for event in events.of("run:trigger")] == ["newest", "own"]
