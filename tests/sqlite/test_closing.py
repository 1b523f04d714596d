"""D3: what closing a database waits for."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from durably import StepContext, create_durably, define_job
from durably.stores.sqlite import reads
from tests.conftest import PATIENCE_SECONDS, OpenDurably


@define_job(name="echo")
async def echo(step: StepContext, input: int) -> int:
    return input


async def test_connections_are_closed_when_nobody_reads_through_them_any_more(
    open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that is under way has its answer, its connection is not left open, and the event loop goes on."""
    begun, may_go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    used: list[sqlite3.Connection] = []

    def slow_read(connection: sqlite3.Connection, run_id: str) -> list[Any]:
        used.append(connection)
        loop.call_soon_threadsafe(begun.set)
        assert may_go_on.wait(PATIENCE_SECONDS)
        return connection.execute("SELECT 1").fetchall()

    durably = await open_durably()
    monkeypatch.setattr(reads, "steps", slow_read)
    reading = asyncio.create_task(durably.get_steps("run"))
    await begun.wait()
    closing = asyncio.create_task(durably.close())
    loop.call_later(0, may_go_on.set)
    await closing

    assert await reading == [(1,)]
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        used[0].execute("SELECT 1")


@pytest.mark.parametrize("attempt", range(5))
def test_it_is_closed_on_another_loop_than_the_one_it_was_writing_on(tmp_path: Path, attempt: int) -> None:
    """What was being committed when that loop ended is not waited for: nobody can tell of its end any more.

    Whether that commit ends before the next one begins is a matter of luck: several attempts see both.
    """
    durably = create_durably(database=f"sqlite:///{tmp_path / 'jobs.db'}?commit=thread", jobs={"echo": echo})
    is_committing, may_commit = threading.Event(), threading.Event()

    def hold(statement: str) -> None:
        if statement == "COMMIT":
            is_committing.set()
            assert may_commit.wait(PATIENCE_SECONDS)

    async def begin_to_write() -> None:
        await durably.migrate()
        await durably.jobs.echo.trigger(0)
        durably.storage.connections.writing.set_trace_callback(hold)  # type: ignore[attr-defined]
        trigger = asyncio.ensure_future(durably.jobs.echo.trigger(1))
        while not is_committing.is_set():
            await asyncio.sleep(0)
        assert not trigger.done()

    async def close() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await durably.close()

    asyncio.run(begin_to_write())
    may_commit.set()
    asyncio.run(close())
