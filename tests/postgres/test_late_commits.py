"""A commit may still be under way on the server when its connection is gone (D4).

A trigger of the tests holds it there, before or after it has stored what it has to tell.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

import asyncpg
import pytest

from durably import Durably, StepContext, StoreUnavailableError, define_job
from durably.stores.postgres import marks
from tests.conftest import Events, OpenDurably, until
from tests.postgres.proxy import Proxy

GATE = 1
TRIGGER = f"""
CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql
  AS 'BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NEW; END';
CREATE TRIGGER gate {{moment}} INSERT ON durably_events FOR EACH ROW
  WHEN (NEW.events LIKE '%run:leased%') EXECUTE FUNCTION wait_at_gate();
"""


@define_job(name="plain")
async def plain(step: StepContext, input: int) -> int:
    return await step.run("the-only-step", double, input)


async def double(value: int) -> int:
    return 2 * value


@pytest.fixture
async def admin(database: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection of another program."""
    connection = await asyncpg.connect(database)
    yield connection
    connection.terminate()


class Scene:
    """A run that waits, and a worker behind a wire whose claims stand still on the server."""

    def __init__(self, admin: asyncpg.Connection, client: Durably, worker: Durably, run_id: str) -> None:
        self.client = client
        self.worker = worker
        self.run_id = run_id
        self._admin = admin

    async def until_waits(self, statement: str) -> None:
        """Return when a statement that holds this text waits for another one."""
        await until(lambda: self._waits(statement))

    async def _waits(self, statement: str) -> bool:
        query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1"
        return bool(await self._admin.fetch(query, f"%{statement}%"))

    async def go_on(self) -> None:
        """Let through what stands still, and everything after it."""
        await self._admin.execute("SELECT pg_advisory_unlock($1)", GATE)

    async def ending(self) -> tuple[object, int]:
        """Return output and generation of the run; nobody may have waited for the end of a lease."""
        ended = await self.client.wait_for_run(self.run_id, timeout=20)
        return ended.output, ended.lease_generation


async def claim_that_stands_still(
    admin: asyncpg.Connection, url: str, open_durably: OpenDurably, moment: Literal["BEFORE", "AFTER"]
) -> Scene:
    client = await open_durably(plain)
    run = await client.jobs.plain.trigger(21)
    await admin.execute(TRIGGER.format(moment=moment))
    await admin.execute("SELECT pg_advisory_lock($1)", GATE)
    worker = await open_durably(plain, database=url, migrate=False, polling_interval=0.1)
    return Scene(admin, client, worker, run.id)


@pytest.fixture
def through(proxy: Proxy, database: str) -> str:
    return proxy.url(database)


async def test_a_claim_that_outlives_its_connection_is_executed_by_its_worker(
    admin: asyncpg.Connection, proxy: Proxy, through: str, open_durably: OpenDurably
) -> None:
    """W3: the worker waits for its own claim instead of passing over the rows that it holds."""
    scene = await claim_that_stands_still(admin, through, open_durably, "AFTER")
    await scene.worker.start()
    await scene.until_waits("Lease the oldest")

    proxy.cut()
    await scene.until_waits("Take the place")
    await scene.go_on()

    assert await scene.ending() == (42, 1)


async def test_a_claim_that_is_given_up_is_given_back_when_the_database_is_back(
    admin: asyncpg.Connection, proxy: Proxy, through: str, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W3: a lease that nobody knows of does not hold its run until it ends."""
    monkeypatch.setattr(marks, "_PATIENCE_SECONDS", 0.0)
    scene = await claim_that_stands_still(admin, through, open_durably, "AFTER")
    events = Events(scene.worker)
    await scene.worker.start()
    await scene.until_waits("Lease the oldest")

    proxy.cut()
    await events.until("worker:error")
    await scene.go_on()

    assert await scene.ending() == (42, 2)


async def test_a_claim_that_arrives_after_it_was_given_up_is_refused(
    admin: asyncpg.Connection, proxy: Proxy, through: str, open_durably: OpenDurably
) -> None:
    """D4: what counts as not done can never be done any more; the run is claimed again."""
    scene = await claim_that_stands_still(admin, through, open_durably, "BEFORE")
    await scene.worker.start()
    await scene.until_waits("Lease the oldest")

    proxy.cut()
    await until(lambda: admin.fetch("SELECT 1 FROM durably_events WHERE events = '[]'"))
    await scene.go_on()

    assert await scene.ending() == (42, 1)
    assert "run:leased" not in str(await admin.fetch("SELECT events FROM durably_events WHERE number = 1"))


async def test_a_trigger_in_doubt_says_that_it_may_have_happened(
    proxy: Proxy, through: str, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R8: an error never hides a run that was made."""
    client = await open_durably(plain)
    monkeypatch.setattr(marks, "_PATIENCE_SECONDS", 0.0)
    durably = await open_durably(plain, database=through, migrate=False)

    proxy.lose_answer_to("run:trigger")
    with pytest.raises(StoreUnavailableError, match="whether the last write happened is not known"):
        await durably.jobs.plain.trigger(1)

    assert [run.input for run in await client.get_runs()] == [1]
