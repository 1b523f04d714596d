"""R11: waiting for a run, here and from another process."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    CancelledError,
    ConflictError,
    DurablyError,
    NotFoundError,
    ProgressData,
    RunCancelledError,
    RunFailedError,
    StepContext,
    StoreError,
    StoreUnavailableError,
    ValidationError,
    define_job,
)
from tests.conftest import PATIENCE_SECONDS, Gate, OpenDurably

NEVER = 1000.0


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    if input == "fail":
        raise ValueError("told to")
    if input == "progress":
        step.progress(1)
    return input


class TestOutcomes:
    async def test_a_completed_run_is_returned(self, open_durably: OpenDurably) -> None:
        """R11: also when it had ended before."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger({"n": 1})
        await durably.process_one()

        waited = await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)
        assert (waited.id, waited.output, waited.status) == (run.id, {"n": 1}, "completed")

    async def test_waiting_looks_again_and_again_and_leaves_the_loop_to_others(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """R11: polling is the fallback for programs that tell nothing; between two looks everything else moves."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(1)
        look, looks, looked_thrice = durably.storage.get_run, 0, asyncio.Event()

        async def counted(run_id: str) -> Any:
            nonlocal looks
            looks += 1
            if looks == 3:
                looked_thrice.set()
            return await look(run_id)

        monkeypatch.setattr(durably.storage, "get_run", counted)
        waiting = asyncio.create_task(durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS, polling_interval=0.01))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await looked_thrice.wait()
        await durably.process_one()

        assert (await waiting).output == 1

    async def test_a_failed_run_raises_with_the_run(self, open_durably: OpenDurably) -> None:
        """R11: `RunFailedError` with `.run`."""
        durably = await open_durably(job, start=True)

        with pytest.raises(RunFailedError, match="told to") as failed:
            await durably.jobs.job.trigger_and_wait("fail", timeout=PATIENCE_SECONDS)
        assert (failed.value.run.error, failed.value.run.input) == ("told to", "fail")

    async def test_a_cancelled_run_raises_an_exception(self, open_durably: OpenDurably) -> None:
        """R11: outside a job `CancelledError` is an ordinary `Exception`."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(1)
        waiting = asyncio.create_task(durably.wait_for_run(run.id, polling_interval=NEVER))
        await asyncio.sleep(0)
        await durably.cancel(run.id)

        with pytest.raises(CancelledError) as cancelled:
            await waiting
        assert isinstance(cancelled.value, Exception)
        assert isinstance(cancelled.value, RunCancelledError)
        assert cancelled.value.run.status == "cancelled"

    async def test_an_unknown_run_is_not_found(self, open_durably: OpenDurably) -> None:
        """R11: `NotFoundError`."""
        durably = await open_durably(job)

        with pytest.raises(NotFoundError, match="nobody"):
            await durably.wait_for_run("nobody")

    async def test_a_database_that_goes_away_does_not_end_the_waiting(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """R11: the run goes on, and so does whoever waits for it and is told of it; who looks once is told so."""
        durably = await open_durably(job, start=True)
        read = {name: getattr(durably.storage, name) for name in ("get_run", "events_after")}
        times_away = dict.fromkeys(read, 3)

        def away(name: str) -> Any:
            async def is_away(*arguments: Any) -> Any:
                if times_away[name]:
                    times_away[name] -= 1
                    raise StoreUnavailableError("away")
                return await read[name](*arguments)

            return is_away

        for name in read:
            monkeypatch.setattr(durably.storage, name, away(name))
        told: list[ProgressData] = []
        result = await durably.jobs.job.trigger_and_wait("progress", on_progress=told.append, timeout=PATIENCE_SECONDS)

        assert (result.output, [progress.current for progress in told]) == ("progress", [1])
        assert times_away == dict.fromkeys(read, 0)
        times_away["get_run"] = 1
        with pytest.raises(StoreUnavailableError):
            await durably.wait_for_run(result.id, timeout=0)

    @pytest.mark.parametrize("input", ["done", "fail"])
    async def test_a_run_that_is_deleted_as_soon_as_it_ends_is_told_to_have_ended(
        self, open_durably: OpenDurably, input: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """R11: whoever waits learns how it ended, though it is gone when they come to look."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(input)
        look, has_looked, is_deleted = durably.storage.get_run, asyncio.Event(), asyncio.Event()

        async def look_too_late(run_id: str) -> Any:
            if not has_looked.is_set():
                pending = await look(run_id)
                has_looked.set()
                return pending
            await is_deleted.wait()
            return await look(run_id)

        monkeypatch.setattr(durably.storage, "get_run", look_too_late)
        waiting = asyncio.create_task(durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS))
        await has_looked.wait()
        await durably.process_one()
        await durably.delete_run(run.id)
        is_deleted.set()

        if input == "done":
            ended = await waiting
            assert (ended.id, ended.status, ended.output) == (run.id, "completed", "done")
        else:
            with pytest.raises(RunFailedError, match="told to"):
                await waiting

    async def test_a_run_that_is_deleted_meanwhile_is_not_found(self, open_durably: OpenDurably) -> None:
        """R11: whoever comes late finds nothing to wait for."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(1)
        await durably.cancel(run.id)
        await durably.delete_run(run.id)

        with pytest.raises(NotFoundError):
            await durably.wait_for_run(run.id)

    async def test_a_run_cannot_wait_for_its_own_end(self, open_durably: OpenDurably) -> None:
        """R11: it would wait for ever; to look once and to wait for another run is fine."""

        @define_job(name="parent")
        async def parent(step: StepContext, input: str) -> list[str]:
            with pytest.raises(ConflictError) as by_id:
                await durably.wait_for_run(step.run_id)
            with pytest.raises(ConflictError) as by_key:
                await durably.jobs.parent.trigger_and_wait(input, idempotency_key=input)
            with pytest.raises(TimeoutError):
                await durably.wait_for_run(step.run_id, timeout=0)
            child = await durably.jobs.job.trigger_and_wait("child", timeout=PATIENCE_SECONDS)
            return [str(by_id.value), str(by_key.value), child.output]

        durably = await open_durably(job, parent, start=True)
        run = await durably.jobs.parent.trigger_and_wait("once", idempotency_key="once", timeout=PATIENCE_SECONDS)

        refusal = f"Cannot wait within run {run.id} of job 'parent'"
        assert [text.partition(":")[0] for text in run.output] == [refusal, refusal, "child"]

    async def test_a_timeout_is_the_builtin_one_and_harms_nothing(self, open_durably: OpenDurably) -> None:
        """R11: the run goes on."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(1)

        for timeout in (0, timedelta(0), 0.01, timedelta(milliseconds=10)):
            with pytest.raises(TimeoutError, match=run.id) as timed_out:
                await durably.wait_for_run(run.id, timeout=timeout)
            assert not isinstance(timed_out.value, DurablyError)
        with pytest.raises(TimeoutError):
            await durably.jobs.job.trigger_and_wait(2, timeout=0.01)

        assert await durably.process_until_idle() == 2
        assert (await durably.wait_for_run(run.id)).output == 1
        # Without time to wait there is still time to look.
        assert (await durably.wait_for_run(run.id, timeout=0)).output == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            *({"timeout": -1}, {"timeout": "1"}, {"timeout": True}, {"polling_interval": 0}, {"polling_interval": "x"}),
            *({"on_progress": 5}, {"on_log": "log"}),
        ],
        ids=repr,
    )
    async def test_bad_arguments_are_refused(self, open_durably: OpenDurably, arguments: dict[str, Any]) -> None:
        """Bad input gets an error that names it; nothing is triggered."""
        durably = await open_durably(job)

        with pytest.raises(ValidationError) as refused:
            await durably.wait_for_run("any", **arguments)
        assert refused.value.field in arguments
        with pytest.raises(ValidationError):
            await durably.jobs.job.trigger_and_wait(1, **arguments)
        assert await durably.get_runs() == []


class TestWaking:
    @pytest.mark.parametrize("options", [{}, {"on_progress": print}])
    async def test_closing_ends_the_waiting(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
    ) -> None:
        """R11: with an error, and without another poll."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger("x")
        look, has_looked = durably.storage.get_run, asyncio.Event()

        async def noticed(run_id: str) -> Any:
            run = await look(run_id)
            has_looked.set()
            return run

        monkeypatch.setattr(durably.storage, "get_run", noticed)
        waiting = asyncio.create_task(
            durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS, polling_interval=NEVER, **options)
        )
        await has_looked.wait()
        await durably.close()

        with pytest.raises(StoreError, match="was closed"):
            await waiting

    async def test_many_wait_for_one_run(self, open_durably: OpenDurably) -> None:
        """R11: all wake with its event."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> str:
            await gate.pass_through()
            return "done"

        durably = await open_durably(held, start=True, polling_interval=NEVER)
        run = await durably.jobs.held.trigger(None)
        waiting = [asyncio.create_task(durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)) for _ in range(10)]
        await gate.reached()
        gate.open()

        assert {(await each).output for each in waiting} == {"done"}

    @pytest.mark.two_processes
    @pytest.mark.parametrize("outcome", ["ok", "fail"])
    async def test_it_wakes_when_the_run_ends_in_another_process(self, open_durably: OpenDurably, outcome: str) -> None:
        """R11, E4: on that process's notification, not by polling."""
        web = await open_durably(job, polling_interval=NEVER)
        worker = await open_durably(job, start=True, polling_interval=NEVER)

        waiting = web.jobs.job.trigger_and_wait(outcome, timeout=PATIENCE_SECONDS)
        if outcome == "fail":
            with pytest.raises(RunFailedError, match="told to"):
                await waiting
        else:
            assert (await waiting).output == "ok"
        assert worker.jobs.job.name == "job"

    @pytest.mark.two_processes
    async def test_it_wakes_when_another_process_cancels(self, open_durably: OpenDurably) -> None:
        """R11: also for a run that nobody executes."""
        here, there = await open_durably(job), await open_durably(job)
        run = await here.jobs.job.trigger(1)
        waiting = asyncio.create_task(here.wait_for_run(run.id, timeout=PATIENCE_SECONDS, polling_interval=NEVER))
        await asyncio.sleep(0)
        await there.cancel(run.id)

        with pytest.raises(RunCancelledError):
            await waiting

    async def test_waiting_for_an_idempotent_trigger_that_has_ended_returns_at_once(
        self, open_durably: OpenDurably
    ) -> None:
        """R6, R11: the callbacks must not wait for what happened long ago."""
        seen: list[Any] = []
        durably = await open_durably(job, start=True)
        first = await durably.jobs.job.trigger_and_wait(1, idempotency_key="k", timeout=PATIENCE_SECONDS)
        again = await durably.jobs.job.trigger_and_wait(
            2, idempotency_key="k", timeout=PATIENCE_SECONDS, on_log=seen.append, on_progress=seen.append
        )

        assert (again.id, again.output, again.disposition) == (first.id, 1, "idempotent")
        assert seen == []
