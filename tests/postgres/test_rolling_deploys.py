"""Old and new versions of the library on one database: what runs goes on, what starts must know the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from durably import Durably, SchemaTooNewError, StepContext, StoreError, define_job
from durably.stores.postgres import schema
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably

OF_TYPESCRIPT = f"""
{schema.MIGRATIONS[0][1]}
CREATE TABLE durably_schema_versions (version integer PRIMARY KEY, applied_at text NOT NULL);
INSERT INTO durably_schema_versions VALUES (1, '2026-01-01T00:00:00.000Z');
"""
# What a later version may do: add, with defaults.
A_LATER_VERSION = """
ALTER TABLE durably_runs ADD COLUMN priority integer DEFAULT 0 NOT NULL;
ALTER TABLE durably_steps ADD COLUMN attempts integer DEFAULT 1 NOT NULL;
ALTER TABLE durably_events ADD COLUMN region text;
CREATE INDEX idx_durably_runs_priority ON durably_runs (priority, created_at);
CREATE TABLE durably_schedules (id text PRIMARY KEY, cron text NOT NULL);
"""


@define_job(name="add")
async def add(step: StepContext, input: int) -> int:
    return await step.run("one", plus_one, input)


async def plus_one(value: int) -> int:
    return value + 1


Deploy = Callable[[], None]


@pytest.fixture
def deploy_newer(monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Let what is opened from now on be of a later version; nothing that is open looks at this again."""

    def deploy() -> None:
        newest = schema.NEWEST + 1
        monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, (newest, A_LATER_VERSION)))
        monkeypatch.setattr(schema, "NEWEST", newest)

    return deploy


async def does_work(durably: Durably, worker_of: Durably) -> None:
    run = await durably.jobs.add.trigger(1)
    ended = await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)
    assert (ended.output, ended.lease_owner) == (2, None)
    assert await worker_of.get_run(run.id) == ended


async def test_a_process_of_the_old_version_goes_on_after_a_migration(
    open_durably: OpenDurably, deploy_newer: Deploy
) -> None:
    """D2: a later version only adds; statements that were prepared before still fit."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: int) -> int:
        await step.run("wait", gate.pass_through)
        return await step.run("one", plus_one, input)

    old = await open_durably(add, held, start=True)
    heard_by_old = Events(old)
    await does_work(old, old)
    under_way = await old.jobs.held.trigger(10)
    await gate.reached()

    deploy_newer()
    new = await open_durably(add, held)
    gate.open()

    assert (await new.wait_for_run(under_way.id, timeout=PATIENCE_SECONDS)).output == 11
    await does_work(old, new)
    await does_work(new, old)
    await old.stop()
    await new.start()
    await does_work(old, new)
    await heard_by_old.until("run:complete", 5)


async def test_versions_change_under_load_without_losing_anything(
    open_durably: OpenDurably, deploy_newer: Deploy
) -> None:
    """D4: the locks of a migration make writers wait; none fails."""
    old = await open_durably(add, start=True, max_concurrent_runs=10)

    async def keep_triggering() -> list[str]:
        return [(await old.jobs.add.trigger(n)).id for n in range(200)]

    triggering = asyncio.create_task(keep_triggering())
    await Events(old).until("run:complete", 20)
    deploy_newer()
    new = await open_durably(add, start=True, max_concurrent_runs=10)

    for run_id in await triggering:
        await new.wait_for_run(run_id, timeout=PATIENCE_SECONDS)
    assert {(run.status, run.lease_generation) for run in await new.get_runs()} == {("completed", 1)}


async def test_a_process_of_the_old_version_cannot_start_after_the_migration(
    open_durably: OpenDurably, deploy_newer: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D2: it says which version is needed, and has written nothing."""
    deploy_newer()
    await open_durably(add)
    monkeypatch.undo()

    with pytest.raises(SchemaTooNewError, match=f"version {schema.NEWEST + 1}"):
        await open_durably(add)


async def test_tables_of_the_first_version_are_brought_up_to_date_beside_a_program_that_uses_them(
    database: str, open_durably: OpenDurably
) -> None:
    """D1: version 1 is what the TypeScript library makes; its statements go on working."""
    program = await asyncpg.connect(database)
    await program.execute(OF_TYPESCRIPT)
    insert = await program.prepare(
        "INSERT INTO durably_runs (id, job_name, input, status, created_at, updated_at)"
        " VALUES ($1, 'add', '5', 'pending', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')"
    )
    read = await program.prepare("SELECT * FROM durably_runs WHERE id = $1")
    await insert.fetch("before")

    durably = await open_durably(add)
    await insert.fetch("after")
    assert await durably.process_until_idle() == 2

    assert [(await read.fetch(each))[0]["output"] for each in ("before", "after")] == ["6", "6"]
    await program.close()


async def test_a_key_that_two_runs_of_the_first_version_hold_is_named(database: str, open_durably: OpenDurably) -> None:
    """D1, R7: the TypeScript library leaves a dead worker's run leased; which of the two goes on is not ours to say."""
    program = await asyncpg.connect(database)
    await program.execute(OF_TYPESCRIPT)
    await program.execute(
        "INSERT INTO durably_runs"
        " (id, job_name, input, status, concurrency_key, lease_expires_at, created_at, updated_at)"
        " SELECT name, 'add', '5', 'leased', 'of-both', moment, moment, moment"
        " FROM unnest(ARRAY['dead', 'alive']) AS name, (VALUES ('2026-01-01T00:00:00.000Z')) AS time (moment)"
    )
    with pytest.raises(StoreError, match=r"two leased runs of one concurrency key.*of-both"):
        await open_durably(add)
    assert await program.fetchval("SELECT max(version) FROM durably_schema_versions") == 1

    await program.execute("UPDATE durably_runs SET status = 'cancelled' WHERE id = 'dead'")
    durably = await open_durably(add)
    assert await durably.process_until_idle() == 1
    await program.close()
