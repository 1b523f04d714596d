"""L2, L6: renewal over the network, and what a refused renewal means."""

from __future__ import annotations

import asyncio
from typing import Any

from durably import StepContext, define_job
from durably.testing import FakeClock
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably
from tests.libsql.middleman import Middleman, Request
from tests.libsql.server import LibsqlServer


async def until_renewed(between: Middleman, count: int) -> None:
    """Return when so many more renewals have been asked for."""
    wanted = _renewals(between) + count
    async with asyncio.timeout(PATIENCE_SECONDS):
        while _renewals(between) < wanted:
            await asyncio.sleep(0.005)


def _renewals(between: Middleman) -> int:
    return sum("-- Extend leases" in request.sql for request in between.requests)


async def test_all_leases_of_a_process_are_renewed_in_one_request(
    open_durably: OpenDurably, between: Middleman, server: LibsqlServer
) -> None:
    """L2: on connections of its own, by the clock of the server."""
    gates = [Gate() for _ in range(5)]

    @define_job(name="held")
    async def held(step: StepContext, input: int) -> None:
        await step.run("wait", gates[input].pass_through)

    durably = await open_durably(held, start=True, database=between.url, lease_duration=60, lease_renew_interval=0.05)
    await durably.jobs.held.batch_trigger(list(range(5)))
    for gate in gates:
        await gate.reached()
    leased = {run.id: run.lease_expires_at for run in await durably.get_runs()}

    await until_renewed(between, 3)

    for run in await durably.get_runs():
        before, now = leased[run.id], run.lease_expires_at
        assert before is not None
        assert now is not None
        assert now > before
    for gate in gates:
        gate.open()


async def test_a_renewal_refused_because_the_run_was_cancelled_is_no_lost_lease(
    open_durably: OpenDurably, between: Middleman, server: LibsqlServer
) -> None:
    """S5: also where the renewal learns of a cancellation before its event has come."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        await step.run("wait", gate.pass_through)

    durably = await open_durably(held, start=True, database=between.url, lease_renew_interval=0.05)
    events = Events(durably)
    run = await durably.jobs.held.trigger(None)
    await gate.reached()

    await server.ask(f"UPDATE durably_runs SET status = 'cancelled', completed_at = updated_at WHERE id = '{run.id}'")

    assert (await events.until("step:cancel")).step_name == "wait"
    assert events.of("worker:error") == []


async def test_a_renewal_that_comes_after_the_end_is_no_lost_lease(
    open_durably: OpenDurably, between: Middleman
) -> None:
    """The end is recorded, the answer to that is still on its way, and a renewal finds the run ended."""
    arrive, is_ended = asyncio.Event(), asyncio.Event()

    def hold_the_end(request: Request) -> asyncio.Event | None:
        if "-- End runs, but only under our own leases" not in request.sql:
            return None
        is_ended.set()
        return arrive

    @define_job(name="echo")
    async def echo(step: StepContext, input: Any) -> Any:
        return input

    durably = await open_durably(echo, start=True, database=between.url, lease_renew_interval=0.05)
    events = Events(durably)
    between.holds = hold_the_end
    run = await durably.jobs.echo.trigger("done")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await is_ended.wait()

    await until_renewed(between, 3)
    arrive.set()

    assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == "done"
    assert events.of("worker:error") == []


async def test_the_clock_of_the_server_decides_a_lease(open_durably: OpenDurably) -> None:
    """L6: a machine whose clock is a day ahead takes nobody's run away."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> None:
        await step.run("wait", gate.pass_through)

    holder = await open_durably(held, start=True)
    ahead = FakeClock()
    ahead.advance(days=1)
    hasty = await open_durably(held, clock=ahead)
    run = await holder.jobs.held.trigger(None)
    await gate.reached()

    assert await hasty.process_until_idle() == 0
    assert await hasty.storage.recover_expired() == 0

    gate.open()
    assert (await holder.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).lease_generation == 1
