"""S5: what happens to code that runs when its run is cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from durably import (
    AbortSignal,
    CancelledError,
    Durably,
    RunCancelledError,
    StepContext,
    SyncStepContext,
    define_job,
)
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably
from tests.store_contract.foreign_writer import write


async def cancel_and_stop(durably: Durably, run_id: str, *, by: Durably | None = None) -> None:
    """Cancel a run, and return when its code has ended here."""
    await (by or durably).cancel(run_id)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(RunCancelledError):
            await durably.wait_for_run(run_id)
        await durably.stop()


class TestAsyncJobs:
    async def test_an_async_step_is_cancelled_at_its_next_await(self, open_durably: OpenDurably) -> None:
        """S5: the step is recorded as nothing, `step:cancel` tells, the code sees `CancelledError`."""
        gate, seen = Gate(), []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            await step.run("done", lambda: 1)
            try:
                await step.run("waiting", gate.pass_through)
            except CancelledError as error:
                seen.append((error.run_id, step.signal.aborted, step.signal.reason, step.is_aborted()))
                raise
            finally:
                await asyncio.sleep(0)
                seen.append("cleaned up")

        durably = await open_durably(job, start=True, preserve_steps=True)
        events = Events(durably)
        run = await durably.jobs.job.trigger(None)
        await gate.reached()
        await cancel_and_stop(durably, run.id)

        assert seen == [(run.id, True, "cancelled", True), "cleaned up"]
        (told,) = events.of("step:cancel")
        assert (told.run_id, told.step_name, told.step_index) == (run.id, "waiting", 1)
        assert [step.name for step in await durably.get_steps(run.id)] == ["done"]
        assert events.of("run:fail", "run:complete", "step:fail", "worker:error") == []

    async def test_an_except_exception_around_a_step_does_not_swallow_it(self, open_durably: OpenDurably) -> None:
        """S5: being cancelled is no failure of the step."""
        gate, seen = Gate(), []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            try:
                await step.run("waiting", gate.pass_through)
            except Exception as error:  # noqa: BLE001 - this is what the test is about
                seen.append(error)

        durably = await open_durably(job, start=True)
        run = await durably.jobs.job.trigger(None)
        await gate.reached()
        await cancel_and_stop(durably, run.id)

        assert seen == []

    async def test_no_further_step_starts(self, open_durably: OpenDurably) -> None:
        """S5: code that goes on all the same is stopped at its next step, and its end counts for nothing."""
        gate, seen = Gate(), []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> str:
            try:
                await step.run("waiting", gate.pass_through)
            except CancelledError:
                try:
                    await step.run("one more", lambda: seen.append("executed"))
                except CancelledError:
                    seen.append("refused")
            return "output"

        durably = await open_durably(job, start=True)
        run = await durably.jobs.job.trigger(None)
        await gate.reached()
        await cancel_and_stop(durably, run.id)

        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.output) == ("cancelled", None)
        assert seen == ["refused"]

    async def test_an_await_of_the_jobs_own_is_interrupted(self, open_durably: OpenDurably) -> None:
        """S5: also between steps."""
        gate, seen = Gate(), []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            try:
                await gate.pass_through()
            finally:
                seen.append(step.signal.reason)

        durably = await open_durably(job, start=True)
        run = await durably.jobs.job.trigger(None)
        await gate.reached()
        await cancel_and_stop(durably, run.id)

        assert seen == ["cancelled"]

    async def test_steps_side_by_side_are_all_cancelled(self, open_durably: OpenDurably) -> None:
        """S5: each tells; a task group passes the error on."""
        gates = [Gate(), Gate()]

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            async with asyncio.TaskGroup() as group:
                for n, gate in enumerate(gates):
                    group.create_task(step.run(f"step-{n}", gate.pass_through))

        durably = await open_durably(job, start=True)
        events = Events(durably)
        run = await durably.jobs.job.trigger(None)
        for gate in gates:
            await gate.reached()
        await cancel_and_stop(durably, run.id)

        assert sorted(event.step_name for event in events.of("step:cancel")) == ["step-0", "step-1"]
        assert events.of("run:fail") == []

    async def test_a_gathered_job_is_cancelled_too(self, open_durably: OpenDurably) -> None:
        """S5: the same with `asyncio.gather`, one of whose steps waits for another of its name."""
        gate = Gate()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            await asyncio.gather(
                step.run("same", gate.pass_through), step.run("same", lambda: 1), step.run("other", asyncio.sleep, 100)
            )

        durably = await open_durably(job, start=True)
        events = Events(durably)
        run = await durably.jobs.job.trigger(None)
        await gate.reached()
        await cancel_and_stop(durably, run.id)

        assert sorted(event.step_name for event in events.of("step:cancel")) == ["other", "same"]

    async def test_a_job_that_awaits_something_else_than_its_step_is_interrupted_too(
        self, open_durably: OpenDurably
    ) -> None:
        """S5, W4: what it awaits may never come once its step is gone; it would hold its slot, and a stop, for ever."""
        gate, seen = Gate(), []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            queue: asyncio.Queue[int] = asyncio.Queue()
            filling = asyncio.create_task(step.run("fill", gate.pass_through))
            try:
                await queue.get()
            finally:
                seen.append(filling.done())

        durably = await open_durably(job, start=True)
        run = await durably.jobs.job.trigger(None)
        await gate.reached()
        await cancel_and_stop(durably, run.id)

        assert seen == [True]

    async def test_a_job_that_goes_on_to_another_await_is_interrupted_too(self, open_durably: OpenDurably) -> None:
        """S5, W4: it has not learnt that its step is gone, wherever it stands by then."""
        gate, going_on, seen = Gate(), asyncio.Event(), []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            queue: asyncio.Queue[int] = asyncio.Queue()
            filling = asyncio.create_task(step.run("fill", gate.pass_through))
            await going_on.wait()
            try:
                await queue.get()
            finally:
                seen.append(filling.done())

        durably = await open_durably(job, start=True)
        run = await durably.jobs.job.trigger(None)
        await gate.reached()
        await durably.cancel(run.id)
        going_on.set()
        await durably.stop()

        assert seen == [True]

    @pytest.mark.parametrize("how", ["error", "signal", "look", "wait", "listener"])
    async def test_a_job_that_has_learnt_of_it_may_clean_up(self, open_durably: OpenDurably, how: str) -> None:
        """S5: by the error of a step in a task of its own, or by the signal: its next await is not interrupted."""
        gate, seen = Gate(), []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            filling = asyncio.create_task(step.run("fill", gate.pass_through))
            try:
                if how == "error":
                    await filling
                if how == "wait":
                    await step.signal.wait()
                if how == "listener":
                    aborted = asyncio.Event()
                    step.signal.on_abort(aborted.set)
                    await aborted.wait()
                while how == "look" and not step.is_aborted():
                    await asyncio.sleep(0.01)
                while how == "signal":
                    await asyncio.sleep(0.01)
                    step.throw_if_aborted()
            except CancelledError:
                pass
            await asyncio.sleep(1.3)
            seen.append("cleaned up")

        durably = await open_durably(job, start=True)
        run = await durably.jobs.job.trigger(None)
        await gate.reached()
        await cancel_and_stop(durably, run.id)

        assert seen == ["cleaned up"]

    async def test_a_step_within_a_step_is_cancelled_with_it(self, open_durably: OpenDurably) -> None:
        """S5: nested steps both tell."""
        gate = Gate()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            async def outer() -> None:
                await step.run("inner", gate.pass_through)

            await step.run("outer", outer)

        durably = await open_durably(job, start=True)
        events = Events(durably)
        run = await durably.jobs.job.trigger(None)
        await gate.reached()
        await cancel_and_stop(durably, run.id)

        assert [event.step_name for event in events.of("step:cancel")] == ["inner", "outer"]

    async def test_a_job_that_awaits_its_signal_is_told_by_it(self, open_durably: OpenDurably) -> None:
        """S5: `await step.signal.wait()` returns, and what comes after it is not interrupted."""
        waiting, seen = asyncio.Event(), []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            waiting.set()
            await step.signal.wait()
            await asyncio.sleep(0)
            seen.append(step.signal.reason)

        durably = await open_durably(job, start=True)
        run = await durably.jobs.job.trigger(None)
        await waiting.wait()
        await cancel_and_stop(durably, run.id)

        assert seen == ["cancelled"]

    async def test_a_job_may_cancel_its_own_run(self, open_durably: OpenDurably) -> None:
        """R10, S5: the call returns, and no further step starts."""
        seen: list[Any] = []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            await step.run("one", lambda: 1)
            await durably.cancel(step.run_id)
            seen.append(step.signal.reason)
            try:
                await step.run("two", lambda: seen.append("two"))
            except CancelledError as error:
                seen.append(error.run_id)

        durably = await open_durably(job, start=True)
        run = await durably.jobs.job.trigger(None)
        with pytest.raises(RunCancelledError):
            await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)
        await durably.stop()

        assert seen == ["cancelled", run.id]

    async def test_a_cancelled_run_has_no_more_progress(self, open_durably: OpenDurably) -> None:
        """S5, S7: what a job reports while it cleans up is not told of a run that has ended."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            try:
                await step.run("waiting", asyncio.sleep, 100)
            finally:
                step.progress(1, 10)
                step.log.info("cleaning up")

        durably = await open_durably(job, start=True)
        events = Events(durably)
        run = await durably.jobs.job.trigger(None)
        await events.until("step:start")
        await cancel_and_stop(durably, run.id)

        assert events.of("run:progress") == []
        assert (await events.until("log:write")).message == "cleaning up"

    async def test_the_signal_can_be_awaited(self, open_durably: OpenDurably) -> None:
        """S5: `await signal.wait()` beside the work, and `throw_if_aborted()`."""
        gate = Gate()
        seen: list[Any] = []

        async def work(signal: AbortSignal) -> None:
            signal.throw_if_aborted()
            aborted = asyncio.create_task(signal.wait())
            opened = asyncio.create_task(gate.pass_through())
            done, _ = await asyncio.wait([aborted, opened], return_when=asyncio.FIRST_COMPLETED)
            seen.append(aborted in done)

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            waiting = asyncio.create_task(step.signal.wait())
            try:
                await step.run("work", work)
            finally:
                await waiting
                with pytest.raises(CancelledError):
                    step.throw_if_aborted()
                await step.signal.wait()
                seen.append("told")

        durably = await open_durably(job, start=True)
        run = await durably.jobs.job.trigger(None)
        await gate.reached()
        gate_task_ended = gate
        await cancel_and_stop(durably, run.id)

        gate_task_ended.open()
        assert seen == ["told"]


class TestThreads:
    async def test_a_threaded_step_looks_at_its_signal(self, open_durably: OpenDurably) -> None:
        """S5: a plain step function goes on until it looks; what it returns is recorded as nothing."""
        started, ended = threading.Event(), threading.Event()

        def work(signal: AbortSignal) -> str:
            started.set()
            while not signal.aborted:
                ended.wait(0.001)
            ended.set()
            return "result"

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            await step.run("threaded", work)

        durably = await open_durably(job, start=True, preserve_steps=True)
        events = Events(durably)
        run = await durably.jobs.job.trigger(None)
        assert await asyncio.to_thread(started.wait, PATIENCE_SECONDS)
        await cancel_and_stop(durably, run.id)

        assert await asyncio.to_thread(ended.wait, PATIENCE_SECONDS)
        assert [event.step_name for event in events.of("step:cancel")] == ["threaded"]
        assert await durably.get_steps(run.id) == []

    async def test_a_plain_job_sees_it_at_its_next_step(self, open_durably: OpenDurably) -> None:
        """S5, W4: the same for a job that runs in a thread; `stop` waits for the thread."""
        started, cancelled = threading.Event(), threading.Event()
        seen: list[Any] = []

        @define_job(name="job")
        def job(step: SyncStepContext, input: Any) -> None:
            started.set()
            assert cancelled.wait(PATIENCE_SECONDS)
            try:
                step.run("never", lambda: seen.append("executed"))
            except CancelledError:
                seen.append("cancelled")
                raise
            finally:
                ended.set()

        ended = threading.Event()
        durably = await open_durably(job, start=True)
        run = await durably.jobs.job.trigger(None)
        assert await asyncio.to_thread(started.wait, PATIENCE_SECONDS)
        await durably.cancel(run.id)
        cancelled.set()
        await durably.stop()

        assert ended.is_set()
        assert seen == ["cancelled"]

    async def test_an_async_step_of_a_plain_job_is_cancelled_at_its_next_await(self, open_durably: OpenDurably) -> None:
        """S5: it runs on the loop and can be interrupted there."""
        gate, seen = Gate(), []

        @define_job(name="job")
        def job(step: SyncStepContext, input: Any) -> None:
            try:
                step.run("waiting", gate.pass_through)
            except CancelledError:
                seen.append(step.signal.reason)
                raise

        durably = await open_durably(job, start=True)
        events = Events(durably)
        run = await durably.jobs.job.trigger(None)
        await gate.reached()
        await cancel_and_stop(durably, run.id)

        assert seen == ["cancelled"]
        assert [event.step_name for event in events.of("step:cancel")] == ["waiting"]


class TestElsewhere:
    @pytest.mark.two_processes
    async def test_another_process_cancels_what_runs_here(self, open_durably: OpenDurably) -> None:
        """S5, E4: the worker learns of it at once."""
        gate = Gate()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            await step.run("waiting", gate.pass_through)

        here, there = await open_durably(job, start=True), await open_durably(job)
        events = Events(here)
        run = await there.jobs.job.trigger(None)
        await gate.reached()
        await cancel_and_stop(here, run.id, by=there)

        assert [event.step_name for event in events.of("step:cancel")] == ["waiting"]

    async def test_what_process_one_executes_can_be_cancelled(self, open_durably: OpenDurably) -> None:
        """S5, W5: also without a started worker."""
        gate = Gate()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            await step.run("waiting", gate.pass_through)

        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(None)
        processing = asyncio.create_task(durably.process_one())
        await gate.reached()
        await durably.cancel(run.id)

        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await processing is True

    @pytest.mark.two_processes
    @pytest.mark.parametrize("ends", ["well", "badly"])
    async def test_a_step_that_ends_before_it_hears_of_the_cancellation_is_told_to_be_cancelled(
        self, open_durably: OpenDurably, database: str, ends: str
    ) -> None:
        """S5: what refuses its result is the database; every step that was told to start is told to end."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            async def work() -> None:
                cancelled = f"UPDATE durably_runs SET status = 'cancelled' WHERE id = '{step.run_id}'"
                await write(database, cancelled)
                if ends == "badly":
                    raise ValueError

            await step.run("work", work)

        durably = await open_durably(job)
        events = Events(durably)
        await durably.jobs.job.trigger(None)
        await durably.process_one()

        cancelled = await events.until("step:cancel")
        assert (cancelled.step_name, cancelled.step_index) == ("work", 0)
        assert events.of("step:complete", "step:fail") == []
