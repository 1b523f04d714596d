"""W3: what is purged, and when, by a clock that the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durably import StepContext, ValidationError, define_job
from durably.testing import FakeClock
from tests.conftest import Events, Gate, OpenDurably
from tests.engine.scenes import job, poll


async def test_purging_up_to_an_instant_needs_to_know_its_zone(open_durably: OpenDurably) -> None:
    """R10: `older_than` may be an aware datetime."""
    durably = await open_durably(job)
    run = await durably.jobs.job.trigger(1)
    await durably.process_one()

    assert await durably.purge_runs(older_than=datetime.now(UTC) - timedelta(days=1)) == 0
    with pytest.raises(ValidationError, match="aware datetime"):
        await durably.purge_runs(older_than=datetime(2030, 1, 1))  # noqa: DTZ001 - refused for that
    assert await durably.purge_runs(older_than=datetime.now(UTC) + timedelta(days=1)) == 1
    assert await durably.get_run(run.id) is None


async def test_old_runs_are_purged_when_idle_once_a_minute(open_durably: OpenDurably, clock: FakeClock) -> None:
    """W3: terminal runs older than `retain_runs`, each announced; pending ones never."""
    durably = await open_durably(job, clock=clock, retain_runs="1h")
    events = Events(durably)
    old = await durably.jobs.job.trigger(1)
    await durably.process_until_idle()
    clock.advance(minutes=50)
    younger = await durably.jobs.job.trigger(2)
    await durably.process_until_idle()
    clock.advance(minutes=11)
    await durably.start()

    told = await events.until("run:delete")
    assert told.run_id == old.id
    clock.advance(seconds=59)
    await poll(durably)
    assert [run.id for run in await durably.get_runs()] == [younger.id]

    clock.advance(minutes=60)
    await poll(durably)
    assert (await events.until("run:delete", 2)).run_id == younger.id


async def test_more_than_a_hundred_go_in_portions(open_durably: OpenDurably, clock: FakeClock) -> None:
    """W3: 100 at a time, until none is left."""
    durably = await open_durably(job, clock=clock, retain_runs="1h")
    for run in await durably.jobs.job.batch_trigger(list(range(250))):
        await durably.cancel(run.id)
    clock.advance(hours=2)

    assert await durably.process_until_idle() == 0
    assert await durably.get_runs() == []


async def test_a_worker_that_is_never_idle_purges_all_the_same(open_durably: OpenDurably, clock: FakeClock) -> None:
    """W3: after ten minutes without an idle moment; else the tables of a busy queue would grow for ever."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        await step.run("waiting", gate.pass_through)

    durably = await open_durably(job, held, clock=clock, retain_runs="1m", lease_duration=7200)
    events = Events(durably)
    for run in await durably.jobs.job.batch_trigger(list(range(150))):
        await durably.cancel(run.id)
    await durably.jobs.held.trigger(None)
    await durably.start()
    await gate.reached()
    clock.advance(minutes=9)
    await poll(durably)
    assert events.of("run:delete") == []

    clock.advance(minutes=2)
    await poll(durably)

    await events.until("run:delete", 150)
    gate.open()


async def test_without_retention_nothing_is_deleted(open_durably: OpenDurably, clock: FakeClock) -> None:
    """W3: `retain_runs` defaults to keeping everything."""
    durably = await open_durably(job, clock=clock)
    await durably.jobs.job.trigger(1)
    await durably.process_until_idle()
    clock.advance(days=10_000)

    await durably.process_until_idle()
    assert len(await durably.get_runs()) == 1


async def test_retention_of_nothing_takes_a_timedelta(open_durably: OpenDurably, clock: FakeClock) -> None:
    """W3: `retain_runs` as a timedelta."""
    durably = await open_durably(job, clock=clock, retain_runs=timedelta(seconds=1))
    await durably.jobs.job.trigger(1)
    await durably.process_until_idle()
    clock.advance(minutes=2)
    await durably.process_until_idle()

    assert await durably.get_runs() == []
