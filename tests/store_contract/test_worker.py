"""W1 to W5, L2, L3, L5: the worker, its slots, its leases and its end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durably import (
    ConflictError,
    LeaseLostError,
    RunFailedError,
    RunLeasedEvent,
    RunStatus,
    StepContext,
    SyncStepContext,
    ValidationError,
    define_job,
    with_log_persistence,
)
from durably.core.leases import Claim
from durably.core.store import Claimed, Store
from durably.testing import FakeClock
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably

NEVER = 1000.0
"""A polling interval that no test waits for: what happens was told, not looked up."""


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    return await step.run("one", lambda: input)


class TestWaking:
    async def test_a_trigger_wakes_the_worker_at_once(self, open_durably: OpenDurably) -> None:
        """W1: in the same process, however long the polling interval."""
        durably = await open_durably(job, start=True, polling_interval=NEVER)
        events = Events(durably)
        first = await durably.jobs.job.trigger_and_wait(1, timeout=PATIENCE_SECONDS)
        second = await durably.jobs.job.trigger_and_wait(2, timeout=PATIENCE_SECONDS)

        assert (first.output, second.output, first.disposition) == (1, 2, "created")
        assert len(events.of("run:leased")) == 2

    @pytest.mark.two_processes
    async def test_a_trigger_in_another_process_wakes_it(self, open_durably: OpenDurably) -> None:
        """W1: by notification, not by polling."""
        worker = await open_durably(job, start=True, polling_interval=NEVER)
        web = await open_durably(job, polling_interval=NEVER)
        await worker.jobs.job.trigger_and_wait("the worker is idle", timeout=PATIENCE_SECONDS)

        result = await web.jobs.job.trigger_and_wait(1, timeout=PATIENCE_SECONDS)
        batch = await web.jobs.job.batch_trigger([1, 2, 3])
        for run in batch:
            await web.wait_for_run(run.id, timeout=PATIENCE_SECONDS)

        assert result.output == 1
        assert await web.get_runs(status="pending") == []

    async def test_registering_a_job_wakes_it_for_runs_that_wait(self, open_durably: OpenDurably) -> None:
        """L5: a run of a job nobody knows stays pending for a worker that does."""

        @define_job(name="late")
        async def late(step: StepContext, input: Any) -> Any:
            return "known now"

        durably = await open_durably(job, start=True, polling_interval=NEVER)
        run = await durably.get_job(late).trigger(None)
        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == "known now"

    async def test_runs_that_waited_before_the_start_are_claimed(self, open_durably: OpenDurably) -> None:
        """W1: the first look needs no hint."""
        durably = await open_durably(job, polling_interval=NEVER)
        run = await durably.jobs.job.trigger(1)
        await durably.start()
        await durably.start()

        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == 1


class TestSlots:
    async def test_no_more_runs_at_once_than_there_are_slots(self, open_durably: OpenDurably) -> None:
        """W1, W2: up to `max_concurrent_runs`; a slot that finishes is refilled at once."""
        active = most = 0
        full = asyncio.Event()

        @define_job(name="busy")
        async def busy(step: StepContext, input: Any) -> None:
            nonlocal active, most
            active += 1
            most = max(most, active)
            if active == 3:
                full.set()
            await full.wait()
            await step.run("one", asyncio.sleep, 0)
            active -= 1

        durably = await open_durably(busy, start=True, max_concurrent_runs=3, polling_interval=NEVER)
        runs = await durably.jobs.busy.batch_trigger(list(range(20)))
        for run in runs:
            await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)

        assert most == 3

    async def test_hundreds_of_runs_and_steps_all_end(self, open_durably: OpenDurably) -> None:
        """W2, D3: many at once, nothing lost."""

        @define_job(name="many")
        async def many(step: StepContext, input: int) -> int:
            return sum([await step.run(f"{n}", lambda n=n: n * input) for n in range(5)])

        durably = await open_durably(many, start=True, max_concurrent_runs=50, polling_interval=NEVER)
        runs = await durably.jobs.many.batch_trigger(list(range(200)))
        for run in runs:
            await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)

        found = await durably.jobs.many.get_runs(status="completed")
        assert sorted(run.output for run in found if run.output is not None) == [10 * n for n in range(200)]
        assert {run.completed_step_count for run in found} == {5}


class TestStopping:
    async def test_stop_lets_running_runs_finish_and_claims_nothing_more(self, open_durably: OpenDurably) -> None:
        """W4: resolves when running runs have ended; logs are flushed."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> str:
            await gate.pass_through()
            step.log.info("last words")
            return "finished"

        durably = await open_durably(held, start=True, max_concurrent_runs=1)
        durably.use(with_log_persistence())
        running, waiting = await durably.jobs.held.batch_trigger([1, 2])
        await gate.reached()

        stopping = asyncio.create_task(durably.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        gate.open()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await stopping

        finished, left = await durably.get_run(running.id), await durably.get_run(waiting.id)
        assert finished is not None
        assert left is not None
        assert (finished.status, finished.output, left.status) == ("completed", "finished", "pending")
        assert [line.message for line in await durably.get_logs(running.id)] == ["last words"]

    async def test_stop_right_after_a_trigger_leaves_no_run_half_way(self, open_durably: OpenDurably) -> None:
        """W4: a run that was being claimed while stop was called ends or was never begun."""
        durably = await open_durably(job, polling_interval=NEVER)
        for _ in range(20):
            await durably.start()
            run = await durably.jobs.job.trigger(1)
            await durably.stop()
            found = await durably.get_run(run.id)
            assert found is not None
            assert (found.status, found.lease_generation) in [("pending", 0), ("completed", 1)]
            await durably.process_until_idle()

    async def test_stop_with_a_timeout_gives_the_runs_back(self, open_durably: OpenDurably) -> None:
        """W4: another worker can resume at once; the code is told why."""
        gate, seen = Gate(), []

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> str:
            if step.attempt == 1:
                try:
                    await step.run("waiting", gate.pass_through)
                except LeaseLostError:
                    seen.append(step.signal.reason)
                    raise
            return "resumed"

        durably = await open_durably(held, start=True)
        events = Events(durably)
        run = await durably.jobs.held.trigger(None)
        await gate.reached()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await durably.stop(timeout=timedelta(milliseconds=10))

        assert seen == ["released"]
        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.lease_owner) == (RunStatus.PENDING, None)
        assert events.of("step:cancel", "step:fail", "run:fail", "worker:error") == []
        assert await durably.process_one() is True
        assert (await durably.wait_for_run(run.id)).output == "resumed"

    @pytest.mark.two_processes
    async def test_another_worker_resumes_what_was_given_back(self, open_durably: OpenDurably) -> None:
        """W1, W4: without waiting for the lease to end or for a poll."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> str:
            if step.attempt == 1:
                await gate.pass_through()
            return "resumed"

        one = await open_durably(held, start=True, polling_interval=NEVER)
        run = await one.jobs.held.trigger(None)
        await gate.reached()
        two = await open_durably(held, start=True, polling_interval=NEVER)
        await one.stop(timeout=0)

        assert (await two.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == "resumed"

    async def test_stop_ends_process_until_idle_too(self, open_durably: OpenDurably) -> None:
        """W4: claims nothing more, whoever claims; afterwards one may go on."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            await gate.pass_through()

        durably = await open_durably(held, max_concurrent_runs=1)
        await durably.jobs.held.batch_trigger([1, 2, 3])
        processing = asyncio.create_task(durably.process_until_idle())
        await gate.reached()
        stopping = asyncio.create_task(durably.stop())
        await asyncio.sleep(0)
        gate.open()

        async with asyncio.timeout(PATIENCE_SECONDS):
            await stopping
            assert await processing == 1
        assert await durably.process_until_idle() == 2

    async def test_a_job_cannot_stop_the_instance_that_executes_it(self, open_durably: OpenDurably) -> None:
        """W4: each would wait for the other; the error says so, and a task that the job does not await may."""
        stopping: list[asyncio.Task[None]] = []

        @define_job(name="itself")
        async def itself(step: StepContext, input: None) -> str:
            with pytest.raises(ConflictError) as in_job:
                await durably.stop()
            with pytest.raises(ConflictError) as in_step:
                await step.run("close", durably.close)
            stopping.append(asyncio.create_task(durably.stop()))
            return f"{in_job.value}; {in_step.value}"

        durably = await open_durably(itself, start=True)
        run = await durably.jobs.itself.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        assert f"Cannot stop within run {run.id} of job 'itself'" in run.output
        assert f"Cannot close within run {run.id} of job 'itself'" in run.output
        async with asyncio.timeout(PATIENCE_SECONDS):
            await stopping[0]

    async def test_a_plain_job_cannot_stop_the_instance_either(self, open_durably: OpenDurably) -> None:
        """W4: neither on the event loop of the instance nor on one of its own; nor can a plain step."""
        loop = asyncio.get_running_loop()

        def stop() -> str:
            with pytest.raises(ConflictError) as there:
                asyncio.run_coroutine_threadsafe(durably.stop(), loop).result(PATIENCE_SECONDS)
            with pytest.raises(ConflictError) as here:
                asyncio.run(durably.stop())
            return f"{there.value}; {here.value}"

        @define_job(name="plain")
        def plain(step: SyncStepContext, input: None) -> str:
            return stop()

        @define_job(name="steps")
        async def steps(step: StepContext, input: None) -> str:
            return await step.run("stop", stop)

        durably = await open_durably(plain, steps, start=True)
        for handle in (durably.jobs.plain, durably.jobs.steps):
            run = await handle.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
            assert run.output.count(f"Cannot stop within run {run.id} of job '{handle.name}'") == 2

    async def test_stop_waits_for_what_process_one_is_just_claiming(self, open_durably: OpenDurably) -> None:
        """W4, W5: however far the claim has come, the run has ended when stop returns, or was never begun."""
        durably = await open_durably(job)
        for turns in range(20):
            run = await durably.jobs.job.trigger(turns)
            processing = asyncio.create_task(durably.process_one())
            for _ in range(turns):
                await asyncio.sleep(0)
            await durably.stop()
            found = await durably.get_run(run.id)
            assert found is not None
            assert (found.status, found.lease_generation) in [("pending", 0), ("completed", 1)]
            await processing
            await durably.process_until_idle()

    async def test_a_stopped_worker_can_start_again(self, open_durably: OpenDurably) -> None:
        """W4: stopping twice is stopping."""
        durably = await open_durably(job, start=True, polling_interval=NEVER)
        await durably.stop()
        await durably.stop()
        run = await durably.jobs.job.trigger(1)
        await durably.start()

        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == 1

    @pytest.mark.parametrize("timeout", [-1, "soon", float("nan"), True], ids=repr)
    async def test_a_bad_timeout_is_refused(self, open_durably: OpenDurably, timeout: Any) -> None:
        """Bad input gets an error that names it."""
        durably = await open_durably(job)
        with pytest.raises(ValidationError, match=r"Invalid timeout .* a number of seconds, 0 or more, or a timedelta"):
            await durably.stop(timeout=timeout)


@define_job(name="endless")
async def endless(step: StepContext, input: Any) -> None:
    await step.run("wait", asyncio.Event().wait)


class TestJustClaimed:
    """From the moment that a lease is told of, whatever ends the run or the worker reaches it."""

    async def test_a_run_that_is_cancelled_as_soon_as_it_is_leased_stops(self, open_durably: OpenDurably) -> None:
        """R10, S5: long before its lease is renewed."""
        durably = await open_durably(endless, lease_duration=NEVER, lease_renew_interval=NEVER / 2)
        events = Events(durably)

        @durably.on("run:leased")
        async def cancel(event: RunLeasedEvent) -> None:
            await durably.cancel(event.run_id)

        for _ in range(5):
            run = await durably.jobs.endless.trigger(None)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await durably.process_one()
            found = await durably.get_run(run.id)
            assert found is not None
            assert found.status == "cancelled"
        assert events.of("step:fail") == []

    async def test_a_run_is_given_back_as_soon_as_it_is_leased(self, open_durably: OpenDurably) -> None:
        """R1, W4: it has not failed, and the next worker executes it."""
        durably = await open_durably(endless)
        events = Events(durably)
        leased = asyncio.Event()

        @durably.on("run:leased")
        def note(event: RunLeasedEvent) -> None:
            leased.set()

        run = await durably.jobs.endless.trigger(None)
        for attempt in range(1, 6):
            leased.clear()
            processing = asyncio.create_task(durably.process_one())
            async with asyncio.timeout(PATIENCE_SECONDS):
                await leased.wait()
                await durably.stop(timeout=0)
                await processing
            found = await durably.get_run(run.id)
            assert found is not None
            assert (found.status, found.lease_generation) == ("pending", attempt)
        assert [*events.of("step:fail"), *events.of("run:fail")] == []


class TestWithoutAWorker:
    async def test_process_one_executes_one_run_and_says_whether(self, open_durably: OpenDurably) -> None:
        """W5: works without `start()`."""
        durably = await open_durably(job)
        first, second = await durably.jobs.job.batch_trigger([1, 2])

        assert await durably.process_one(worker_id="cron") is True
        assert [run.id for run in await durably.get_runs(status="completed")] == [first.id]
        assert [run.id for run in await durably.get_runs(status="pending")] == [second.id]
        assert await durably.process_one() is True
        assert await durably.process_one() is False
        with pytest.raises(ValidationError, match="Invalid worker_id ''"):
            await durably.process_one(worker_id="")

    async def test_process_one_tells_its_listeners(self, open_durably: OpenDurably) -> None:
        """W5, E1: events come also without `start()`."""
        durably = await open_durably(job)
        events = Events(durably)
        await durably.jobs.job.trigger(1)
        await durably.process_one(worker_id="cron")

        assert events.types() == ["run:trigger", "run:leased", "step:start", "step:complete", "run:complete"]
        assert events.of("run:leased")[0].lease_owner == "cron"

    async def test_process_until_idle_goes_on_until_nothing_is_claimable(self, open_durably: OpenDurably) -> None:
        """W5: also through runs that the runs themselves trigger, and those behind a key."""

        @define_job(name="chain")
        async def chain(step: StepContext, input: int) -> None:
            if input > 0:
                await step.run("next", durably.jobs.chain.trigger, input - 1, concurrency_key="chain")

        durably = await open_durably(chain)
        await durably.jobs.chain.trigger(5, concurrency_key="chain")

        assert await durably.process_until_idle() == 6
        assert await durably.process_until_idle() == 0

    async def test_process_until_idle_may_be_bounded(self, open_durably: OpenDurably) -> None:
        """W5: `max_runs`."""
        durably = await open_durably(job)
        await durably.jobs.job.batch_trigger(list(range(10)))

        assert await durably.process_until_idle(max_runs=0) == 0
        assert await durably.process_until_idle(max_runs=4) == 4
        assert await durably.process_until_idle(max_runs=100) == 6
        with pytest.raises(ValidationError, match="max_runs"):
            await durably.process_until_idle(max_runs=-1)

    async def test_process_until_idle_does_maintenance_only_when_it_got_there(self, open_durably: OpenDurably) -> None:
        """W5: retention is part of it."""
        durably = await open_durably(job, retain_runs="0.01s")
        await durably.jobs.job.batch_trigger([1, 2])

        assert await durably.process_until_idle(max_runs=2) == 2
        await asyncio.sleep(0.1)
        assert await durably.process_until_idle(max_runs=0) == 0
        assert len(await durably.get_runs()) == 2
        assert await durably.process_until_idle() == 0
        assert await durably.get_runs() == []

    async def test_a_machine_whose_clock_is_ahead_purges_nothing_before_its_time(
        self, open_durably: OpenDurably, database: str
    ) -> None:
        """W3, R10: on PostgreSQL it is the server that says how old a run is."""
        if not database.startswith("postgresql"):
            pytest.skip("the machine that purges says it")
        durably = await open_durably(job, retain_runs="1d")
        ahead = await open_durably(job, retain_runs="1d", clock=FakeClock(datetime.now(UTC) + timedelta(days=30)))
        await durably.jobs.job.trigger(1)
        await durably.process_until_idle()

        await ahead.process_until_idle()
        assert await ahead.purge_runs(older_than="1d") == 0
        assert len(await durably.get_runs()) == 1


class TestLosingTheLease:
    async def test_who_loses_the_lease_stops_and_says_so(self, open_durably: OpenDurably) -> None:
        """L2: a renewal that fails aborts the signal, cancels the step and tells; the new holder goes on."""
        gate, seen = Gate(), []

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> Any:
            if step.attempt > 1:
                return await step.run("waiting", lambda: "second")
            try:
                await step.run("waiting", gate.pass_through)
            except LeaseLostError as error:
                seen.append((error.run_id, step.signal.reason))
                raise

        durably = await open_durably(held, lease_duration=60, lease_renew_interval=0.01)
        events = Events(durably)
        run = await durably.jobs.held.trigger(None)
        processing = asyncio.create_task(durably.process_one())
        await gate.reached()
        thief = await steal(durably.storage, run.id)

        told = await events.until("worker:error")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await processing

        assert seen == [(run.id, "lease-lost")]
        assert told.run_id == run.id
        assert run.id in told.error
        assert len(events.of("worker:error")) == 1
        assert events.of("step:cancel", "step:fail", "run:fail", "run:complete") == []
        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.lease_owner, found.lease_generation) == ("thief", thief.claim.generation)

    async def test_a_step_that_ends_after_the_lease_writes_nothing(self, open_durably: OpenDurably) -> None:
        """L1, L2: the write is refused by the generation even when nobody has noticed yet."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> str:
            await step.run("late", gate.pass_through)
            return "late"

        durably = await open_durably(held, lease_duration=60, lease_renew_interval=59)
        events = Events(durably)
        run = await durably.jobs.held.trigger(None)
        processing = asyncio.create_task(durably.process_one())
        await gate.reached()
        await steal(durably.storage, run.id)
        gate.open()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await processing

        assert await durably.get_steps(run.id) == []
        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.lease_owner) == (RunStatus.LEASED, "thief")
        # A few milliseconds later where the refused write left a gap in the log.
        await events.until("worker:error")
        assert [event.run_id for event in events.of("worker:error")] == [run.id]
        assert events.of("step:complete", "run:complete", "run:fail") == []

    async def test_leases_are_renewed_for_as_long_as_a_run_takes(self, open_durably: OpenDurably) -> None:
        """L2: every `lease_renew_interval`, with an event, and the stored expiry moves on."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> int:
            await gate.pass_through()
            return step.attempt

        durably = await open_durably(held, start=True, lease_duration=2, lease_renew_interval=0.05, worker_id="me")
        events = Events(durably)
        run = await durably.jobs.held.trigger(None, labels={"a": "b"})
        first = await events.until("run:lease-renewed")
        third = await events.until("run:lease-renewed", 3)
        gate.open()

        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == 1
        assert (first.run_id, first.lease_owner, first.labels) == (run.id, "me", {"a": "b"})
        assert third.lease_expires_at > first.lease_expires_at


async def steal(store: Store, run_id: str) -> Claimed:
    """Take a run from its holder, as if its lease had expired: it is given back and claimed by another."""
    run = await store.get_run(run_id)
    assert run is not None
    assert run.lease_owner is not None
    assert run.lease_expires_at is not None
    await store.release([Claim(run.id, run.lease_generation, run.lease_owner, run.lease_expires_at)])
    (claimed,) = await store.claim("thief", [run.job_name], 1, 60)
    return claimed


class TestRegistering:
    async def test_handles_are_found_by_name(self, open_durably: OpenDurably) -> None:
        """`jobs`, `get_job` and `register` agree."""
        durably = await open_durably(job)

        assert durably.jobs.job is durably.jobs["job"] is durably.get_job("job") is durably.get_job(job)
        assert (list(durably.jobs), len(durably.jobs), "job" in dir(durably.jobs)) == (["job"], 1, True)
        assert durably.jobs.job.name == "job"
        assert durably.get_job("nobody") is None
        with pytest.raises(AttributeError, match="registered: job"):
            _ = durably.jobs.nobody
        with pytest.raises(KeyError, match="registered: job"):
            _ = durably.jobs["nobody"]
        assert ("nobody" in durably.jobs, durably.jobs.get("nobody")) == (False, None)

    async def test_a_job_that_is_not_registered_fails_nothing(self, open_durably: OpenDurably) -> None:
        """L5: process_one without jobs has nothing to do."""
        durably = await open_durably()

        assert await durably.process_one() is False
        assert await durably.process_until_idle() == 0

    async def test_a_job_that_always_fails_is_recorded_every_time(self, open_durably: OpenDurably) -> None:
        """R1: failure is an end, not a retry."""

        @define_job(name="bad")
        async def bad(step: StepContext, input: Any) -> None:
            raise ValueError("always")

        durably = await open_durably(bad, start=True)
        for _ in range(3):
            with pytest.raises(RunFailedError, match="always"):
                await durably.jobs.bad.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        assert {run.lease_generation for run in await durably.get_runs(status="failed")} == {1}

    @pytest.mark.two_processes
    async def test_todays_schema_decides_at_execution_too(self, open_durably: OpenDurably) -> None:
        """R3: a stored input that the job no longer takes fails the run by place."""

        @define_job(name="job")
        async def today(step: StepContext, input: int) -> None: ...

        before = await open_durably(job)
        run = await before.jobs.job.trigger({"n": 1})
        durably = await open_durably(today)
        await durably.process_one()

        found = await durably.get_run(run.id)
        assert found is not None
        assert found.status == "failed"
        assert found.error is not None
        assert "input" in found.error
