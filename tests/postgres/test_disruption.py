"""D4, W3: the store survives whatever happens to its connections and to its server."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from durably import Durably, StepContext, create_durably, define_job
from durably.stores.postgres import marks
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably
from tests.postgres.proxy import proxy_to
from tests.postgres.server import PostgresServer, server_directory

STEPS = 15


@define_job(name="many")
async def many(step: StepContext, input: int) -> list[int]:
    return [await step.run(f"step-{n}", unchanged, n) for n in range(STEPS)]


async def unchanged(value: int) -> int:
    # The disturbance must meet every part of a step.
    await asyncio.sleep(0.005)
    return value


async def all_ended(durably: Durably, run_ids: list[str]) -> list[object]:
    async with asyncio.timeout(2 * PATIENCE_SECONDS):
        return [(await durably.wait_for_run(run_id)).output for run_id in run_ids]


def each_step_once(events: Events, run_ids: list[str]) -> bool:
    told = [(event.run_id, event.step_name) for event in events.of("step:complete")]
    return sorted(told) == sorted((run_id, f"step-{n}") for run_id in run_ids for n in range(STEPS))


async def test_connections_that_are_ended_all_the_time_lose_and_repeat_nothing(
    database: str, open_durably: OpenDurably
) -> None:
    """Every step of every run is recorded once and told once, in a storm of pg_terminate_backend."""
    durably = await open_durably(many, max_concurrent_runs=10)
    events = Events(durably)
    runs = [run.id for run in await durably.jobs.many.batch_trigger(list(range(20)))]
    enemy = await asyncpg.connect(database)
    await durably.start()

    async def storm() -> None:
        while True:
            await enemy.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            # A slow machine needs longer to connect than the storm leaves it: nothing would ever get on.
            await events.until("step:complete", len(events.of("step:complete")) + 1)
            await asyncio.sleep(0.05)

    storming = asyncio.create_task(storm())
    await events.until("run:complete", 10)
    storming.cancel()
    outputs = await all_ended(durably, runs)
    await events.until("run:complete", 20)
    enemy.terminate()

    assert outputs == [list(range(STEPS))] * 20
    assert each_step_once(events, runs)
    assert [run.completed_step_count for run in await durably.get_runs()] == [STEPS] * 20


async def test_a_server_that_crashes_and_comes_back_costs_no_step(
    own_server: PostgresServer, open_durably: OpenDurably
) -> None:
    """The worker goes on by itself; what was committed is not done again, what was not is."""
    durably = await open_durably(many, database=own_server.create_database(), start=True)
    events = Events(durably)
    runs = [run.id for run in await durably.jobs.many.batch_trigger(list(range(5)))]
    await events.until("step:complete", 10)

    await asyncio.to_thread(own_server.crash)
    await asyncio.to_thread(own_server.start)

    assert await all_ended(durably, runs) == [list(range(STEPS))] * 5
    await events.until("run:complete", 5)
    assert each_step_once(events, runs)


async def test_a_standby_that_takes_over_has_every_committed_step(own_server: PostgresServer) -> None:
    """With synchronous replication and both hosts in the URL a failover is only a pause."""
    with server_directory() as directory:
        standby = PostgresServer(directory, is_safe=True, settings={"hot_standby": "on"})
        own_server.copy_to(standby)
        standby.start()
        try:
            database = own_server.create_database()
            own_server.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
            own_server.sql("SELECT pg_reload_conf()")
            name = database.rpartition("/")[2]
            url = f"postgresql://postgres@127.0.0.1:{own_server.port},127.0.0.1:{standby.port}/{name}"
            durably = create_durably(database=url, jobs={"many": many})
            events = Events(durably)
            async with durably:
                runs = [run.id for run in await durably.jobs.many.batch_trigger(list(range(5)))]
                await events.until("step:complete", 10)

                await asyncio.to_thread(own_server.crash)
                await asyncio.to_thread(standby.promote)

                assert await all_ended(durably, runs) == [list(range(STEPS))] * 5
                await events.until("run:complete", 5)
                assert each_step_once(events, runs)
        finally:
            standby.stop()


async def test_a_worker_that_is_cut_off_loses_its_runs_and_writes_nothing_when_it_is_back(
    own_server: PostgresServer,
) -> None:
    """L2, L3, L4: its lease goes to another worker; what it still wants to write is refused."""
    database = own_server.create_database()
    entered, release = asyncio.Event(), asyncio.Event()

    @define_job(name="work")
    async def stuck(step: StepContext, input: int) -> str:
        await step.run("first", unchanged, 1)
        entered.set()
        await release.wait()
        return await step.run("second", who, "cut off")

    @define_job(name="work")
    async def healthy(step: StepContext, input: int) -> str:
        await step.run("first", unchanged, 2)
        return await step.run("second", who, "healthy")

    async def who(name: str) -> str:
        return name

    leases = {"lease_duration": 1.0, "lease_renew_interval": 0.2, "polling_interval": 0.1}
    async with proxy_to(own_server.port) as proxy:
        lonely = create_durably(
            database=proxy.url(database) + "?command_timeout=2&connect_timeout=2", jobs={"work": stuck}, **leases
        )
        other = create_durably(database=database, jobs={"work": healthy}, preserve_steps=True, **leases)
        told = Events(other)
        await lonely.init()
        run = await lonely.jobs.work.trigger(0)
        await entered.wait()

        proxy.freeze()
        await other.init()
        ended = await other.wait_for_run(run.id, timeout=PATIENCE_SECONDS)
        proxy.thaw()
        release.set()
        await lonely.stop(timeout=5)

        assert (ended.output, ended.lease_generation) == ("healthy", 2)
        steps = await other.get_steps(run.id)
        assert [(step.name, step.output) for step in steps] == [("first", 1), ("second", "healthy")]
        assert len(told.of("run:complete")) == 1
        assert (await other.get_run(run.id)) == ended
        for each in (lonely, other):
            await each.stop(timeout=5)
            await each.close()


async def test_what_is_logged_while_the_server_is_away_is_told_when_it_is_back(
    own_server: PostgresServer, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E4: other processes hear of it too: what could not even be sent is not given up, nor sent twice."""
    monkeypatch.setattr(marks, "_PATIENCE_SECONDS", 0.0)
    gate = Gate()

    @define_job(name="logs")
    async def logs(step: StepContext, input: None) -> None:
        await gate.pass_through()
        for number in range(3):
            step.log.info("line", number)

    url = own_server.create_database()
    durably = await open_durably(logs, database=url, start=True)
    heard = Events(await open_durably(logs, database=url))
    run = await durably.jobs.logs.trigger(None)
    await gate.reached()

    await asyncio.to_thread(own_server.crash)
    gate.open()
    await asyncio.to_thread(own_server.start)

    await all_ended(durably, [run.id])
    await heard.until("log:write", 3)
    assert [event.data for event in heard.of("log:write")] == [0, 1, 2]
