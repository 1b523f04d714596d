"""R7: at most one run of a key is leased, at most one per job and key is pending."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably import BatchItem, ConflictError, RunStatus, StepContext, define_job
from durably.engine.enqueue import TriggerOrder
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably


@define_job(name="echo")
async def echo(step: StepContext, input: Any) -> Any:
    return input


@define_job(name="other")
async def other_job(step: StepContext, input: Any) -> Any:
    return input


class TestPending:
    async def test_a_second_pending_run_is_a_conflict_that_says_what_to_do(self, open_durably: OpenDurably) -> None:
        """R7: a second pending trigger raises `ConflictError`; it names the run in the way."""
        durably = await open_durably(echo)
        first = await durably.jobs.echo.trigger(1, concurrency_key='the "key"')

        with pytest.raises(ConflictError, match='coalesce="skip"') as refused:
            await durably.jobs.echo.trigger(2, concurrency_key='the "key"')

        assert (refused.value.run_id, refused.value.job_name) == (first.id, "echo")
        assert (refused.value.concurrency_key, refused.value.operation) == ('the "key"', "trigger")
        assert len(await durably.get_runs()) == 1

    async def test_coalescing_returns_the_pending_run_and_tells_what_was_skipped(
        self, open_durably: OpenDurably
    ) -> None:
        """R7: disposition `coalesced`, event `run:coalesced` with the skipped input and labels."""
        durably = await open_durably(echo)
        events = Events(durably)
        first = await durably.jobs.echo.trigger(1, concurrency_key="k", labels={"n": "1"})

        second = await durably.jobs.echo.trigger(2, concurrency_key="k", coalesce="skip", labels={"n": "2"})

        assert (second.id, second.disposition, second.input, second.labels) == (first.id, "coalesced", 1, {"n": "1"})
        told = await events.until("run:coalesced")
        assert (told.run_id, told.job_name, told.labels) == (first.id, "echo", {"n": "1"})
        assert (told.skipped_input, told.skipped_labels) == (2, {"n": "2"})
        assert len(events.of("run:trigger")) == 1

    async def test_coalescing_without_a_pending_run_creates_one(self, open_durably: OpenDurably) -> None:
        """R7: there is nothing to coalesce with."""
        durably = await open_durably(echo)

        run = await durably.jobs.echo.trigger(1, concurrency_key="k", coalesce="skip")

        assert run.disposition == "created"

    async def test_coalescing_may_name_the_one_run_to_join(self, open_durably: OpenDurably) -> None:
        """R7: another one that waits under the key is a conflict and hears nothing; nothing of the batch is stored."""
        durably = await open_durably(echo)
        events = Events(durably)
        waiting = await durably.jobs.echo.trigger(1, concurrency_key="k")
        joining = TriggerOrder(2, concurrency_key="k", coalesce="skip", only_into=waiting.id)
        elsewhere = joining._replace(only_into="another")

        for orders in ([elsewhere], [TriggerOrder(0), elsewhere]):
            with pytest.raises(ConflictError) as refused:
                await durably.enqueue(echo, orders)
            assert refused.value.run_id == waiting.id
        (joined,) = await durably.enqueue(echo, [joining])
        made, joined_too = await durably.enqueue(echo, [TriggerOrder(3), joining])

        assert (joined.id, joined.disposition) == (joined_too.id, joined_too.disposition) == (waiting.id, "coalesced")
        assert {run.id for run in await durably.get_runs()} == {waiting.id, made.id}
        await events.until("run:coalesced", 2)

    async def test_a_conflict_in_a_batch_says_which_items_it_is_about(self, open_durably: OpenDurably) -> None:
        """R7: and names no run that was not stored."""
        durably = await open_durably(echo)
        keyed = BatchItem(1, concurrency_key="k")

        with pytest.raises(ConflictError, match=r'items\[0, 2\] have the same concurrency key "k"') as within:
            await durably.jobs.echo.batch_trigger([keyed, 2, keyed])
        assert (within.value.run_id, within.value.job_name) == (None, "echo")
        assert await durably.get_runs() == []

        waiting = await durably.jobs.echo.trigger(1, concurrency_key="k")
        with pytest.raises(ConflictError, match=r"items\[1\]: A pending run already exists") as before:
            await durably.jobs.echo.batch_trigger([1, keyed])
        assert before.value.run_id == waiting.id

    async def test_pending_runs_of_two_jobs_may_share_a_key(self, open_durably: OpenDurably) -> None:
        """R7: at most one pending per job and key."""
        durably = await open_durably(echo, other_job)

        one = await durably.jobs.echo.trigger(1, concurrency_key="k")
        two = await durably.jobs.other.trigger(2, concurrency_key="k")

        assert {one.disposition, two.disposition} == {"created"}

    async def test_a_run_may_wait_behind_a_leased_one(self, open_durably: OpenDurably) -> None:
        """R7: a leased run leaves the place in the queue free; coalescing does not join it."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> Any:
            await gate.pass_through()

        durably = await open_durably(held, start=True)
        leased = await durably.jobs.held.trigger(1, concurrency_key="k")
        await gate.reached()

        waiting = await durably.jobs.held.trigger(2, concurrency_key="k", coalesce="skip")

        assert waiting.disposition == "created"
        assert waiting.id != leased.id
        gate.open()
        await durably.wait_for_run(waiting.id, timeout=PATIENCE_SECONDS)

    async def test_twenty_at_once_make_one_pending_run(self, open_durably: OpenDurably) -> None:
        """R7: no read-then-write window."""
        durably = await open_durably(echo)

        results = await asyncio.gather(
            *[durably.jobs.echo.trigger(n, concurrency_key="k") for n in range(10)],
            *[durably.jobs.echo.trigger(n, concurrency_key="k", coalesce="skip") for n in range(10)],
            return_exceptions=True,
        )

        outcomes = sorted("conflict" if isinstance(each, ConflictError) else each.disposition for each in results)
        assert outcomes == ["coalesced"] * 10 + ["conflict"] * 9 + ["created"]

    @pytest.mark.two_processes
    async def test_two_processes_at_once_make_one_pending_run(self, open_durably: OpenDurably) -> None:
        """R7: the same across processes, key by key."""
        one, two = await open_durably(echo), await open_durably(echo)

        runs = await asyncio.gather(
            *[
                durably.jobs.echo.trigger(n, concurrency_key=f"k{n}", coalesce="skip")
                for n in range(20)
                for durably in (one, two)
            ]
        )

        assert len({run.id for run in runs}) == 20
        assert sorted(run.disposition for run in runs) == ["coalesced"] * 20 + ["created"] * 20


class TestLeased:
    async def test_runs_of_one_key_execute_one_after_the_other(self, open_durably: OpenDurably) -> None:
        """R7: at most one run of a key is leased at a time, also of two jobs: the key is global."""
        active: list[str] = []
        most = 0

        async def work(step: StepContext, input: Any) -> None:
            nonlocal most
            active.append(step.run_id)
            most = max(most, len(active))
            await step.run("work", asyncio.sleep, 0.001)
            active.remove(step.run_id)

        one, two = define_job(name="one", run=work), define_job(name="two", run=work)
        durably = await open_durably(one, two, start=True)

        for _ in range(5):
            runs = [
                await durably.jobs.one.trigger(1, concurrency_key="k", coalesce="skip"),
                await durably.jobs.two.trigger(1, concurrency_key="k", coalesce="skip"),
            ]
            for run in runs:
                await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)

        assert most == 1

    async def test_a_held_key_does_not_hold_up_others(self, open_durably: OpenDurably) -> None:
        """R7, W2: runs behind a held key are passed over; the end of the holder lets them go at once."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> Any:
            if input == "holder":
                await gate.pass_through()
            return input

        durably = await open_durably(held, start=True, polling_interval=1000)
        holder = await durably.jobs.held.trigger("holder", concurrency_key="k")
        await gate.reached()
        behind = await durably.jobs.held.trigger("behind", concurrency_key="k")
        free = await durably.jobs.held.trigger("free")
        keyed = await durably.jobs.held.trigger("keyed", concurrency_key="another")

        for run in (free, keyed):
            await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)
        waiting = await durably.get_run(behind.id)
        assert waiting is not None
        assert waiting.status is RunStatus.PENDING

        gate.open()
        for run in (holder, behind):
            await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)

    @pytest.mark.two_processes
    async def test_two_workers_never_hold_one_key_at_once(self, open_durably: OpenDurably) -> None:
        """R7: across all processes."""
        active = 0
        most = 0

        @define_job(name="keyed")
        async def keyed(step: StepContext, input: Any) -> None:
            nonlocal active, most
            active += 1
            most = max(most, active)
            await step.run("work", asyncio.sleep, 0)
            active -= 1

        one, two = await open_durably(keyed), await open_durably(keyed)
        ids = []
        for _ in range(10):
            ids.append((await one.jobs.keyed.trigger(None, concurrency_key="k", coalesce="skip")).id)
            await asyncio.gather(one.process_one(), two.process_one())

        runs = [await one.get_run(run_id) for run_id in ids]
        assert {run.status for run in runs if run is not None} == {RunStatus.COMPLETED}
        assert most == 1
