"""R9, R10: retrigger, cancel, delete and purge."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    ConflictError,
    Durably,
    NotFoundError,
    Run,
    RunStatus,
    StepContext,
    ValidationError,
    define_job,
    with_log_persistence,
)
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably, until


@define_job(name="work")
async def work(step: StepContext, input: Any) -> Any:
    step.log.info("working")
    await step.run("one", lambda: 1)
    if input == "fail":
        raise ValueError("told to")
    return input


async def run_of(durably: Durably, run_id: str) -> Run[Any]:
    run = await durably.get_run(run_id)
    assert run is not None
    return run


async def ended(durably: Durably, status: str, **options: Any) -> Run[Any]:
    """Return a run that ended with that status."""
    run = await durably.jobs.work.trigger("fail" if status == "failed" else "ok", **options)
    if status == "cancelled":
        await durably.cancel(run.id)
    else:
        await durably.process_until_idle()
    found = await run_of(durably, run.id)
    assert found.status == status
    return found


ENDS = ["completed", "failed", "cancelled"]


class TestRetrigger:
    @pytest.mark.parametrize("status", ENDS)
    async def test_it_makes_a_fresh_run_like_the_ended_one(self, open_durably: OpenDurably, status: str) -> None:
        """R9: same input, labels and concurrency key, not the idempotency key."""
        durably = await open_durably(work)
        old = await ended(durably, status, labels={"a": "b"}, concurrency_key="c", idempotency_key="i")
        events = Events(durably)

        fresh = await durably.retrigger(old.id)

        assert fresh.id > old.id
        assert (fresh.status, fresh.job_name, fresh.lease_generation) == (RunStatus.PENDING, "work", 0)
        assert (fresh.input, fresh.labels, fresh.concurrency_key) == (old.input, {"a": "b"}, "c")
        assert (fresh.idempotency_key, fresh.started_at, fresh.error, fresh.output) == (None, None, None, None)
        assert await run_of(durably, old.id) == old
        assert [event.run_id for event in events.of("run:trigger")] == [fresh.id]

    async def test_it_refuses_runs_that_have_not_ended(self, open_durably: OpenDurably) -> None:
        """R9: pending and leased runs are a conflict."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            await gate.pass_through()

        durably = await open_durably(work, held)
        pending = await durably.jobs.work.trigger(1)
        with pytest.raises(ConflictError, match="pending"):
            await durably.retrigger(pending.id)

        await durably.start()
        leased = await durably.jobs.held.trigger(1)
        await gate.reached()
        with pytest.raises(ConflictError, match="leased") as refused:
            await durably.retrigger(leased.id)
        assert (refused.value.operation, refused.value.run_id) == ("retrigger", leased.id)
        gate.open()

    async def test_it_refuses_unknown_runs(self, open_durably: OpenDurably) -> None:
        """R9: `NotFoundError` that says which of the two."""
        durably = await open_durably(work)

        with pytest.raises(NotFoundError) as unknown:
            await durably.retrigger("nobody")
        assert (unknown.value.kind, unknown.value.key) == ("run", "nobody")

    @pytest.mark.two_processes
    async def test_it_refuses_runs_of_unknown_jobs(self, open_durably: OpenDurably) -> None:
        """R9: `NotFoundError` that says which of the two; the run stays as it is."""

        @define_job(name="elsewhere")
        async def elsewhere(step: StepContext, input: Any) -> Any: ...

        other = await open_durably(elsewhere)
        run = await other.jobs.elsewhere.trigger(1)
        await other.cancel(run.id)
        cancelled = await run_of(other, run.id)

        durably = await open_durably(work)
        with pytest.raises(NotFoundError) as unknown:
            await durably.retrigger(run.id)
        assert (unknown.value.kind, unknown.value.key) == ("job", "elsewhere")
        assert await durably.get_runs() == [cancelled]

    @pytest.mark.two_processes
    async def test_it_validates_against_todays_schema(self, open_durably: OpenDurably) -> None:
        """R9: stored input that the job no longer takes is a `ValidationError`, nothing is made."""

        @define_job(name="job")
        async def yesterday(step: StepContext, input: str) -> None: ...

        @define_job(name="job")
        async def today(step: StepContext, input: int) -> None: ...

        before = await open_durably(yesterday)
        old = await before.jobs.job.trigger("text")
        await before.cancel(old.id)
        after = await open_durably(today)

        with pytest.raises(ValidationError, match="integer"):
            await after.retrigger(old.id)
        assert len(await after.get_runs()) == 1

    async def test_the_input_is_the_same_whatever_its_type_makes_of_it(self, open_durably: OpenDurably) -> None:
        """R9: also where a value is not read as it was written."""

        @dataclass
        class Counted:
            n: int

            def __post_init__(self) -> None:
                self.n += 1

        async def count(step: StepContext, input: Any) -> int:
            return int(input.n)

        durably = await open_durably(define_job(name="count", input=Counted, output=int, run=count))
        run = await durably.jobs.count.trigger({"n": 0})
        for _ in range(3):
            await durably.process_one()
            ended, run = await durably.get_run(run.id), await durably.retrigger(run.id)
            assert ended is not None
            assert (ended.output, run.input) == (2, {"n": 1})

    async def test_it_respects_the_concurrency_key(self, open_durably: OpenDurably) -> None:
        """R7, R9: a pending run of the key is in the way."""
        durably = await open_durably(work)
        old = await ended(durably, "completed", concurrency_key="k")
        waiting = await durably.jobs.work.trigger(2, concurrency_key="k")

        with pytest.raises(ConflictError) as refused:
            await durably.retrigger(old.id)
        assert str(refused.value) == (
            f"Cannot retrigger run {old.id}: run {waiting.id} of its job and concurrency key waits already"
        )
        assert (refused.value.operation, refused.value.run_id) == ("retrigger", waiting.id)
        assert (refused.value.job_name, refused.value.concurrency_key) == ("work", "k")


class TestCancelAndDelete:
    async def test_a_cancelled_run_is_over_at_once(self, open_durably: OpenDurably) -> None:
        """R10: a pending run is cancelled at once and never claimed."""
        durably = await open_durably(work)
        events = Events(durably)
        run = await durably.jobs.work.trigger(1, labels={"a": "b"})

        await durably.cancel(run.id)

        found = await run_of(durably, run.id)
        assert (found.status, found.is_terminal, found.started_at) == (RunStatus.CANCELLED, True, None)
        assert found.completed_at == found.updated_at is not None
        assert [(e.run_id, e.job_name, e.labels) for e in events.of("run:cancel")] == [(run.id, "work", {"a": "b"})]
        assert await durably.process_until_idle() == 0

    @pytest.mark.parametrize("status", ENDS)
    async def test_what_has_ended_cannot_be_cancelled(self, open_durably: OpenDurably, status: str) -> None:
        """R1, R10: nothing leaves a terminal state."""
        durably = await open_durably(work)
        run = await ended(durably, status)

        with pytest.raises(ConflictError, match=status) as refused:
            await durably.cancel(run.id)

        assert (refused.value.operation, refused.value.run_id) == ("cancel", run.id)
        assert await run_of(durably, run.id) == run

    async def test_of_many_cancels_at_once_one_wins(self, open_durably: OpenDurably) -> None:
        """R10: a conflict also when the run ended between look and write."""
        durably = await open_durably(work)
        events = Events(durably)
        run = await durably.jobs.work.trigger(1)

        results = await asyncio.gather(*[durably.cancel(run.id) for _ in range(5)], return_exceptions=True)

        assert [type(each) for each in results].count(ConflictError) == 4
        assert results.count(None) == 1
        assert len(events.of("run:cancel")) == 1

    async def test_deleting_takes_everything_of_the_run_with_it(self, open_durably: OpenDurably) -> None:
        """R10: steps, logs and labels go with the run, and an event tells it."""
        durably = await open_durably(work, preserve_steps=True)
        durably.use(with_log_persistence())
        events = Events(durably)
        run = await ended(durably, "completed", labels={"a": "b"})
        kept = await ended(durably, "completed", labels={"a": "b"})
        await durably.stop()
        assert len(await durably.get_steps(run.id)) == len(await durably.get_logs(run.id)) == 1

        await durably.delete_run(run.id)

        assert await durably.get_run(run.id) is None
        assert await durably.get_steps(run.id) == await durably.get_logs(run.id) == []
        assert [each.id for each in await durably.get_runs(labels={"a": "b"})] == [kept.id]
        assert len(await durably.get_steps(kept.id)) == len(await durably.get_logs(kept.id)) == 1
        assert [(e.run_id, e.labels) for e in events.of("run:delete")] == [(run.id, {"a": "b"})]

    async def test_what_has_not_ended_cannot_be_deleted(self, open_durably: OpenDurably) -> None:
        """R10: `delete_run` works on terminal runs only."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            await gate.pass_through()

        durably = await open_durably(work, held)
        pending = await durably.jobs.work.trigger(1)
        with pytest.raises(ConflictError, match="pending"):
            await durably.delete_run(pending.id)
        await durably.start()
        leased = await durably.jobs.held.trigger(1)
        await gate.reached()
        with pytest.raises(ConflictError, match="leased") as refused:
            await durably.delete_run(leased.id)
        assert refused.value.operation == "delete"
        gate.open()

    @pytest.mark.parametrize("verb", ["cancel", "delete_run", "retrigger"])
    async def test_an_unknown_run_is_not_found(self, open_durably: OpenDurably, verb: str) -> None:
        """R9, R10: any text may be asked for."""
        durably = await open_durably(work)

        for unknown in ("nobody", "", "ü'; DROP TABLE durably_runs; --"):
            with pytest.raises(NotFoundError):
                await getattr(durably, verb)(unknown)


class TestPurge:
    async def test_it_deletes_terminal_runs_oldest_first_up_to_the_limit(self, open_durably: OpenDurably) -> None:
        """R10: by `completed_at`, oldest first; the count is returned; each is announced (E1)."""
        durably = await open_durably(work)
        events = Events(durably)
        runs = []
        for status in ENDS:
            runs.append(await ended(durably, status, labels={"a": "b"}))
            # The next one must not end within the same millisecond.
            await asyncio.sleep(0.005)
        pending = await durably.jobs.work.trigger("later")

        assert await durably.purge_runs(older_than="1d") == 0
        assert await durably.purge_runs(older_than=timedelta(0), limit=0) == 0
        assert await durably.purge_runs(older_than=timedelta(0), limit=2) == 2
        assert [run.id for run in await durably.get_runs()] == [pending.id, runs[2].id]
        assert await durably.purge_runs(older_than=timedelta(0)) == 1
        assert await durably.purge_runs(older_than=timedelta(0)) == 0
        assert await durably.get_runs() == [await run_of(durably, pending.id)]
        assert [event.run_id for event in events.of("run:delete")] == [run.id for run in runs]
        assert {tuple(event.labels.items()) for event in events.of("run:delete")} == {(("a", "b"),)}

    async def test_it_takes_steps_logs_and_labels_with_it(self, open_durably: OpenDurably) -> None:
        """R10: purge deletes what `delete_run` deletes."""
        durably = await open_durably(work, preserve_steps=True)
        durably.use(with_log_persistence())
        run = await ended(durably, "completed", labels={"a": "b"})
        await durably.stop()

        assert await until(lambda: durably.purge_runs(older_than=timedelta(0))) == 1

        assert await durably.get_steps(run.id) == await durably.get_logs(run.id) == []
        assert await durably.get_runs(labels={"a": "b"}) == []

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({"older_than": "soon"}, "older_than"),
            ({"older_than": 5}, "older_than"),
            ({"older_than": timedelta(-1)}, "older_than"),
            ({"older_than": "99999999999999999999d"}, "older_than"),
            ({"older_than": timedelta.max}, "older_than"),
            ({"older_than": "1d", "limit": -1}, "limit"),
            ({"older_than": "1d", "limit": "all"}, "limit"),
            ({"older_than": "1d", "limit": True}, "limit"),
        ],
        ids=repr,
    )
    async def test_it_refuses_what_makes_no_sense(
        self, open_durably: OpenDurably, arguments: dict[str, Any], field: str
    ) -> None:
        """R10: bad arguments are named."""
        durably = await open_durably(work)

        with pytest.raises(ValidationError) as refused:
            await durably.purge_runs(**arguments)
        assert refused.value.field == field


class TestPreservedSteps:
    @pytest.mark.parametrize("status", ["completed", "failed"])
    async def test_steps_are_deleted_when_the_run_ends_and_logs_stay(
        self, open_durably: OpenDurably, status: str
    ) -> None:
        """S6: logs are not deleted with the steps."""
        durably = await open_durably(work)
        durably.use(with_log_persistence())
        run = await ended(durably, status)
        await durably.stop()

        assert await durably.get_steps(run.id) == []
        assert [line.message for line in await durably.get_logs(run.id)] == ["working"]
        assert run.completed_step_count == 1

    @pytest.mark.parametrize("preserve", [True, False])
    async def test_a_run_cancelled_while_leased_loses_its_steps_like_any_other(
        self, open_durably: OpenDurably, *, preserve: bool
    ) -> None:
        """S6: `preserve_steps` decides for cancelled runs too."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            await step.run("first", lambda: 1)
            await gate.pass_through()

        durably = await open_durably(held, start=True, preserve_steps=preserve)
        run = await durably.jobs.held.trigger(None)
        await gate.reached()
        await durably.cancel(run.id)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await durably.stop()

        assert [step.name for step in await durably.get_steps(run.id)] == (["first"] if preserve else [])
