"""The rare ways in which an execution ends: lost on the last write, given up twice, a loop that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durably import (
    DurablyError,
    LeaseLostError,
    LogWriteEvent,
    Run,
    RunCancelledError,
    RunStatus,
    StepContext,
    StoreError,
    StoreUnavailableError,
    SyncStepContext,
    ValidationError,
    create_durably,
    define_job,
    with_log_persistence,
)
from durably.core.leases import Claim
from durably.core.store import LeaseRenewer, Store
from durably.engine.abort import AbortSignal
from durably.engine.step_types import result_codec, takes_signal
from durably.testing import FakeClock
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably, until


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    return await step.run("one", lambda: input)


async def fail(*args: Any, **kwargs: Any) -> Any:
    raise StoreError("damaged")


async def give_to_another(store: Store, run_id: str) -> None:
    """Let another worker hold a run that is held here."""
    run = await store.get_run(run_id)
    assert run is not None
    assert run.lease_owner is not None
    assert run.lease_expires_at is not None
    await store.release([Claim(run.id, run.lease_generation, run.lease_owner, run.lease_expires_at)])
    assert await store.claim("thief", [run.job_name], 1, 60)


class TestTheLastWrite:
    async def test_an_end_that_comes_too_late_is_not_recorded(self, open_durably: OpenDurably) -> None:
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

    async def test_a_job_that_catches_a_broken_store_starts_no_further_step(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """S1: once a step could not be stored, none after it may run."""
        seen: list[Any] = []

        @define_job(name="stubborn")
        async def stubborn(step: StepContext, input: Any) -> None:
            try:
                await step.run("one", lambda: 1)
            except StoreError as error:
                seen.append(str(error))
            try:
                await step.run("two", lambda: seen.append("executed"))
            except LeaseLostError:
                seen.append("refused")

        durably = await open_durably(stubborn)
        run = await durably.jobs.stubborn.trigger(None)
        monkeypatch.setattr(durably.storage, "record_step", fail)
        await durably.process_one()

        assert seen == ["damaged", "refused"]
        found = await durably.get_run(run.id)
        assert found is not None
        assert found.status == "leased"

    async def test_leases_that_cannot_be_given_back_end_by_themselves(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
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

    async def test_checkpoints_that_cannot_be_read_nor_the_run_given_back(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
    ) -> None:
        """S4: the run is not executed from the start; it is free when its lease ends."""
        durably = await open_durably(job, clock=clock)
        run = await durably.jobs.job.trigger(1)
        await durably.storage.claim("dead", ["job"], 1, 1)
        clock.advance(seconds=1)
        with monkeypatch.context() as broken:
            broken.setattr(durably.storage, "load_checkpoints", fail)
            broken.setattr(durably.storage, "release", fail)
            assert await durably.process_one()
        clock.advance(minutes=1)

        assert await durably.process_one()
        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).lease_generation == 3

    async def test_checkpoints_are_read_again_when_the_database_was_away(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
    ) -> None:
        """W3: a run that was claimed is not left to the end of its lease because one read failed."""
        durably = await open_durably(job, clock=clock)
        events = Events(durably)
        run = await durably.jobs.job.trigger(1)
        await durably.storage.claim("dead", ["job"], 1, 1)
        clock.advance(seconds=1)
        read = durably.storage.load_checkpoints
        answers: list[Any] = [StoreUnavailableError("away")] * 2

        async def read_at_last(run_id: str) -> dict[str, str | None]:
            if answers:
                raise answers.pop()
            return await read(run_id)

        monkeypatch.setattr(durably.storage, "load_checkpoints", read_at_last)
        assert await durably.process_one()

        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).lease_generation == 2
        assert len([event for event in events.of("worker:error") if "trying again: away" in event.error]) == 2

    async def test_why_a_write_was_refused_is_asked_again_when_the_database_was_away(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """L2: a job whose lease is lost never sees that the reason could not be read."""
        seen: list[BaseException] = []

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            await give_to_another(durably.storage, run.id)
            try:
                await step.run("late", lambda: 1)
            except BaseException as error:
                seen.append(error)
                raise

        durably = await open_durably(held, lease_duration=60, lease_renew_interval=50)
        run = await durably.jobs.held.trigger(None)
        read = durably.storage.get_run
        answers: list[Any] = [StoreUnavailableError("away")]

        async def read_at_last(run_id: str) -> Any:
            held_by = await read(run_id)
            if held_by is not None and held_by.lease_owner == "thief" and answers:
                raise answers.pop()
            return held_by

        monkeypatch.setattr(durably.storage, "get_run", read_at_last)
        await durably.process_one()

        assert answers == []
        assert [type(error) for error in seen] == [LeaseLostError]

    @pytest.mark.parametrize("error", [ValueError("unexpected"), LeaseLostError("run")], ids=repr)
    async def test_an_error_of_the_worker_itself_stops_nobody(
        self,
        open_durably: OpenDurably,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        clock: FakeClock,
        error: BaseException,
    ) -> None:
        """W3: whatever happens around one run, the next one is executed."""

        async def throw(*args: Any) -> Any:
            raise error

        durably = await open_durably(job, clock=clock)
        await durably.jobs.job.trigger(1)
        await durably.storage.claim("dead", ["job"], 1, 1)
        clock.advance(seconds=1)
        with monkeypatch.context() as broken:
            broken.setattr(durably.storage, "load_checkpoints", throw)
            await durably.process_one()
        second = await durably.jobs.job.trigger(2)
        await durably.process_one()

        assert (await durably.wait_for_run(second.id, timeout=PATIENCE_SECONDS)).output == 2
        assert repr(error) in caplog.text

    async def test_progress_that_could_not_be_stored_is_stored_with_the_end(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """S7: the last value is always stored."""
        gate, tried = Gate(), asyncio.Event()

        async def away(*args: Any) -> bool:
            tried.set()
            raise StoreUnavailableError("away")

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            step.progress(7)
            await gate.pass_through()

        durably = await open_durably(held)
        monkeypatch.setattr(durably.storage, "save_progress", away)
        run = await durably.jobs.held.trigger(None)
        processing = asyncio.create_task(durably.process_one())
        async with asyncio.timeout(PATIENCE_SECONDS):
            await tried.wait()
            gate.open()
            await processing

        found = await durably.get_run(run.id)
        assert found is not None
        assert found.progress is not None
        assert found.progress.current == 7


def run_and_leave_all(work: Coroutine[Any, Any, Any]) -> Any:
    """Close an event loop without ending what still runs there."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


class TestALoopThatIsGone:
    def test_a_program_that_just_ends_leaves_its_runs_to_others(self, database: str) -> None:
        """L2: no thread of it keeps a lease alive, and a plain job's thread ends at its next step."""
        entered, go_on, ended = threading.Event(), threading.Event(), threading.Event()
        seen: list[Any] = []

        @define_job(name="plain")
        def plain(step: SyncStepContext, input: Any) -> None:
            entered.set()
            assert go_on.wait(PATIENCE_SECONDS)
            step.log.info("nobody is left to tell")
            try:
                step.run("one", lambda: seen.append("executed"))
            except DurablyError as error:
                seen.append(type(error))
            finally:
                ended.set()

        async def begin_and_leave() -> str:
            durably = create_durably(
                database=database, jobs={"plain": plain}, lease_duration=0.3, lease_renew_interval=0.05
            )
            await durably.init()
            instances.append(durably)
            run = await durably.jobs.plain.trigger(None)
            await asyncio.to_thread(entered.wait, PATIENCE_SECONDS)
            return run.id

        async def claim_what_is_left(run_id: str) -> Any:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (claimed := await instances[0].storage.claim("heir", ["plain"], 1, 60)):
                    await asyncio.sleep(0.01)
            await instances[0].close()
            return claimed[0].run.id

        instances: list[Any] = []
        run_id = asyncio.run(begin_and_leave())
        go_on.set()
        assert ended.wait(PATIENCE_SECONDS)
        assert seen == [LeaseLostError]
        assert asyncio.run(claim_what_is_left(run_id)) == run_id


class SlowlyClosing:
    """A renewer whose `close` takes until it is told."""

    def __init__(self, renewer: LeaseRenewer) -> None:
        self.renewals = 0
        self.is_closing = threading.Event()
        self.may_close = threading.Event()
        self.was_used_while_closing = False
        self._renewer = renewer

    def renew(self, claims: Sequence[Claim], lease_seconds: float) -> dict[str, Claim]:
        self.was_used_while_closing |= self.is_closing.is_set()
        self.renewals += 1
        return self._renewer.renew(claims, lease_seconds)

    def close(self) -> None:
        self.is_closing.set()
        self.may_close.wait(PATIENCE_SECONDS)
        self._renewer.close()


class TestOneLoopAfterTheOther:
    @pytest.mark.parametrize("runs", [asyncio.run, run_and_leave_all], ids=["asyncio.run", "closed loop"])
    def test_a_worker_goes_on_where_the_instance_is_used_next(
        self, database: str, runs: Callable[[Coroutine[Any, Any, Any]], Any]
    ) -> None:
        """W1: as in a script that calls `asyncio.run` for each of its commands; what was executing is resumed."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> int:
            if step.attempt == 1:
                await gate.pass_through()
            return step.attempt

        durably = create_durably(
            database=database,
            jobs={"held": held, "job": job},
            lease_duration=1,
            lease_renew_interval=0.2,
            max_concurrent_runs=1,
        )

        async def begin() -> str:
            await durably.init()
            run = await durably.jobs.held.trigger(None)
            await gate.reached()
            return run.id

        async def go_on(run_id: str) -> tuple[Any, Any]:
            try:
                finished = await durably.jobs.job.trigger_and_wait(7, timeout=PATIENCE_SECONDS)
                return finished.output, (await durably.wait_for_run(run_id, timeout=PATIENCE_SECONDS)).output
            finally:
                await durably.close()

        assert asyncio.run(go_on(runs(begin()))) == (7, 2)

    def test_leases_are_renewed_while_the_renewer_of_the_loop_before_is_being_closed(
        self, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """L2: to close a connection may take a while, and nobody may use it meanwhile."""
        renewers: list[SlowlyClosing] = []

        @define_job(name="renewed")
        async def renewed(step: StepContext, input: Any) -> None:
            before = sum(renewer.renewals for renewer in renewers)
            while sum(renewer.renewals for renewer in renewers) == before:
                await asyncio.sleep(0.005)

        durably = create_durably(
            database=database, jobs={"renewed": renewed}, lease_duration=1, lease_renew_interval=0.05
        )
        make = durably.storage.lease_renewer

        def make_slow() -> SlowlyClosing:
            renewers.append(SlowlyClosing(make()))
            return renewers[-1]

        async def execute() -> bool:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await durably.jobs.renewed.trigger(None)
                return await durably.process_one()

        monkeypatch.setattr(durably.storage, "lease_renewer", make_slow)
        asyncio.run(durably.migrate())
        assert asyncio.run(execute())
        assert renewers[0].is_closing.wait(PATIENCE_SECONDS)
        try:
            assert asyncio.run(execute())
        finally:
            for renewer in renewers:
                renewer.may_close.set()
            asyncio.run(durably.close())

        assert not renewers[0].was_used_while_closing

    def test_a_worker_that_was_stopped_stays_so(self, database: str) -> None:
        """W4: only what was started goes on."""
        durably = create_durably(database=database, jobs={"job": job})

        async def begin_and_stop() -> None:
            await durably.init()
            await durably.stop()

        async def trigger() -> Any:
            await durably.jobs.job.trigger(1)
            assert await durably.process_one()
            await durably.close()

        asyncio.run(begin_and_stop())
        asyncio.run(trigger())


class TestStepTypes:
    def test_annotations_that_cannot_be_had_are_none(self) -> None:
        """S2: then the value is stored unchecked."""

        def unknown() -> Nowhere: ...  # type: ignore[name-defined] # noqa: F821 - unknown on purpose

        def broken() -> Any: ...

        broken.__annotations__["return"] = "not ] python"

        class Unhashable:
            __hash__ = None  # type: ignore[assignment]

        def odd() -> Any: ...

        odd.__annotations__["return"] = Unhashable()
        assert result_codec("step", unknown, None) is None
        assert result_codec("step", broken, None) is None
        assert result_codec("step", odd, None) is None
        assert result_codec("step", print, None) is None

    def test_a_signal_parameter_is_found_where_it_can_be_seen(self) -> None:
        """`fn` gets the signal if it has a parameter of that name."""

        class WithSignal:
            def __call__(self, *, signal: Any) -> None: ...

        assert takes_signal(lambda signal: signal)
        assert takes_signal(WithSignal())
        assert not takes_signal(lambda: None)
        assert not takes_signal(dict)


class TestEnding:
    async def test_a_cancel_that_arrives_while_a_step_is_committed_ends_the_job(
        self, open_durably: OpenDurably
    ) -> None:
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
        self, open_durably: OpenDurably, caplog: pytest.LogCaptureFixture
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

    async def test_a_cancelled_claim_is_given_back(self, open_durably: OpenDurably) -> None:
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

    async def test_a_stop_that_was_cancelled_leaves_a_worker_that_works(self, open_durably: OpenDurably) -> None:
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

    async def test_steps_that_would_wait_for_themselves_are_refused(self, open_durably: OpenDurably) -> None:
        """S2: the error names the step, or the place."""

        @define_job(name="itself")
        async def itself(step: StepContext, input: Any) -> None:
            async def outer() -> Any:
                return await step.run("a", lambda: 1)

            await step.run("a", outer)

        @define_job(name="plain")
        def plain(step: SyncStepContext, input: Any) -> None:
            async def outer() -> Any:
                return step.run("inner", lambda: 1)

            step.run("outer", outer)

        durably = await open_durably(itself, plain)
        await durably.jobs.itself.trigger(1)
        await durably.jobs.plain.trigger(1)
        await durably.process_until_idle()
        errors = {run.job_name: run.error or "" for run in await durably.get_runs()}
        assert "would wait for itself" in errors["itself"]
        assert "on the event loop" in errors["plain"]

    async def test_a_listener_that_raises_a_cancellation_is_reported(self, open_durably: OpenDurably) -> None:
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

    async def test_an_output_that_is_refused_by_an_unstorable_name_fails_the_run(
        self, open_durably: OpenDurably
    ) -> None:
        """R3: the message is made storable, else the run could never end."""

        @define_job(name="odd")
        async def odd(step: StepContext, input: Any) -> Any:
            return {"\ud800": {1, 2}}

        durably = await open_durably(odd)
        await durably.jobs.odd.trigger(1)
        await durably.process_one()
        (run,) = await durably.get_runs()
        assert run.status is RunStatus.FAILED

    async def test_a_start_waits_for_the_stop_before_it(self, open_durably: OpenDurably) -> None:
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


class TestMemory:
    @pytest.mark.parametrize("input", ["works", "fails", "fails in a step"])
    async def test_a_finished_run_is_freed_at_once(self, open_durably: OpenDurably, input: str) -> None:
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


class TestInstants:
    async def test_purging_up_to_an_instant_needs_to_know_its_zone(self, open_durably: OpenDurably) -> None:
        """R10: `older_than` may be an aware datetime."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(1)
        await durably.process_one()

        assert await durably.purge_runs(older_than=datetime.now(UTC) - timedelta(days=1)) == 0
        with pytest.raises(ValidationError, match="aware datetime"):
            await durably.purge_runs(older_than=datetime(2030, 1, 1))  # noqa: DTZ001 - refused for that
        assert await durably.purge_runs(older_than=datetime.now(UTC) + timedelta(days=1)) == 1
        assert await durably.get_run(run.id) is None


@pytest.mark.parametrize("cancels", [True, False], ids=["cancelled", "closed"])
def test_a_plain_job_whose_event_loop_ends_is_told_so(
    database: str, monkeypatch: pytest.MonkeyPatch, *, cancels: bool
) -> None:
    """L2: its thread would wait for an answer for ever, and Python for the thread; it is no error of the step."""
    monkeypatch.setattr("durably.engine.step_context._LOOK_AT_LOOP_SECONDS", 0.05)
    asked, answered = threading.Event(), threading.Event()
    told: list[BaseException] = []

    async def never_end() -> None:
        asked.set()
        await asyncio.Event().wait()

    @define_job(name="plain")
    def plain(step: SyncStepContext, input: None) -> None:
        try:
            step.run("last", never_end)
        except BaseException as error:
            told.append(error)
            raise
        finally:
            answered.set()

    durably = create_durably(database=database, jobs={"plain": plain})

    async def leave_in_the_middle() -> None:
        await durably.init()
        await durably.jobs.plain.trigger(None)
        await asyncio.to_thread(asked.wait, PATIENCE_SECONDS)

    if cancels:
        asyncio.run(leave_in_the_middle())
    else:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave_in_the_middle())
        loop.close()
    assert answered.wait(PATIENCE_SECONDS)
    assert [type(error) for error in told] == [LeaseLostError]
    asyncio.run(durably.close())


def test_a_loop_that_is_closed_in_the_midst_of_a_run_leaves_the_instance_usable(database: str) -> None:
    """L2: also one that never had a worker; the run is resumed when its lease has ended."""
    begun: list[int] = []

    @define_job(name="held")
    async def held(step: StepContext, input: int) -> None:
        begun.append(input)
        if begun == [1]:
            await asyncio.Event().wait()

    durably = create_durably(database=database, jobs={"held": held}, lease_duration=1)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        await durably.migrate()
        await durably.jobs.held.trigger(1)
        processing = asyncio.create_task(durably.process_one())
        while not begun:
            await asyncio.sleep(0.001)
        processing.cancel()

    loop.run_until_complete(begin())
    loop.close()

    async def go_on() -> None:
        await durably.jobs.held.trigger(2)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(begun) < 3:
                await durably.process_until_idle()
                await asyncio.sleep(0.05)
        await durably.close()

    asyncio.run(go_on())
    assert begun == [1, 2, 1]


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


def test_what_a_job_makes_of_the_end_of_the_program_is_no_failure_of_it(database: str) -> None:
    """W4: the end of `asyncio.run` cancels its tasks; the next process resumes the run, whatever its code raised."""
    begun: list[int] = []

    @define_job(name="converts")
    async def converts(step: StepContext, input: None) -> None:
        begun.append(step.attempt)
        if step.attempt > 1:
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("connection lost") from None

    left = create_durably(database=database, jobs={"converts": converts}, lease_duration=1)

    async def leave_in_the_midst() -> str:
        await left.init()
        run = await left.jobs.converts.trigger(None)
        while not begun:
            await asyncio.sleep(0.001)
        return run.id

    run_id = asyncio.run(leave_in_the_midst())

    async def go_on() -> Run[Any]:
        async with create_durably(database=database, jobs={"converts": converts}) as durably:
            return await durably.wait_for_run(run_id, timeout=PATIENCE_SECONDS)

    assert asyncio.run(go_on()).status == "completed"
    assert begun == [1, 2]
    asyncio.run(left.close())


def test_log_lines_are_stored_on_a_loop_that_follows_one_that_was_closed(database: str) -> None:
    """P1: also where the first one did not cancel what was under way, and again at the close."""

    @define_job(name="logs")
    async def logs(step: StepContext, input: int) -> None:
        step.log.info(str(input))

    durably = create_durably(database=database, jobs={"logs": logs}).use(with_log_persistence())
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        await durably.migrate()
        await durably.jobs.logs.trigger(1)
        await durably.process_one()

    loop.run_until_complete(begin())
    loop.close()

    async def go_on() -> list[str]:
        run = await durably.jobs.logs.trigger(2)
        await durably.process_one()

        async def is_stored() -> bool:
            return bool(await durably.storage.get_logs(run.id))

        await until(is_stored)
        lines = await durably.get_logs(run.id)
        await durably.close()
        return [line.message for line in lines]

    assert asyncio.run(go_on()) == ["2"]


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


@pytest.mark.parametrize("ends", ["well", "with an error"])
async def test_progress_that_went_with_a_step_that_was_given_up_is_stored_later(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """S7: the last value is always stored."""

    async def end() -> int:
        return 1 if ends == "well" else 1 // 0

    @define_job(name="gives-up")
    async def gives_up(step: StepContext, input: None) -> None:
        step.progress(7, 10)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await step.run("one", end)

    async def is_away(*args: Any) -> bool:
        raise StoreUnavailableError("away")

    durably = await open_durably(gives_up)
    monkeypatch.setattr(durably.storage, "record_step", is_away)
    run = await durably.jobs.gives_up.trigger(None)
    await durably.process_one()

    found = await durably.get_run(run.id)
    assert found is not None
    assert found.progress is not None
    assert found.progress.current == 7
