"""D1: what other programs and older versions have stored harms its own run only."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from durably import Durably, RunStatus, StepContext, ValidationError, define_job
from tests.conftest import PATIENCE_SECONDS, Events, OpenDurably
from tests.store_contract.foreign_writer import write

INSERT = (
    "INSERT INTO durably_runs (id, job_name, input, status, created_at, updated_at) VALUES"
    " ('{}', 'echo', '{}', 'pending', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')"
)
END = "UPDATE durably_runs SET status = 'completed', completed_at = created_at, output = '{}'"


@define_job(name="echo")
async def echo(step: StepContext, input: Any) -> Any:
    return input


@pytest.mark.two_processes
class TestInputThatIsNotJson:
    @pytest.mark.parametrize("text", ["{broken", "", "NaN", '{"n":Infinity}'])
    async def test_it_fails_its_own_run_with_its_text(
        self, database: str, open_durably: OpenDurably, text: str
    ) -> None:
        """D1, L1: the claim goes on, the runs behind it are executed, and all are told of."""
        durably = await open_durably(echo)
        other = await open_durably(echo)
        events = Events(other)
        await write(database, INSERT.format("theirs", text))
        good = await durably.jobs.echo.trigger("good")

        assert await durably.process_until_idle() == 2

        failed, completed = await durably.get_run("theirs"), await durably.get_run(good.id)
        assert failed is not None
        assert completed is not None
        assert (failed.status, failed.error) == (RunStatus.FAILED, f"The stored input is not JSON: {text!r}")
        assert completed.status == RunStatus.COMPLETED
        # The other process hears of both: a broken text does not break the log of events.
        await events.until("run:complete")
        assert [event.input for event in events.of("run:leased")] == [text, "good"]

    async def test_it_can_be_listed_and_not_retriggered(self, database: str, open_durably: OpenDurably) -> None:
        """R9: the text is shown as it is stored."""
        durably = await open_durably(echo)
        await write(database, INSERT.format("theirs", "{broken"))
        await durably.process_until_idle()

        assert [run.input for run in await durably.get_runs()] == ["{broken"]
        with pytest.raises(ValidationError, match="The stored input is not JSON"):
            await durably.retrigger("theirs")


@pytest.mark.two_processes
@pytest.mark.parametrize(
    ("output", "read"),
    [(r'"cut \ud83d"', "cut \ufffd"), ("[" * 300 + "]" * 300, None)],
    ids=["half a character", "deep"],
)
async def test_an_end_with_an_output_that_is_not_stored_here_is_told(
    database: str, open_durably: OpenDurably, output: str, read: Any
) -> None:
    """R11, D1: to who follows that run, now or later, and to those that follow others."""
    durably = await open_durably(echo)
    runs = [await durably.jobs.echo.trigger(n) for n in range(3)]
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        following = [group.create_task(last_event(durably, run.id)) for run in runs]
        await asyncio.sleep(0)
        await write(database, END.format(output))
    events = [each.result() for each in following]
    late = [await last_event(durably, run.id) for run in runs]

    assert {event.type for event in [*events, *late]} == {"run:complete"}
    if read is not None:
        assert {event.output for event in [*events, *late]} == {read}


async def last_event(durably: Durably, run_id: str) -> Any:
    """Return the event that ends a subscription."""
    return [event async for event in durably.subscribe(run_id)][-1]


@pytest.mark.two_processes
@pytest.mark.parametrize("labels", ["{broken", "[1]", ""])
async def test_labels_that_are_no_labels_stop_nobody(database: str, open_durably: OpenDurably, labels: str) -> None:
    """D1: the run has none, and the log of events goes on."""
    durably, other = await open_durably(echo), await open_durably(echo)
    events = Events(other)
    await write(database, INSERT.format("theirs", "1").replace("'pending'", f"'pending', '{labels}'").replace(
        "status", "status, labels"
    ))  # fmt: skip
    good = await durably.jobs.echo.trigger(2)

    assert await durably.process_until_idle() == 2
    await events.until("run:complete", 2)
    found = await durably.get_run("theirs")
    assert found is not None
    assert (found.status, found.labels, found.output) == (RunStatus.COMPLETED, {}, 1)
    assert {event.run_id for event in events.of("run:complete")} == {"theirs", good.id}


class Old(BaseModel):
    count: int


class New(BaseModel):
    total: int


@pytest.mark.two_processes
async def test_an_output_of_an_older_type_does_not_make_a_list_unreadable(open_durably: OpenDurably) -> None:
    """R4: it is handed over as the plain value that is stored; who waits for today's type is told."""

    async def one(step: StepContext, input: Any) -> Old:
        return Old(count=1)

    async def two(step: StepContext, input: Any) -> New:
        return New(total=2)

    durably = await open_durably(define_job(name="work", input=Any, output=New, run=two))
    before = await open_durably(define_job(name="work", input=Any, output=Old, run=one))
    old = await before.jobs.work.trigger(None, idempotency_key="k")
    await before.process_until_idle()
    await durably.jobs.work.trigger(None)
    await durably.process_until_idle()

    handle = durably.jobs.work
    assert [run.output for run in await handle.get_runs()] == [New(total=2), {"count": 1}]
    found = await handle.get_run(old.id)
    assert found is not None
    assert found.output == {"count": 1}
    assert (await handle.trigger(None, idempotency_key="k")).output == {"count": 1}
    with pytest.raises(ValidationError, match=r"output\.total"):
        await handle.trigger_and_wait(None, idempotency_key="k")
