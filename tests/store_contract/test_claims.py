"""L1, L4, L5 and the fence: against the port, for what no public call shows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durably import ConflictError, Durably, RunCompleteEvent, RunStatus, StepContext, StepFailEvent, define_job
from durably.core.leases import Claim
from durably.core.outcomes import Completed, Failed
from durably.core.store import Claimed, StepRecord, Store
from durably.core.ulid import new_ulid
from tests.conftest import Events, OpenDurably, until

LONG = 60.0
SHORT = 0.001
"""Leases in seconds: one that outlives the test, and one that is over when the next statement comes."""


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    return await step.run("one", lambda: "executed")


@define_job(name="other")
async def other_job(step: StepContext, input: Any) -> Any: ...


async def claim_one(store: Store, owner: str = "worker", lease: float = LONG) -> Claimed:
    (claimed,) = await store.claim(owner, ["job"], 1, lease)
    return claimed


async def reclaim(store: Store, owner: str = "second", jobs: Sequence[str] = ("job",)) -> Claimed:
    """Claim what a short lease held, once it is over."""
    (claimed,) = await until(lambda: store.claim(owner, list(jobs), 1, LONG))
    return claimed


def ended_event(claim: Claim) -> RunCompleteEvent:
    return RunCompleteEvent(
        timestamp=datetime.now(UTC), run_id=claim.run_id, job_name="job", labels={}, output_json="1", duration=0.0
    )


def step_record(name: str = "late") -> StepRecord:
    now = datetime.now(UTC)
    return StepRecord(new_ulid(0), name, 0, "1", None, now, now)


async def write_all(store: Store, claim: Claim) -> list[bool]:
    """Try every fenced write under a claim; return which held."""
    record, event = step_record(), ended_event(claim)
    failed = StepFailEvent(
        timestamp=datetime.now(UTC),
        run_id=claim.run_id,
        job_name="job",
        labels={},
        step_name="x",
        step_index=0,
        error="",
    )
    return [
        await store.record_step(claim, record, '{"current":9}', event),
        await store.save_progress(claim, '{"current":9}'),
        await store.finish(claim, Failed("late"), '{"current":9}', failed),
        await store.finish(claim, Completed("1"), '{"current":9}', event),
    ]


class TestClaiming:
    async def test_a_claim_sets_owner_expiry_start_and_generation(self, open_durably: OpenDurably) -> None:
        """L1: and the event says so."""
        durably = await open_durably(job)
        events = Events(durably)
        run = await durably.jobs.job.trigger({"n": 1}, labels={"a": "b"})

        claimed = await claim_one(durably.storage, "me")

        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.lease_owner, found.lease_generation) == (RunStatus.LEASED, "me", 1)
        assert found.started_at is not None
        assert found.lease_expires_at is not None
        assert abs((found.lease_expires_at - found.started_at).total_seconds() - LONG) < 1
        assert (claimed.claim.run_id, claimed.claim.generation, claimed.claim.owner) == (run.id, 1, "me")
        assert (claimed.run.id, claimed.run.input, claimed.run.labels) == (run.id, {"n": 1}, {"a": "b"})
        assert claimed.run.lease_generation == 1
        told = await events.until("run:leased")
        assert (told.run_id, told.job_name, told.labels, told.input) == (run.id, "job", {"a": "b"}, {"n": 1})
        assert (told.lease_owner, told.lease_expires_at) == ("me", found.lease_expires_at)

    async def test_the_oldest_go_first(self, open_durably: OpenDurably) -> None:
        """R2: by creation, then by id, across jobs, in one statement for all free slots (W2)."""
        durably = await open_durably(job, other_job)
        runs = [await (durably.jobs.other if n % 3 == 0 else durably.jobs.job).trigger(n) for n in range(10)]

        claimed = await durably.storage.claim("me", ["job", "other"], 7, LONG)
        rest = await durably.storage.claim("me", ["job", "other"], 7, LONG)

        assert [each.run.id for each in claimed] == [run.id for run in runs[:7]]
        assert [each.run.id for each in rest] == [run.id for run in runs[7:]]

    async def test_only_runs_of_known_jobs_are_claimed(self, open_durably: OpenDurably) -> None:
        """L5: a run of a job nobody knows here stays pending."""
        durably = await open_durably(job, other_job)
        await durably.jobs.other.trigger(1)
        known = await durably.jobs.job.trigger(2)

        claimed = await durably.storage.claim("me", ["job", "nobody's"], 10, LONG)

        assert [each.run.id for each in claimed] == [known.id]
        assert await durably.storage.claim("me", [], 10, LONG) == []

    @pytest.mark.two_processes
    async def test_one_claimer_wins(self, open_durably: OpenDurably) -> None:
        """L1: of many at once each run goes to one."""
        workers = [await open_durably(job) for _ in range(4)]
        runs = await workers[0].jobs.job.batch_trigger(list(range(100)))

        async def drain(durably: Durably, name: str) -> list[str]:
            mine: list[str] = []
            while claimed := await durably.storage.claim(name, ["job"], 3, LONG):
                mine += [each.run.id for each in claimed]
            return mine

        shares = await asyncio.gather(*[drain(worker, f"w{n}") for n, worker in enumerate(workers)])

        assert sorted(run_id for share in shares for run_id in share) == sorted(run.id for run in runs)


class TestExpiry:
    async def test_an_expired_lease_can_be_claimed_at_once(self, open_durably: OpenDurably) -> None:
        """L4: by any worker; the start of the run stays what it was."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(1)
        dead = await claim_one(durably.storage, "dead", SHORT)

        alive = await reclaim(durably.storage, "alive")

        assert (alive.claim.run_id, alive.claim.generation) == (run.id, dead.claim.generation + 1)
        assert (alive.run.lease_owner, alive.run.started_at) == ("alive", dead.run.started_at)

    async def test_an_expired_run_does_not_wait_behind_a_backlog(self, open_durably: OpenDurably) -> None:
        """L4, R2: it is the oldest, also while more runs wait than there are slots."""
        durably = await open_durably(job, max_concurrent_runs=2)
        expired = await durably.jobs.job.trigger("old")
        await claim_one(durably.storage, "dead", SHORT)
        await durably.jobs.job.batch_trigger(list(range(50)))

        await durably.process_until_idle(max_runs=20)

        found = await durably.get_run(expired.id)
        assert found is not None
        assert found.status is RunStatus.COMPLETED

    async def test_a_lease_in_force_cannot_be_claimed(self, open_durably: OpenDurably) -> None:
        """L1: nor recovered."""
        durably = await open_durably(job)
        await durably.jobs.job.trigger(1)
        await claim_one(durably.storage)

        assert await durably.storage.claim("other", ["job"], 1, LONG) == []
        assert await durably.storage.recover_expired() == 0
        assert await durably.process_one() is False

    async def test_maintenance_puts_expired_leases_back_to_pending(self, open_durably: OpenDurably) -> None:
        """W3: also those of jobs that nobody here knows."""
        durably = await open_durably(other_job)
        run = await durably.jobs.other.trigger(1)
        await durably.storage.claim("dead", ["other"], 1, SHORT)

        assert await until(durably.storage.recover_expired) == 1

        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.lease_owner, found.lease_expires_at) == (RunStatus.PENDING, None, None)
        assert (found.lease_generation, found.started_at is not None) == (1, True)

    @pytest.mark.parametrize("finder", ["claim", "recover_expired"])
    async def test_an_expired_run_whose_place_is_taken_fails(self, open_durably: OpenDurably, finder: str) -> None:
        """L4: with the words of the rule; E1: it announces that. The pending rival goes on."""
        durably = await open_durably(job)
        events = Events(durably)
        expired = await durably.jobs.job.trigger("old", concurrency_key="k", labels={"a": "b"})
        claim = (await claim_one(durably.storage, "dead", SHORT)).claim
        rival = await durably.jobs.job.trigger("new", concurrency_key="k")

        if finder == "claim":
            assert (await reclaim(durably.storage)).run.id == rival.id
        else:
            assert await until(durably.storage.recover_expired) == 1

        found = await durably.get_run(expired.id)
        assert found is not None
        assert (found.status, found.error) == (RunStatus.FAILED, "Lease expired; pending run already exists")
        assert (found.lease_owner, found.completed_at == found.updated_at) == (None, True)
        told = await events.until("run:fail")
        assert (told.run_id, told.job_name, told.labels, told.error, told.failed_step_name) == (
            expired.id, "job", {"a": "b"}, found.error, "",
        )  # fmt: skip
        assert await write_all(durably.storage, claim) == [False] * 4

    async def test_a_pending_run_of_another_job_with_the_key_is_no_rival(self, open_durably: OpenDurably) -> None:
        """L4: same job and key; the older run goes first."""
        durably = await open_durably(job, other_job)
        expired = await durably.jobs.job.trigger("old", concurrency_key="k")
        await claim_one(durably.storage, "dead", SHORT)
        await durably.jobs.other.trigger("new", concurrency_key="k")

        assert (await reclaim(durably.storage, jobs=["job", "other"])).run.id == expired.id

    async def test_what_was_recorded_is_there_for_the_next_holder(self, open_durably: OpenDurably) -> None:
        """L4: the run resumes from its checkpoints."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(1)
        claim = (await claim_one(durably.storage, "dead", SHORT)).claim
        stored = await durably.storage.record_step(claim, step_record("one"), None, ended_event(claim))
        assert stored

        await until(durably.process_one)

        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.output, found.completed_step_count, found.lease_generation) == (1, 1, 2)


class TestTheFence:
    async def test_the_holder_of_the_newest_generation_writes(self, open_durably: OpenDurably) -> None:
        """Guarded writes hold under the claim's own generation."""
        durably = await open_durably(job, preserve_steps=True)
        run = await durably.jobs.job.trigger(1)
        claim = (await claim_one(durably.storage)).claim

        assert await durably.storage.record_step(claim, step_record("s"), '{"current":1}', ended_event(claim))
        assert await durably.storage.save_progress(claim, '{"current":2,"total":3}')
        assert await durably.storage.finish(claim, Completed('"out"'), None, ended_event(claim))

        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.output) == (RunStatus.COMPLETED, "out")
        assert found.progress is not None
        assert (found.progress.current, found.progress.total) == (2, 3)
        assert [step.name for step in await durably.get_steps(run.id)] == ["s"]

    @pytest.mark.parametrize(
        "fate", ["claimed again", "cancelled", "completed", "deleted", "released", "expired and put back"]
    )
    async def test_a_stale_holder_writes_nothing(self, open_durably: OpenDurably, fate: str) -> None:
        """L1, L2: whatever happened to the run since, the old claim writes nothing and learns it."""
        durably = await open_durably(job, preserve_steps=True)
        store = durably.storage
        run = await durably.jobs.job.trigger(1)
        lease = SHORT if fate in ("claimed again", "expired and put back") else LONG
        claim = (await claim_one(store, "stale", lease)).claim
        await meet(durably, claim, fate)
        before = await durably.get_run(run.id)
        events = Events(durably)

        assert await write_all(store, claim) == [False] * 4
        await store.release([claim])
        renewer = store.lease_renewer()
        try:
            assert await asyncio.to_thread(renewer.renew, [claim], LONG) == {}
        finally:
            await asyncio.to_thread(renewer.close)

        assert await durably.get_run(run.id) == before
        assert await durably.get_steps(run.id) == []
        assert events.seen == []

    async def test_a_lease_is_renewed_only_while_it_is_in_force(self, open_durably: OpenDurably) -> None:
        """L2: a renewal fails once the lease has expired, also when nobody else has it."""
        durably = await open_durably(job)
        await durably.jobs.job.batch_trigger([1, 2])
        held = (await claim_one(durably.storage)).claim
        expired = (await claim_one(durably.storage, lease=SHORT)).claim
        renewer = durably.storage.lease_renewer()

        async def is_over() -> bool:
            return datetime.now(UTC) > expired.expires_at + timedelta(milliseconds=5)

        try:
            await until(is_over)
            renewed = await asyncio.to_thread(renewer.renew, [held, expired], 2 * LONG)
        finally:
            await asyncio.to_thread(renewer.close)

        assert list(renewed) == [held.run_id]
        assert renewed[held.run_id].expires_at > held.expires_at
        found = await durably.get_run(held.run_id)
        assert found is not None
        assert found.lease_expires_at is not None
        assert abs((found.lease_expires_at - renewed[held.run_id].expires_at).total_seconds()) < 0.002
        assert renewed[held.run_id].generation == held.generation

    async def test_a_released_run_whose_place_is_taken_fails(self, open_durably: OpenDurably) -> None:
        """R7: giving back must not make two pending runs of one job and key."""
        durably = await open_durably(job)
        events = Events(durably)
        run = await durably.jobs.job.trigger(1, concurrency_key="k")
        claim = (await claim_one(durably.storage)).claim
        rival = await durably.jobs.job.trigger(2, concurrency_key="k")

        await durably.storage.release([claim])

        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.error) == (RunStatus.FAILED, "Given back by its worker; pending run already exists")
        assert (await events.until("run:fail")).error == found.error
        assert (await claim_one(durably.storage)).run.id == rival.id

    async def test_cancelling_ends_the_lease(self, open_durably: OpenDurably) -> None:
        """R10: a leased run is cancelled at once; cancelling it again is a conflict."""
        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(1)
        await claim_one(durably.storage)

        await durably.cancel(run.id)

        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.lease_owner, found.lease_expires_at) == (RunStatus.CANCELLED, None, None)
        with pytest.raises(ConflictError, match="already cancelled"):
            await durably.cancel(run.id)


async def meet(durably: Durably, claim: Claim, fate: str) -> None:
    """Let something happen to a claimed run."""
    match fate:
        case "claimed again":
            assert (await reclaim(durably.storage)).run.id == claim.run_id
        case "cancelled":
            await durably.cancel(claim.run_id)
        case "completed" | "deleted":
            assert await durably.storage.finish(claim, Completed('"first"'), None, ended_event(claim))
            if fate == "deleted":
                await durably.delete_run(claim.run_id)
        case "released":
            await durably.storage.release([claim])
        case "expired and put back":
            assert await until(durably.storage.recover_expired) == 1
