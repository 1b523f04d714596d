"""D3: what closing a database waits for."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import Any

import pytest

from durably.stores.sqlite import reads
from tests.conftest import PATIENCE_SECONDS, OpenDurably


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
