"""A commit whose answer is lost is found out, never repeated blindly (D4)."""

from __future__ import annotations

from typing import Any

import pytest

from durably import BatchItem, StepContext, define_job
from tests.conftest import Events, Gate, OpenDurably, attribute_of
from tests.postgres.proxy import Proxy


@define_job(name="plain")
async def plain(step: StepContext, input: int) -> int:
    return await step.run("the-only-step", double, input)


async def double(value: int) -> int:
    return 2 * value


@pytest.fixture
def through(proxy: Proxy, database: str) -> str:
    return proxy.url(database)


async def test_a_trigger_whose_answer_is_lost_makes_one_run(
    proxy: Proxy, through: str, open_durably: OpenDurably
) -> None:
    """R8: the second attempt finds that the first was committed."""
    durably = await open_durably(plain, database=through)
    events = Events(durably)
    await durably.jobs.plain.trigger(1)

    proxy.lose_answer_to("run:trigger")
    result = await durably.jobs.plain.trigger(2)

    assert proxy.lost.is_set()
    assert result.disposition == "created"
    assert [run.input for run in await durably.get_runs()] == [2, 1]
    await durably.start()
    await events.until("run:complete", 2)
    assert [event.input for event in events.of("run:trigger")] == [1, 2]


@pytest.mark.parametrize("key", ["idempotency_key", "concurrency_key"])
async def test_a_keyed_trigger_whose_answer_is_lost_made_its_run(
    proxy: Proxy, through: str, open_durably: OpenDurably, key: str
) -> None:
    """R6, R7: its own run does not stand in its way."""
    durably = await open_durably(plain, database=through)

    proxy.lose_answer_to("run:trigger")
    result = await durably.jobs.plain.trigger(1, **{key: "k"})

    assert proxy.lost.is_set()
    assert result.disposition == "created"
    assert [run.id for run in await durably.get_runs()] == [result.id]


async def test_a_trigger_that_joined_a_run_whose_answer_is_lost_has_joined_it(
    through: str, database: str, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R7, R8: also when that run has begun by the time it is found out; no other is made up."""
    durably, elsewhere = await open_durably(plain, database=through), await open_durably(plain)
    first = await durably.jobs.plain.trigger(1, concurrency_key="k")
    fetch, lost = durably.storage._server.fetch, []  # type: ignore[attr-defined]

    async def lose_one_answer(connection: Any, statement: str, *values: Any) -> Any:
        rows = await fetch(connection, statement, *values)
        if "run:coalesced" in str(values) and not lost:
            lost.append(statement)
            await elsewhere.storage.claim("elsewhere", ["plain"], 1, 30)
            connection.terminate()
            raise ConnectionResetError
        return rows

    monkeypatch.setattr(durably.storage._server, "fetch", lose_one_answer)  # type: ignore[attr-defined]
    joined = await durably.jobs.plain.trigger(2, concurrency_key="k", coalesce="skip")

    assert lost
    assert (joined.disposition, joined.id) == ("coalesced", first.id)


async def test_a_batch_with_keys_whose_answer_is_lost_made_its_runs(
    proxy: Proxy, through: str, open_durably: OpenDurably
) -> None:
    """R8."""
    durably = await open_durably(plain, database=through)

    proxy.lose_answer_to("run:trigger")
    results = await durably.jobs.plain.batch_trigger([BatchItem(n, idempotency_key=str(n)) for n in range(3)])

    assert proxy.lost.is_set()
    assert [result.disposition for result in results] == ["created"] * 3
    assert len(await durably.get_runs()) == 3


@pytest.mark.parametrize("moment", ["run:leased", "step:complete", "run:complete"])
async def test_a_run_whose_commits_are_not_answered_is_executed_once(
    proxy: Proxy, through: str, open_durably: OpenDurably, moment: str
) -> None:
    """S2, L1: claim, step and end are each recorded once, and each is told once."""
    durably = await open_durably(plain, database=through, preserve_steps=True)
    events = Events(durably)
    run = await durably.jobs.plain.trigger(21)

    # A claim sends no event text of its own; the name of the worker is what tells it.
    proxy.lose_answer_to("plain" if moment == "run:leased" else moment)
    await durably.start()
    ended = await durably.wait_for_run(run.id, timeout=30)
    await events.until("run:complete")

    assert proxy.lost.is_set()
    assert (ended.output, ended.completed_step_count, ended.lease_generation) == (42, 1, 1)
    assert len(await durably.get_steps(run.id)) == 1
    for told in ("run:leased", "step:complete", "run:complete"):
        assert len(events.of(told)) == 1


async def test_a_cancel_whose_answer_is_lost_has_cancelled(
    proxy: Proxy, through: str, open_durably: OpenDurably
) -> None:
    """R10: it does not complain that the run is cancelled already."""
    durably = await open_durably(plain, database=through)
    run = await durably.jobs.plain.trigger(1)

    proxy.lose_answer_to(run.id)
    await durably.cancel(run.id)

    assert proxy.lost.is_set()
    found = await durably.get_run(run.id)
    assert found is not None
    assert found.status == "cancelled"


async def test_a_deletion_whose_answer_is_lost_has_deleted(
    proxy: Proxy, through: str, open_durably: OpenDurably
) -> None:
    """R10: it does not complain that there is no such run."""
    durably = await open_durably(plain, database=through)
    run = await durably.jobs.plain.trigger(1)
    await durably.cancel(run.id)

    proxy.lose_answer_to(run.id)
    await durably.delete_run(run.id)

    assert proxy.lost.is_set()
    assert await durably.get_run(run.id) is None


async def test_a_wire_that_is_cut_costs_a_running_job_nothing(
    proxy: Proxy, through: str, open_durably: OpenDurably
) -> None:
    """W3: the worker goes on by itself."""
    gate = Gate()

    @define_job(name="patient")
    async def patient(step: StepContext, input: int) -> int:
        await step.run("wait", gate.pass_through)
        return input

    durably = await open_durably(patient, start=True, database=through)
    run = await durably.jobs[attribute_of(patient)].trigger(7)
    await gate.reached()

    proxy.cut()
    gate.open()

    assert (await durably.wait_for_run(run.id, timeout=30)).output == 7
