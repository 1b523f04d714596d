"""What is committed at the moment in which its run ends or is deleted.

A statement of PostgreSQL that waits for a row goes on with that row as it is then, and with all other rows as they
were when it began. The other writer is played by the test, which decides when it commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from durably import StepContext, define_job, with_log_persistence
from tests.conftest import Gate, OpenDurably, until

LOCK_RUN = "SELECT 1 FROM durably_runs WHERE id = $1 FOR KEY SHARE"
ADD_LOG = """
INSERT INTO durably_logs (id, run_id, level, message, created_at)
VALUES ('a-line', $1, 'info', 'at the last moment', '2026-01-01T00:00:00.000Z')
"""
UPDATE_RUN = "UPDATE durably_runs SET completed_step_count = 1 WHERE id = $1"
ADD_STEP = """
INSERT INTO durably_steps (id, run_id, name, "index", status, output, started_at, completed_at)
VALUES ('a-step', $1, 'a-step', 0, 'completed', '1', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')
"""
WAITS = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@define_job(name="plain")
async def plain(step: StepContext, input: int) -> int:
    return input


@pytest.fixture
async def other(database: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection of another process."""
    connection = await asyncpg.connect(database)
    yield connection
    connection.terminate()


async def commit_while_it_waits(other: asyncpg.Connection, database: str, task: asyncio.Task[Any]) -> None:
    """Commit what `other` has open once `task` waits for it, or has not waited."""
    observer = await asyncpg.connect(database)

    async def waits_or_is_done() -> bool:
        return task.done() or bool(await observer.fetch(WAITS))

    try:
        await until(waits_or_is_done)
    finally:
        await observer.close()
    await other.execute("COMMIT")
    await task


async def test_a_cancelled_run_keeps_no_step_that_was_committed_meanwhile(
    open_durably: OpenDurably, other: asyncpg.Connection, database: str
) -> None:
    """S6: another process was storing the result of a step when the run was cancelled."""
    durably = await open_durably(plain)
    run = await durably.jobs.plain.trigger(1)
    await other.execute("BEGIN")
    await other.execute(UPDATE_RUN, run.id)
    await other.execute(ADD_STEP, run.id)

    await commit_while_it_waits(other, database, asyncio.ensure_future(durably.cancel(run.id)))

    assert await durably.get_steps(run.id) == []


async def test_a_deleted_run_keeps_no_log_line_that_was_committed_meanwhile(
    open_durably: OpenDurably, other: asyncpg.Connection, database: str
) -> None:
    """R10: another process was storing log lines of the run when it was deleted."""
    durably = await open_durably(plain)
    run = await durably.jobs.plain.trigger(1)
    await durably.cancel(run.id)
    await other.execute("BEGIN")
    await other.execute(LOCK_RUN, run.id)
    await other.execute(ADD_LOG, run.id)

    await commit_while_it_waits(other, database, asyncio.ensure_future(durably.delete_run(run.id)))

    assert await durably.get_logs(run.id) == []


async def test_a_log_line_is_not_stored_for_a_run_that_is_being_deleted(
    open_durably: OpenDurably, other: asyncpg.Connection, database: str
) -> None:
    """R10: the run is deleted by another process while lines that its job wrote at the last moment are stored."""
    before, after = Gate(), Gate()

    @define_job(name="late")
    async def late(step: StepContext, input: int) -> None:
        await before.pass_through()
        step.log.info("at the last moment")
        await after.pass_through()

    durably = await open_durably(late, start=True)
    durably.use(with_log_persistence())
    run = await durably.jobs.late.trigger(1)
    await before.reached()
    await other.execute("BEGIN")
    await other.execute("DELETE FROM durably_runs WHERE id = $1", run.id)
    before.open()
    await after.reached()

    await commit_while_it_waits(other, database, asyncio.ensure_future(durably.get_logs(run.id)))

    assert await durably.get_logs(run.id) == []
