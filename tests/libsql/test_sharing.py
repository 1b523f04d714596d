"""Several processes and programs on one remote database."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from durably import StepContext, define_job
from durably.core.errors import RunCancelledError, SchemaTooNewError, StoreError
from durably.stores.sql.sqlite_tables import MIGRATIONS, NEWEST, VERSIONS_TABLE
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably
from tests.libsql.middleman import Middleman
from tests.libsql.server import LibsqlServer
from tests.store_contract.test_subscribe import Reader

SILENT_CANCEL = (
    "UPDATE durably_runs SET status = 'cancelled', lease_owner = NULL, lease_expires_at = NULL,"
    " completed_at = updated_at WHERE id = '{}'"
)
"""As a program does it that writes no events: the TypeScript library."""


@define_job(name="echo")
async def echo(step: StepContext, input: Any) -> Any:
    return input


async def test_a_claim_for_more_jobs_than_one_request_can_ask_for_keeps_what_it_got(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W1: where a later request fails, the runs of the first are executed all the same."""
    durably = await open_durably(echo)
    run = await durably.jobs.echo.trigger(1)
    write, requests = durably.storage._writer.run, []  # type: ignore[attr-defined]

    async def fail_after_the_first(unit: Any) -> Any:
        requests.append(unit)
        if len(requests) > 1:
            raise StoreError("away")
        return await write(unit)

    monkeypatch.setattr(durably.storage._writer, "run", fail_after_the_first)  # type: ignore[attr-defined]
    claimed = await durably.storage.claim("me", ["echo", *(f"job-{n}" for n in range(500))], 10, 30)

    assert [each.run.id for each in claimed] == [run.id]
    assert len(requests) == 2


class TestMigrating:
    async def test_many_processes_at_once(self, open_durably: OpenDurably, server: LibsqlServer) -> None:
        """D2."""
        instances = [await open_durably(echo, migrate=False) for _ in range(6)]

        await asyncio.gather(*[instance.migrate() for instance in instances])

        versions = await server.ask("SELECT version FROM durably_schema_versions ORDER BY version")
        assert [int(version) for (version,) in versions] == [version for version, _ in MIGRATIONS]

    async def test_a_database_of_the_typescript_library(self, open_durably: OpenDurably, server: LibsqlServer) -> None:
        """D1: version 1 is theirs; what Python adds comes on top."""
        ((_, first), *_) = MIGRATIONS
        await server.ask(VERSIONS_TABLE, *first, "INSERT INTO durably_schema_versions VALUES (1, '2026')")

        durably = await open_durably(echo)

        run = await durably.jobs.echo.trigger(1)
        assert await durably.process_until_idle() == 1
        assert [each.id for each in await durably.get_runs()] == [run.id]

    async def test_a_newer_schema_is_refused(self, open_durably: OpenDurably, server: LibsqlServer) -> None:
        """D2."""
        await server.ask(VERSIONS_TABLE, f"INSERT INTO durably_schema_versions VALUES ({NEWEST + 1}, 'later')")
        durably = await open_durably(echo, migrate=False)

        with pytest.raises(SchemaTooNewError, match="upgrade"):
            await durably.migrate()

    async def test_tables_of_another_application_are_refused(
        self, open_durably: OpenDurably, server: LibsqlServer
    ) -> None:
        await server.ask("CREATE TABLE durably_runs (id text)")
        durably = await open_durably(echo, migrate=False)

        with pytest.raises(StoreError, match="belongs to another application"):
            await durably.migrate()

    async def test_a_migration_that_fails_leaves_nothing_behind(
        self, open_durably: OpenDurably, server: LibsqlServer
    ) -> None:
        """D2: a version is there wholly or not at all."""
        await server.ask("CREATE TABLE durably_logs (id text)")
        durably = await open_durably(echo, migrate=False)

        with pytest.raises(StoreError, match="durably_logs"):
            await durably.migrate()

        tables = {name for (name,) in await server.ask("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == {"durably_logs"}


class TestProgramsThatTellNothing:
    async def test_the_step_under_way_is_interrupted(self, open_durably: OpenDurably, server: LibsqlServer) -> None:
        """S5: no renewal and no write comes for an hour; the run is looked at."""
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            await step.run("wait", gate.pass_through)

        durably = await open_durably(held, start=True, lease_duration=7200, lease_renew_interval=3600)
        events = Events(durably)
        run = await durably.jobs.held.trigger(None)
        await gate.reached()

        await server.ask(SILENT_CANCEL.format(run.id))

        assert (await events.until("step:cancel")).step_name == "wait"
        await events.until("run:cancel")

    async def test_who_waits_and_who_subscribes_learn_it(self, open_durably: OpenDurably, server: LibsqlServer) -> None:
        """R11, E3."""
        durably = await open_durably(echo, polling_interval=3600)
        run = await durably.jobs.echo.trigger(1)
        waiting = asyncio.ensure_future(durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS))
        subscription = durably.subscribe(run.id)
        first = asyncio.ensure_future(anext(subscription))
        # Both stand and wait when these have been answered.
        await asyncio.gather(*[durably.get_run(run.id) for _ in range(5)])

        await server.ask(SILENT_CANCEL.format(run.id))

        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await first).type == "run:cancel"
            assert [event async for event in subscription] == []
        with pytest.raises(RunCancelledError):
            await waiting

    async def test_a_run_that_they_trigger_is_executed(self, open_durably: OpenDurably, server: LibsqlServer) -> None:
        """W1."""
        durably = await open_durably(echo, start=True, polling_interval=3600)
        events = Events(durably)

        await server.ask(
            "INSERT INTO durably_runs (id, job_name, input, status, created_at, updated_at) VALUES"
            " ('theirs', 'echo', '7', 'pending', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')"
        )

        assert (await events.until("run:complete")).output == 7


async def test_events_of_two_processes_reach_both_in_one_order(open_durably: OpenDurably) -> None:
    """E4: also while both write, and a follower of thousands of rows gets every one."""
    one, two = await open_durably(echo, start=True), await open_durably(echo, start=True)
    heard = Events(one), Events(two)
    await asyncio.gather(one.get_runs(), two.get_runs())

    runs = [run for n in range(20) for run in await asyncio.gather(one.jobs.echo.trigger(n), two.jobs.echo.trigger(n))]
    for run in runs:
        await one.wait_for_run(run.id, timeout=PATIENCE_SECONDS)

    stories = []
    for events in heard:
        await events.until("run:complete", len(runs))
        stories.append([(event.type, event.run_id) for event in events.of("run:trigger", "run:leased", "run:complete")])
    assert stories[0] == stories[1]


async def test_old_events_are_cleaned_away_by_the_clock_of_the_server(
    open_durably: OpenDurably, server: LibsqlServer
) -> None:
    """W3: the newest row stays, so that positions never start again."""
    durably = await open_durably(echo)
    for n in range(5):
        await durably.jobs.echo.trigger(n)
    await server.ask("UPDATE durably_events SET created_at = '2020-01-01T00:00:00.000Z'")
    ((newest,),) = await server.ask("SELECT MAX(position) FROM durably_events")

    await durably.storage.maintain(idle=True)

    assert await server.ask("SELECT position FROM durably_events") == [[newest]]
    assert await durably.purge_runs(older_than=timedelta(0)) == 0


async def test_whoever_missed_what_was_cleaned_away_is_told_the_state(
    open_durably: OpenDurably, between: Middleman, server: LibsqlServer
) -> None:
    """E3, E4: as a process that stood still for longer than the log keeps its rows."""
    here, there = await open_durably(echo, database=between.url), await open_durably(echo)
    run = await here.jobs.echo.trigger("x")
    (claimed,) = await there.storage.claim("there", ["echo"], 1, PATIENCE_SECONDS)
    reader = Reader(here.subscribe(run.id))
    await reader.until("run:leased")

    between.may_pass.clear()
    await there.storage.save_progress(claimed.claim, '{"current":5}')
    for text in ("old", "newest"):
        await there.jobs.echo.trigger(text)
    await server.ask("UPDATE durably_events SET created_at = '2020-01-01T00:00:00.000Z'")
    await there.storage.maintain(idle=False)
    between.may_pass.set()
    await reader.until("run:progress")
    await there.cancel(run.id)

    assert await reader.end() == ["run:leased", "run:leased", "run:progress", "run:cancel"]
