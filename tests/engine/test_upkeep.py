"""W3: what is done now and then, by a clock that the test moves, and what happens when it cannot be done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    Durably,
    LeaseLostError,
    StepContext,
    StoreError,
    StoreUnavailableError,
    ValueRefusedError,
    create_durably,
    define_job,
    with_log_persistence,
)
from durably.core.leases import Claim
from durably.testing import FakeClock
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably, until


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    step.log.info("line")
    return await step.run("one", lambda: input)


async def poll(durably: Durably) -> None:
    """Let the worker look around once, as it does whenever jobs were registered."""
    durably.register({})
    await asyncio.sleep(0)


class TestRetention:
    async def test_old_runs_are_purged_when_idle_once_a_minute(
        self, open_durably: OpenDurably, clock: FakeClock
    ) -> None:
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

    async def test_more_than_a_hundred_go_in_portions(self, open_durably: OpenDurably, clock: FakeClock) -> None:
        """W3: 100 at a time, until none is left."""
        durably = await open_durably(job, clock=clock, retain_runs="1h")
        for run in await durably.jobs.job.batch_trigger(list(range(250))):
            await durably.cancel(run.id)
        clock.advance(hours=2)

        assert await durably.process_until_idle() == 0
        assert await durably.get_runs() == []

    async def test_a_worker_that_is_never_idle_purges_all_the_same(
        self, open_durably: OpenDurably, clock: FakeClock
    ) -> None:
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

    async def test_without_retention_nothing_is_deleted(self, open_durably: OpenDurably, clock: FakeClock) -> None:
        """W3: `retain_runs` defaults to keeping everything."""
        durably = await open_durably(job, clock=clock)
        await durably.jobs.job.trigger(1)
        await durably.process_until_idle()
        clock.advance(days=10_000)

        await durably.process_until_idle()
        assert len(await durably.get_runs()) == 1


class TestLeases:
    async def test_expired_leases_of_others_come_back_when_idle(
        self, open_durably: OpenDurably, clock: FakeClock
    ) -> None:
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
        self, open_durably: OpenDurably, clock: FakeClock
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

    async def test_the_holder_stops_by_itself_when_its_lease_runs_out(
        self, open_durably: OpenDurably, clock: FakeClock
    ) -> None:
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

    async def test_a_lease_that_runs_out_while_its_renewal_waits_stops_the_run(self, open_durably: OpenDurably) -> None:
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
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
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
        self, open_durably: OpenDurably, clock: FakeClock
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
        self, open_durably: OpenDurably, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
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
        self, open_durably: OpenDurably, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
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
        self, open_durably: OpenDurably, clock: FakeClock, caplog: pytest.LogCaptureFixture
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

    async def test_closing_does_not_block_the_loop_while_a_renewal_waits(self, open_durably: OpenDurably) -> None:
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

    async def test_a_short_lease_is_renewed_in_time_without_being_told_how_often(
        self, open_durably: OpenDurably
    ) -> None:
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
        self, open_durably: OpenDurably, clock: FakeClock
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


class TestTrouble:
    async def test_a_database_that_goes_away_is_looked_for_again(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """W3: the worker tells, backs off with jitter, goes on by itself, and has lost nothing."""
        durably = await open_durably(job)
        events = Events(durably)
        claim, failures = durably.storage.claim, [StoreUnavailableError("gone")] * 3

        async def flaky(*args: Any, **kwargs: Any) -> Any:
            if failures:
                raise failures.pop()
            return await claim(*args, **kwargs)

        monkeypatch.setattr(durably.storage, "claim", flaky)
        run = await durably.jobs.job.trigger(1)
        await durably.start()

        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == 1
        assert [event.error for event in events.of("worker:error")] == ["cannot look for work, trying again: gone"] * 3

    async def test_an_unexpected_error_does_not_stop_the_worker(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """W3: whatever a store or a row throws, errors become `worker:error` and never stop the loop."""
        durably = await open_durably(job)
        events = Events(durably)
        claim, failures = durably.storage.claim, [ValueError("a row that cannot be read")]

        async def flaky(*args: Any, **kwargs: Any) -> Any:
            if failures:
                raise failures.pop()
            return await claim(*args, **kwargs)

        monkeypatch.setattr(durably.storage, "claim", flaky)
        run = await durably.jobs.job.trigger(1)
        await durably.start()

        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == 1
        assert "a row that cannot be read" in (await events.until("worker:error")).error

    @pytest.mark.parametrize("error", [StoreError("broken"), ValueError("unexpected")], ids=repr)
    async def test_maintenance_that_fails_is_told_and_tried_again(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, clock: FakeClock, error: Exception
    ) -> None:
        """W3: it stops nobody."""
        durably = await open_durably(job, clock=clock)
        events = Events(durably)

        async def fail() -> int:
            raise error

        monkeypatch.setattr(durably.storage, "recover_expired", fail)
        await durably.start()
        told = await events.until("worker:error")
        assert (told.context, str(error) in told.error) == ("maintenance", True)
        assert (await durably.jobs.job.trigger_and_wait(1, timeout=PATIENCE_SECONDS)).output == 1

        clock.advance(minutes=2)
        await poll(durably)
        await events.until("worker:error", 2)

    @pytest.mark.parametrize("verb", ["record_step", "finish"])
    async def test_a_checkpoint_is_written_again_while_the_database_is_away(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, verb: str
    ) -> None:
        """S1, W3: the step does not run again, it waits."""
        executed: list[int] = []

        @define_job(name="counted")
        async def counted(step: StepContext, input: Any) -> Any:
            await step.run("one", lambda: executed.append(1))
            return "done"

        durably = await open_durably(counted)
        write, failures = getattr(durably.storage, verb), [StoreUnavailableError("gone")] * 2

        async def flaky(*args: Any, **kwargs: Any) -> Any:
            if failures:
                raise failures.pop()
            return await write(*args, **kwargs)

        monkeypatch.setattr(durably.storage, verb, flaky)
        events = Events(durably)
        run = await durably.jobs.counted.trigger(None)
        await durably.process_one()

        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == "done"
        assert executed == [1]
        assert len(events.of("worker:error")) == 2

    @pytest.mark.parametrize("verb", ["record_step", "finish", "load_checkpoints"])
    async def test_a_store_beyond_help_gives_the_run_up(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, clock: FakeClock, verb: str
    ) -> None:
        """S1: nothing is pretended; when the lease ends the run goes on."""
        durably = await open_durably(job, clock=clock)
        events = Events(durably)
        run = await durably.jobs.job.trigger(1)
        if verb == "load_checkpoints":
            await durably.storage.claim("dead", ["job"], 1, 1)
            clock.advance(seconds=1)

        async def fail(*args: Any, **kwargs: Any) -> Any:
            raise StoreError("damaged")

        with monkeypatch.context() as broken:
            broken.setattr(durably.storage, verb, fail)
            await durably.process_one()
        found = await durably.get_run(run.id)
        assert found is not None
        assert found.status in ("leased", "pending")
        assert events.of("run:fail", "run:complete") == []
        (told,) = events.of("worker:error")
        assert told.run_id == run.id
        assert "damaged" in told.error
        clock.advance(minutes=1)
        assert await durably.process_one()
        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == 1

    @pytest.mark.parametrize("input", ["works", "fails", "fails in a step", "works in a step"])
    async def test_a_store_that_refuses_even_a_failure_gives_the_run_up(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, input: str
    ) -> None:
        """S1: as a server that takes nothing at all; it is told once, and the run goes on when the lease ends."""

        @define_job(name="refused")
        async def refused(step: StepContext, input: str) -> None:
            if "step" in input:
                await step.run("one", lambda: 1 / (input == "works in a step"))
            elif input == "fails":
                raise ValueError(input)

        durably = await open_durably(refused)
        events = Events(durably)
        run = await durably.jobs.refused.trigger(input)

        async def refuse(*args: Any, **kwargs: Any) -> Any:
            raise ValueRefusedError("takes nothing")

        monkeypatch.setattr(durably.storage, "record_step", refuse)
        monkeypatch.setattr(durably.storage, "finish", refuse)
        await durably.process_one()

        found = await durably.get_run(run.id)
        assert found is not None
        assert found.status == "leased"
        assert events.of("run:fail", "run:complete", "step:fail", "step:complete") == []
        (told,) = events.of("worker:error")
        assert "is executed again when its lease has ended, because it cannot be written: takes nothing" in told.error

    async def test_the_last_progress_is_stored_whatever_became_of_the_write_before(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """S7: the end of the run does not rely on a write that is under way and fails."""
        monkeypatch.setattr("durably.engine.progress._STORE_SECONDS", 0.0)
        gate, ending = Gate(), asyncio.Event()

        @define_job(name="tells")
        async def tells(step: StepContext, input: Any) -> None:
            step.progress(5, 5)
            await gate.reached()

        async def fails(*args: Any) -> bool:
            await gate.pass_through()
            raise StoreUnavailableError("gone")

        durably = await open_durably(tells)
        monkeypatch.setattr(durably.storage, "save_progress", fails)
        run = await durably.jobs.tells.trigger(1)
        executing = asyncio.create_task(durably.process_one())
        await gate.reached()
        asyncio.get_running_loop().call_later(0.05, ending.set)
        await ending.wait()
        gate.open()
        await executing

        found = await durably.get_run(run.id)
        assert found is not None
        assert found.progress is not None
        assert found.progress.current == 5

    async def test_logs_wait_while_the_database_is_away(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """P1: lines are stored when it is back."""
        monkeypatch.setattr("durably.log_persistence._RETRY_SECONDS", 0.01)
        durably = await open_durably(job)
        durably.use(with_log_persistence())
        append, failures = durably.storage.append_logs, [StoreUnavailableError("gone")] * 2

        async def flaky(*args: Any) -> None:
            if failures:
                raise failures.pop()
            await append(*args)

        monkeypatch.setattr(durably.storage, "append_logs", flaky)
        run = await durably.jobs.job.trigger(1)
        await durably.process_one()
        await durably.stop()

        assert [line.message for line in await durably.get_logs(run.id)] == ["line"]

    @pytest.mark.parametrize("is_silent", [False, True], ids=["refusing", "silent"])
    async def test_a_database_that_stays_away_holds_up_neither_stop_nor_close(
        self,
        open_durably: OpenDurably,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        is_silent: bool,
    ) -> None:
        """P1: lines that are lost are counted in the log; a database that gives no answer is away too."""
        monkeypatch.setattr("durably.plugins._SHORTEST_FLUSH_SECONDS", 0.05)
        durably = await open_durably(job)
        durably.use(with_log_persistence())

        async def be_away(*args: Any) -> None:
            if is_silent:
                await asyncio.Event().wait()
            raise StoreUnavailableError("gone")

        monkeypatch.setattr(durably.storage, "append_logs", be_away)
        await durably.jobs.job.batch_trigger([1, 2])
        assert await durably.process_until_idle() == 2
        async with asyncio.timeout(PATIENCE_SECONDS):
            await durably.stop(timeout=0.05)
            assert "stopped before every plugin had stored what it holds" in caplog.text
            assert "are lost" not in caplog.text
            await durably.close()

        assert "2 log lines are lost" in caplog.text

    async def test_reading_logs_fails_while_the_database_is_away(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """P1: what a run has told is not known then; nobody waits for the database to come back."""
        durably = await open_durably(job)
        durably.use(with_log_persistence())

        async def be_away(*args: Any) -> None:
            raise StoreUnavailableError("gone")

        run = await durably.jobs.job.trigger(1)
        with monkeypatch.context() as away:
            away.setattr(durably.storage, "append_logs", be_away)
            await durably.process_one()
            async with asyncio.timeout(PATIENCE_SECONDS):
                with pytest.raises(StoreUnavailableError, match="gone"):
                    await durably.get_logs(run.id)

        assert [line.message for line in await durably.get_logs(run.id)] == ["line"]

    async def test_lines_are_counted_also_when_the_event_loop_ends_without_a_close(
        self, database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """P1: nothing is lost without a word."""
        monkeypatch.setattr("durably.plugins._SHORTEST_FLUSH_SECONDS", 0.05)

        async def be_away(*args: Any) -> None:
            raise StoreUnavailableError("gone")

        async def forget_to_close() -> None:
            durably = create_durably(database=database, jobs={"job": job})
            durably.use(with_log_persistence())
            await durably.migrate()
            monkeypatch.setattr(durably.storage, "append_logs", be_away)
            await durably.jobs.job.trigger(1)
            await durably.process_one()
            await durably.stop(timeout=0.05)
            instances.append(durably)

        instances: list[Durably] = []
        await asyncio.to_thread(asyncio.run, forget_to_close())

        assert "1 log lines are lost" in caplog.text
        await instances[0].storage.close()

    async def test_logs_that_cannot_be_stored_are_said_to_be_lost(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """P1: the run is not harmed; too many waiting lines are dropped, and that is said too."""
        monkeypatch.setattr("durably.log_persistence._MOST_WAITING", 2)
        durably = await open_durably(job)
        durably.use(with_log_persistence())

        async def fail(*args: Any) -> None:
            raise StoreError("damaged")

        monkeypatch.setattr(durably.storage, "append_logs", fail)
        for run in await durably.jobs.job.batch_trigger([1, 2, 3]):
            assert run.status == "pending"
        assert await durably.process_until_idle() == 3
        await durably.stop()

        assert "2 log lines are lost" in caplog.text
        assert "damaged" in caplog.text
        assert "1 log lines were dropped" in caplog.text


class TestStopping:
    async def test_a_run_that_is_just_being_claimed_is_given_back(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
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
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
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
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
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
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
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
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
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
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
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


class TestLife:
    async def test_a_start_that_waited_for_a_stop_does_not_outlive_the_close(self, open_durably: OpenDurably) -> None:
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

    async def test_progress_after_the_end_is_none(self, open_durably: OpenDurably) -> None:
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
        assert durably._hub.store_progress == {}

    async def test_an_instance_is_a_context(self, database: str) -> None:
        """`init()` on entry, `stop()` and `close()` on exit."""
        async with create_durably(database=database, jobs={"job": job}) as durably:
            assert (await durably.jobs.job.trigger_and_wait(1, timeout=PATIENCE_SECONDS)).output == 1
        with pytest.raises(StoreError, match="closed"):
            await durably.get_runs()

    async def test_an_error_on_its_way_out_does_not_wait_for_running_jobs(
        self, database: str, open_durably: OpenDurably
    ) -> None:
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

    async def test_a_context_that_cannot_begin_closes_what_it_opened(self, tmp_path: Any) -> None:
        """Entry fails with the reason."""
        with pytest.raises(StoreError, match="no directory"):
            async with create_durably(database=tmp_path / "no" / "x.db"):
                pytest.fail("never entered")

    async def test_retention_of_nothing_takes_a_timedelta(self, open_durably: OpenDurably, clock: FakeClock) -> None:
        """W3: `retain_runs` as a timedelta."""
        durably = await open_durably(job, clock=clock, retain_runs=timedelta(seconds=1))
        await durably.jobs.job.trigger(1)
        await durably.process_until_idle()
        clock.advance(minutes=2)
        await durably.process_until_idle()

        assert await durably.get_runs() == []
