"""A request goes out, the server does what it says, and the answer is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from durably import RunStatus, StepContext, define_job
from durably.core.errors import StoreUnavailableError
from tests.conftest import PATIENCE_SECONDS, Events, OpenDurably
from tests.libsql.middleman import Middleman, Request
from tests.libsql.server import LibsqlServer


def once(fragment: str) -> Callable[[Request], bool]:
    """Return what is true of the first request whose SQL contains `fragment`."""
    happened = False

    def first(request: Request) -> bool:
        nonlocal happened
        if happened or fragment not in request.sql:
            return False
        happened = True
        return True

    return first


@define_job(name="count")
async def count(step: StepContext, input: Any) -> Any:
    step.progress(1, 2)
    return [await step.run(f"step-{n}", lambda n=n: n) for n in range(3)]


@pytest.mark.parametrize("fragment", ["INSERT INTO durably_steps", "-- End runs, but only under our own leases"])
async def test_a_checkpoint_or_an_end_is_written_again_and_counted_once(
    open_durably: OpenDurably, between: Middleman, server: LibsqlServer, fragment: str
) -> None:
    """S1: the holder asks again; what was done the first time is found, not done twice."""
    durably = await open_durably(count, database=between.url, preserve_steps=True)
    between.loses = once(fragment)

    run = await durably.jobs.count.trigger(None)
    assert await durably.process_until_idle() == 1

    ended = await durably.get_run(run.id)
    assert ended is not None
    assert (ended.status, ended.output, ended.completed_step_count) == (RunStatus.COMPLETED, [0, 1, 2], 3)
    assert [step.name for step in await durably.get_steps(run.id)] == ["step-0", "step-1", "step-2"]
    log = "".join(text for (text,) in await server.ask("SELECT events FROM durably_events"))
    assert (log.count('"step:complete"'), log.count('"run:complete"')) == (3, 1)


async def test_a_trigger_says_that_it_may_have_happened(open_durably: OpenDurably, between: Middleman) -> None:
    """R6: with an idempotency key the caller may ask again without harm."""
    durably = await open_durably(count, database=between.url)
    between.loses = once("INSERT INTO durably_runs")

    with pytest.raises(StoreUnavailableError, match="may or may not have happened"):
        await durably.jobs.count.trigger(None, idempotency_key="order-1")
    again = await durably.jobs.count.trigger(None, idempotency_key="order-1")

    assert again.disposition == "idempotent"
    assert [run.id for run in await durably.get_runs()] == [again.id]


async def test_runs_of_a_lost_claim_are_free_when_their_lease_ends(
    open_durably: OpenDurably, between: Middleman
) -> None:
    """L4: nobody knows that they are leased; the lease ends by itself."""
    durably = await open_durably(
        count, database=between.url, lease_duration=1, lease_renew_interval=0.2, polling_interval=0.05
    )
    run = await durably.jobs.count.trigger(None)
    between.loses = once("-- Take the oldest waiting runs")

    await durably.start()
    ended = await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)

    assert ended.lease_generation == 2


async def test_a_server_that_goes_away_and_comes_back(open_durably: OpenDurably, server: LibsqlServer) -> None:
    """W3: a step that ends meanwhile is recorded when the server is back; nothing is lost."""

    @define_job(name="job")
    async def job(step: StepContext, input: Any) -> Any:
        first = await step.run("before", lambda: "before")
        server.stop()
        step.log.info("meanwhile")

        def bring_back() -> str:
            server.start()
            return "after"

        return [first, await step.run("after", bring_back)]

    durably = await open_durably(job, start=True, polling_interval=0.05)
    events = Events(durably)
    run = await durably.jobs.job.trigger(None)

    await events.until("run:complete")

    ended = await durably.get_run(run.id)
    assert ended is not None
    assert (ended.output, ended.lease_generation) == (["before", "after"], 1)
    log = "".join(text for (text,) in await server.ask("SELECT events FROM durably_events"))
    assert log.count('"log:write"') == 1
    assert log.index('"log:write"') < log.index('"run:complete"')
