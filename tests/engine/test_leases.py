"""L2, L3: leases that are renewed, run out, come too late, or are held by somebody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from durably import LeaseLostError, StepContext, StoreUnavailableError, define_job
from durably.core.leases import Claim
from durably.testing import FakeClock
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably, until
from tests.engine.scenes import fail, give_to_another, job


async def test_expired_leases_of_others_come_back_when_idle(open_durably: OpenDurably, clock: FakeClock) -> None:
    """L4, W3: at the instant of expiry the run is anyone's, and not a millisecond before."""
    durably = await open_durably(job, clock=clock)
    run = await durably.jobs.job.trigger(1)
    (dead,) = await durably.storage.claim("dead", ["job"], 1, 30)
    clock.advance(seconds=29.999)
    assert await durably.process_one() is False
    clock.advance(seconds=0.001)
    assert await durably.process_one() is True

    found = await durably.get_run(run.id)
    assert found is not None
    assert (found.status, found.lease_generation) == ("completed", dead.claim.generation + 1)


async def test_the_duration_of_a_resumed_run_counts_from_its_first_start(
    open_durably: OpenDurably, clock: FakeClock
) -> None:
    """E1, L4: with all the time in which nobody executed it."""

    @define_job(name="jumping")
    async def jumping(step: StepContext, input: Any) -> None:
        clock.advance(seconds=2)
        clock.set_wall_clock(clock.now() - timedelta(hours=1))

    durably = await open_durably(jumping, clock=clock)
    events = Events(durably)
    await durably.jobs.jumping.trigger(None)
    await durably.storage.claim("dead", ["jumping"], 1, 30)
    clock.advance(seconds=40)
    await durably.process_one()

    assert (await events.until("run:complete")).duration == 42


async def test_the_holder_stops_by_itself_when_its_lease_runs_out(open_durably: OpenDurably, clock: FakeClock) -> None:
    """L3: with no renewal coming back, by its own monotonic clock."""
    gate, seen = Gate(), []

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        try:
            await step.run("waiting", gate.pass_through)
        finally:
            seen.append(step.signal.reason)

    durably = await open_durably(held, clock=clock, lease_duration=1, lease_renew_interval=0.5)
    events = Events(durably)

    class Unreachable:
        def renew(self, claims: Any, lease_seconds: float) -> Any:
            raise StoreUnavailableError("unreachable")

        def close(self) -> None: ...

    durably.storage.lease_renewer = Unreachable  # type: ignore[assignment, method-assign]
    run = await durably.jobs.held.trigger(None)
    processing = asyncio.create_task(durably.process_one())
    await gate.reached()
    clock.advance(seconds=0.6)
    told = await events.until("worker:error")
    assert (told.context, told.error) == ("lease-renewal", "unreachable")
    clock.advance(seconds=0.5)

    async def is_lost() -> bool:
        return any(event.run_id == run.id for event in events.of("worker:error"))

    await until(is_lost)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await processing
    assert seen == ["lease-lost"]


async def test_a_lease_that_runs_out_while_its_renewal_waits_stops_the_run(open_durably: OpenDurably) -> None:
    """L3: at its end, whether or not the database ever answers."""
    answered, seen = threading.Event(), []

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        try:
            await step.run("waiting", asyncio.sleep, PATIENCE_SECONDS)
        finally:
            seen.append((step.signal.reason, answered.is_set()))

    class Silent:
        def renew(self, claims: Any, lease_seconds: float) -> Any:
            answered.wait(PATIENCE_SECONDS)
            return {}

        def close(self) -> None: ...

    durably = await open_durably(held, lease_duration=0.5, lease_renew_interval=0.05)
    durably.storage.lease_renewer = Silent  # type: ignore[assignment, method-assign]
    await durably.jobs.held.trigger(None)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS / 2):
            await durably.process_one()
    finally:
        answered.set()
    assert seen == [("lease-lost", False)]


async def test_a_lease_of_which_nobody_knows_whether_it_was_renewed_is_not_prolonged(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L3: its row is held up; it is tried again, and given up when it ends."""

    class HeldUp:
        def renew(self, claims: Sequence[Claim], lease_seconds: float) -> dict[str, Claim]:
            tried.append(len(claims))
            return {claim.run_id: claim for claim in claims}

        def close(self) -> None: ...

    tried: list[int] = []
    lost = asyncio.Event()

    @define_job(name="waits")
    async def waits(step: StepContext, input: Any) -> None:
        await step.signal.wait()
        lost.set()

    # No look for work meanwhile: it would find that the lease has ended, and claim the run again.
    options = {"lease_duration": 0.5, "lease_renew_interval": 0.1, "polling_interval": 1_000}
    durably = await open_durably(waits, start=True, **options)
    monkeypatch.setattr(durably.storage, "lease_renewer", HeldUp)
    await durably.jobs.waits.trigger(None)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await lost.wait()

    assert len(tried) > 1


async def test_a_lease_that_was_renewed_too_late_to_be_of_use_is_given_back(
    open_durably: OpenDurably, clock: FakeClock
) -> None:
    """L3, L4: nobody holds it, so the run does not wait for its end."""
    renewing, answered = threading.Event(), threading.Event()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        await step.run("waiting", asyncio.sleep, PATIENCE_SECONDS)

    durably = await open_durably(held, clock=clock, lease_duration=1, lease_renew_interval=0.5)
    make = durably.storage.lease_renewer

    class Late:
        def __init__(self) -> None:
            self._renewer = make()

        def renew(self, claims: Any, lease_seconds: float) -> Any:
            renewed = self._renewer.renew(claims, lease_seconds)
            renewing.set()
            answered.wait(PATIENCE_SECONDS)
            return renewed

        def close(self) -> None:
            self._renewer.close()

    durably.storage.lease_renewer = Late  # type: ignore[assignment, method-assign]
    events = Events(durably)
    run = await durably.jobs.held.trigger(None)
    processing = asyncio.create_task(durably.process_one())
    await events.until("step:start")
    clock.advance(seconds=0.6)
    assert await asyncio.to_thread(renewing.wait, PATIENCE_SECONDS)
    clock.advance(seconds=1)
    answered.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await processing

    async def is_pending() -> bool:
        found = await durably.get_run(run.id)
        return found is not None and found.status == "pending"

    await until(is_pending)


async def test_a_claim_that_took_longer_than_its_lease_is_given_back_and_made_again(
    open_durably: OpenDurably, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W3, L4: after a database was away the run is executed at once, not when the lease has ended."""
    durably = await open_durably(job, clock=clock, lease_duration=1)
    events = Events(durably)
    claim, seconds = durably.storage.claim, [2.0, 0.0]

    async def late(*asked: Any) -> Any:
        clock.advance(seconds=seconds.pop(0))
        return await claim(*asked)

    monkeypatch.setattr(durably.storage, "claim", late)
    run = await durably.jobs.job.trigger(7)
    assert await durably.process_one()
    assert (await durably.wait_for_run(run.id)).output == 7
    assert events.of("worker:error") == []


async def test_a_lease_that_always_ends_before_its_claim_is_said_to_be_too_short(
    open_durably: OpenDurably, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W5: it is not tried for ever, and the run waits."""
    durably = await open_durably(job, clock=clock, lease_duration=1)
    events = Events(durably)
    claim = durably.storage.claim

    async def late(*asked: Any) -> Any:
        clock.advance(seconds=2)
        return await claim(*asked)

    monkeypatch.setattr(durably.storage, "claim", late)
    run = await durably.jobs.job.trigger(7)
    assert not await durably.process_one()
    assert "make lease_duration longer" in (await events.until("worker:error")).error
    assert [each.id for each in await durably.get_runs(status="pending")] == [run.id]


async def test_what_lost_its_lease_tells_nothing_more_of_the_run(
    open_durably: OpenDurably, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """L2: neither progress nor lines of the run's log, which are for its next holder to write."""

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        clock.advance(seconds=2)
        with pytest.raises(LeaseLostError):
            await step.run("too-late", lambda: 1)
        step.progress(7, 10)
        step.log.info("still here")

    durably = await open_durably(held, clock=clock, lease_duration=1, lease_renew_interval=0.9)
    events = Events(durably)
    run = await durably.jobs.held.trigger(None)
    await durably.process_one()
    await events.until("worker:error")

    assert (events.of("run:progress"), events.of("log:write")) == ([], [])
    assert f"run {run.id}, after its lease was lost: still here" in caplog.text


async def test_closing_does_not_block_the_loop_while_a_renewal_waits(open_durably: OpenDurably) -> None:
    """L2, W4: a database that gives no answer holds up the thread that renews, and nobody else."""
    gate, renewing, answered = Gate(), threading.Event(), threading.Event()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        await step.run("waiting", gate.pass_through)

    class Silent:
        def renew(self, claims: Any, lease_seconds: float) -> Any:
            renewing.set()
            answered.wait(PATIENCE_SECONDS)
            return {}

        def close(self) -> None: ...

    durably = await open_durably(held, lease_duration=60, lease_renew_interval=0.01)
    durably.storage.lease_renewer = Silent  # type: ignore[assignment, method-assign]
    await durably.jobs.held.trigger(None)
    processing = asyncio.create_task(durably.process_one())
    await gate.reached()
    await asyncio.to_thread(renewing.wait, PATIENCE_SECONDS)

    closing = asyncio.create_task(durably.close())
    asyncio.get_running_loop().call_later(0.05, answered.set)
    async with asyncio.timeout(PATIENCE_SECONDS / 2):
        await closing
        await processing


async def test_a_short_lease_is_renewed_in_time_without_being_told_how_often(open_durably: OpenDurably) -> None:
    """L2: the default interval follows the lease."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> int:
        await gate.pass_through()
        return step.attempt

    durably = await open_durably(held, start=True, lease_duration=3)
    events = Events(durably)
    run = await durably.jobs.held.trigger(None)
    first, second = [await events.until("run:lease-renewed", count) for count in (1, 2)]
    gate.open()

    assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == 1
    assert second.timestamp - first.timestamp < timedelta(seconds=2)


async def test_a_run_that_its_own_worker_claims_again_executes_once(
    open_durably: OpenDurably, clock: FakeClock
) -> None:
    """L2: the execution whose lease ran out stops before the next one of the same process begins to work."""
    gate, seen = Gate(), []

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> str:
        if step.attempt == 1:
            try:
                await step.run("waiting", gate.pass_through)
            finally:
                seen.append(step.signal.reason)
        return "second"

    # Its thread looks at the leases every second: claiming is faster.
    durably = await open_durably(held, clock=clock, lease_duration=60, lease_renew_interval=50)
    run = await durably.jobs.held.trigger(None)
    first = asyncio.create_task(durably.process_one())
    await gate.reached()
    clock.advance(seconds=60)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await durably.process_one()
        assert await first

    assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == "second"
    assert seen == ["lease-lost"]


async def test_a_cancelled_claim_is_given_back(open_durably: OpenDurably) -> None:
    """L1: no run is held by nobody."""
    durably = await open_durably(job)
    for turns in range(12):
        run = await durably.jobs.job.trigger(turns)
        working = asyncio.create_task(durably.process_one())
        for _ in range(turns):
            await asyncio.sleep(0)
        working.cancel()
        await asyncio.wait([working])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await durably.process_until_idle() or (await durably.get_run(run.id)).status != "completed":
                await asyncio.sleep(0.001)


async def test_an_end_that_comes_too_late_is_not_recorded(open_durably: OpenDurably) -> None:
    """L2: the end of a run is a guarded write like any other, and the loss is told once."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> str:
        await gate.pass_through()
        return "late"

    durably = await open_durably(held, lease_duration=60, lease_renew_interval=50)
    events = Events(durably)
    run = await durably.jobs.held.trigger(None)
    processing = asyncio.create_task(durably.process_one())
    await gate.reached()
    await give_to_another(durably.storage, run.id)
    gate.open()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await processing

    found = await durably.get_run(run.id)
    assert found is not None
    assert (found.status, found.lease_owner, found.output) == ("leased", "thief", None)
    assert [event.context for event in events.of("worker:error")] == ["lease-lost"]
    assert events.of("run:complete") == []


async def test_leases_that_cannot_be_given_back_end_by_themselves(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W4: stop() ends all the same, and says so."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        await gate.pass_through()

    durably = await open_durably(held, start=True)
    events = Events(durably)
    await durably.jobs.held.trigger(None)
    await gate.reached()
    with monkeypatch.context() as broken:
        broken.setattr(durably.storage, "release", fail)
        await durably.stop(timeout=0)

    assert "free when they expire" in events.of("worker:error")[0].error
