"""W4: starting, stopping and closing an instance, and what waits for what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably import StepContext, StoreError, create_durably, define_job
from tests.conftest import PATIENCE_SECONDS, Gate, OpenDurably
from tests.engine.scenes import job


async def test_a_run_that_is_just_being_claimed_is_given_back(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W4: else it would execute on when the stop has returned, and stay leased when the process has gone."""
    gate = Gate()
    executing: set[Any] = set()

    @define_job(name="late")
    async def late(step: StepContext, input: Any) -> None:
        executing.add(input)
        try:
            await asyncio.Event().wait()
        finally:
            executing.discard(input)

    durably = await open_durably(late)
    claim = durably.storage.claim

    async def slow_claim(*args: Any) -> Any:
        claimed = await claim(*args)
        await gate.pass_through()
        return claimed

    run = await durably.jobs.late.trigger(1)
    monkeypatch.setattr(durably.storage, "claim", slow_claim)
    await durably.start()
    await gate.reached()
    stopping = asyncio.create_task(durably.stop(timeout=0))
    # The stop has given up waiting when the claim is answered.
    asyncio.get_running_loop().call_later(0.05, gate.open)
    await stopping

    found = await durably.get_run(run.id)
    assert found is not None
    assert (found.status, found.lease_owner, executing) == ("pending", None, set())


async def test_a_stop_does_not_claim_what_it_gives_back(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W4: a look for work that is under way finds no run that this worker has released."""
    gate, looking = Gate(), Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        await gate.pass_through()

    durably = await open_durably(held, start=True, polling_interval=0.01)
    run = await durably.jobs.held.trigger(None)
    await gate.reached()
    claim = durably.storage.claim

    async def slow_claim(*args: Any) -> Any:
        await looking.pass_through()
        return await claim(*args)

    monkeypatch.setattr(durably.storage, "claim", slow_claim)
    await looking.reached()
    stopping = asyncio.create_task(durably.stop(timeout=0))
    # The stop has given up waiting when the claim is asked for.
    asyncio.get_running_loop().call_later(0.05, looking.open)
    await stopping

    found = await durably.get_run(run.id)
    assert found is not None
    assert (found.status, found.lease_generation) == ("pending", 1)


async def test_a_stop_with_a_time_limit_does_not_wait_for_maintenance(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W4: a purge of many thousand runs must not keep a process that is in a hurry."""
    gate = Gate()

    async def purge_for_hours(*args: Any) -> int:
        await gate.pass_through()
        return 0

    durably = await open_durably(job, retain_runs="1h")
    monkeypatch.setattr(durably.storage, "purge_runs", purge_for_hours)
    await durably.start()
    await gate.reached()

    async with asyncio.timeout(PATIENCE_SECONDS):
        await durably.stop(timeout=0)


async def test_a_stop_without_a_time_limit_waits_for_maintenance(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W4: it returns when what is under way has ended."""
    gate = Gate()
    ended = asyncio.Event()

    async def purge(*args: Any) -> int:
        await gate.pass_through()
        ended.set()
        return 0

    durably = await open_durably(job, retain_runs="1h")
    monkeypatch.setattr(durably.storage, "purge_runs", purge)
    await durably.start()
    await gate.reached()
    stopping = asyncio.create_task(durably.stop())
    gate.open()
    await stopping

    assert ended.is_set()


async def test_a_stop_does_not_wait_for_a_backlog_of_runs_to_purge(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W4: the hundred that are under way are purged, the rest another time."""
    gate, portions = Gate(), []

    async def purge(*args: Any) -> int:
        portions.append(1)
        await gate.pass_through()
        return 100

    durably = await open_durably(job, retain_runs="1h")
    monkeypatch.setattr(durably.storage, "purge_runs", purge)
    await durably.start()
    await gate.reached()
    stopping = asyncio.create_task(durably.stop())
    await asyncio.sleep(0)
    gate.open()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await stopping

    assert len(portions) == 1


async def test_a_stop_that_is_given_up_claims_nothing_more(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W4: also where the worker was looking for work at that moment; `start` begins anew."""
    durably, looking = await open_durably(job), Gate()
    claim = durably.storage.claim

    async def claim_slowly(*args: Any) -> Any:
        await looking.pass_through()
        return await claim(*args)

    monkeypatch.setattr(durably.storage, "claim", claim_slowly)
    await durably.start()
    await looking.reached()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(durably.stop(), 0.05)
    looking.open()
    await asyncio.sleep(0.05)
    run = await durably.jobs.job.trigger(1)
    with pytest.raises(TimeoutError):
        await durably.wait_for_run(run.id, timeout=0.1)

    await durably.start()
    assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).status == "completed"


async def test_a_start_that_waited_for_a_stop_does_not_outlive_the_close(open_durably: OpenDurably) -> None:
    """W4: its worker would look for work in a closed database for ever."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        await gate.pass_through()

    durably = await open_durably(held, start=True)
    await durably.jobs.held.trigger(None)
    await gate.reached()
    stopping = asyncio.create_task(durably.stop())
    await asyncio.sleep(0)
    starting = asyncio.create_task(durably.start())
    await asyncio.sleep(0)
    await durably.close()
    await stopping

    with pytest.raises(StoreError, match="was closed"):
        await starting


async def test_an_instance_is_a_context(database: str) -> None:
    """`init()` on entry, `stop()` and `close()` on exit."""
    async with create_durably(database=database, jobs={"job": job}) as durably:
        assert (await durably.jobs.job.trigger_and_wait(1, timeout=PATIENCE_SECONDS)).output == 1
    with pytest.raises(StoreError, match="closed"):
        await durably.get_runs()


async def test_an_error_on_its_way_out_does_not_wait_for_running_jobs(database: str, open_durably: OpenDurably) -> None:
    """W4: what runs is given back."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        await gate.pass_through()

    async def fail_while_it_runs() -> None:
        async with create_durably(database=database, jobs={"held": held}) as durably:
            await durably.jobs.held.trigger(None)
            await gate.reached()
            raise RuntimeError("on its way")

    with pytest.raises(RuntimeError, match="on its way"):
        await fail_while_it_runs()

    after = await open_durably(held)
    assert [run.status for run in await after.get_runs()] == ["pending"]


async def test_a_context_that_cannot_begin_closes_what_it_opened(tmp_path: Any) -> None:
    """Entry fails with the reason."""
    with pytest.raises(StoreError, match="no directory"):
        async with create_durably(database=tmp_path / "no" / "x.db"):
            pytest.fail("never entered")


async def test_a_stop_that_was_cancelled_leaves_a_worker_that_works(open_durably: OpenDurably) -> None:
    """W5: what stopping was asked for is forgotten with it."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        await gate.pass_through()

    durably = await open_durably(held, job, start=True)
    await durably.jobs.held.trigger(1)
    await gate.reached()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(durably.stop(), 0.01)
    gate.open()
    run = await durably.jobs.job.trigger(1)
    await durably.process_until_idle()
    assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).status == "completed"


async def test_a_start_waits_for_the_stop_before_it(open_durably: OpenDurably) -> None:
    """W4: the stop ends, and then there is a worker."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        await gate.pass_through()

    durably = await open_durably(held, job, start=True)
    await durably.jobs.held.trigger(1)
    await gate.reached()
    stopping = asyncio.create_task(durably.stop())
    await asyncio.sleep(0)
    starting = asyncio.create_task(durably.start())
    gate.open()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(stopping, starting)
    await durably.jobs.job.trigger_and_wait(1, timeout=PATIENCE_SECONDS)


async def test_who_uses_an_instance_for_the_first_time_while_it_is_closed_is_told_so(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a cancellation that nobody asked for."""
    gate, durably = Gate(), await open_durably(job, migrate=False)
    await durably.storage.migrate()
    follow = durably.storage.follow

    async def follow_slowly(*args: Any) -> Any:
        await gate.pass_through()
        return await follow(*args)

    monkeypatch.setattr(durably.storage, "follow", follow_slowly)
    triggering = asyncio.create_task(durably.jobs.job.trigger(1))
    await gate.reached()
    await durably.close()

    with pytest.raises(StoreError, match="was closed"):
        await triggering
