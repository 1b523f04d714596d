"""Several worker processes on one database, some of them killed: a concurrency key has one holder at a time."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durably import Durably
from tests.conftest import until
from tests.crash.audit import Audit, check_integrity
from tests.crash.client import client
from tests.crash.ledger import read_ledger
from tests.crash.plan import Plan
from tests.crash.processes import Process, Processes

KEYS = ("red", "green", "blue")
JOBS = ("hold_a", "hold_b", "hold_c")
REPLACED = "Lease expired; pending run already exists"


class Crowd:
    """Workers that share a database, and a client that always has more for them to do."""

    def __init__(self, processes: Processes, database: str, directory: Path, durably: Durably) -> None:
        self.durably = durably
        self.triggered: set[str] = set()
        self._processes = processes
        self._directory = directory
        self._workers: dict[int, Process] = {}
        self._plan = Plan(
            database, str(directory / "ledger.txt"), task="serve", lease=3.0, renew=0.5, concurrency=2, name="worker"
        )
        self._names = itertools.count()

    @property
    def ledger_path(self) -> Path:
        return Path(self._plan.ledger)

    @property
    def ledger(self) -> list[list[str]]:
        return read_ledger(self.ledger_path)

    async def employ(self, count: int) -> None:
        """Start so many workers."""
        for slot in range(count):
            await self.replace(slot)

    async def replace(self, slot: int) -> None:
        """Kill the worker of a slot, if there is one, and start another."""
        if slot in self._workers:
            await self._workers[slot].kill()
        plan = replace(self._plan, name=f"worker-{next(self._names)}")
        self._workers[slot] = await self._processes.start(plan)

    async def keep_busy(self) -> None:
        """Trigger a run for every job and key that has none waiting."""
        for job, key in itertools.product(JOBS, KEYS):
            run = await self.durably.jobs[job].trigger(str(self._directory / key), concurrency_key=key, coalesce="skip")
            self.triggered.add(run.id)

    async def finished(self) -> None:
        """Return when no run is left that could execute."""
        await until(self._is_idle)

    async def _is_idle(self) -> bool:
        return not await self.durably.get_runs(status=["pending", "leased"], limit=1)


@pytest.fixture
async def crowd(processes: Processes, database: str, tmp_path: Path) -> AsyncIterator[Crowd]:
    """Give a crowd without workers yet."""
    async with client(database) as durably:
        await durably.migrate()
        yield Crowd(processes, database, tmp_path, durably)


@pytest.mark.parametrize(("workers", "kills"), [(2, 12), (3, 12)])
async def test_a_key_has_one_holder_at_a_time_while_workers_are_killed(
    crowd: Crowd, database: str, workers: int, kills: int
):
    """R7, L1, L4: no two executions of a key overlap, in whichever processes, and no run is stuck or lost."""
    chance = random.Random(workers)
    watch_holders(database)
    await crowd.employ(workers)

    for _ in range(kills):
        await crowd.keep_busy()
        await asyncio.sleep(chance.uniform(0.05, 0.3))
        await crowd.keep_busy()
        await crowd.replace(chance.randrange(workers))
    await crowd.finished()

    assert unexplained_overlaps(crowd.ledger) == []
    assert two_holders(database) == []
    endings = {(str(run.status), run.error) for run in await crowd.durably.get_runs()}
    assert endings <= {("completed", None), ("failed", REPLACED)}
    audit = Audit(database)
    audit.acknowledged = crowd.triggered
    await audit.after_death(crowd.ledger_path)
    assert len(crowd.triggered) > kills
    check_integrity(database)


def unexplained_overlaps(ledger: list[list[str]]) -> list[list[str]]:
    """Return the overlaps of executions that both could think they held the key.

    An execution whose process was suspended for longer than a lease is overtaken rightly: it leaves as "lost".
    """
    lost = {tuple(words[1:4]) for words in ledger if words[0] == "left" and words[4] == "lost"}
    holders: dict[str, tuple[str, ...]] = {}
    unexplained = []
    for words in ledger:
        if words[0] == "entered":
            holders[words[1]] = tuple(words[1:4])
        elif words[0] == "overlap" and holders[words[1]] not in lost:
            unexplained.append(words)
    return unexplained


def watch_holders(database: str) -> None:
    """Let the database itself note whenever a second run of a key becomes leased."""
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        connection.executescript("""
            CREATE TABLE crash_two_holders (concurrency_key TEXT, first TEXT, second TEXT);
            CREATE TRIGGER crash_watch_holders AFTER UPDATE OF status ON durably_runs WHEN NEW.status = 'leased'
            BEGIN
              INSERT INTO crash_two_holders
              SELECT NEW.concurrency_key, id, NEW.id FROM durably_runs
              WHERE status = 'leased' AND concurrency_key = NEW.concurrency_key AND id <> NEW.id;
            END;
        """)


def two_holders(database: str) -> list[Any]:
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        return connection.execute("SELECT * FROM crash_two_holders").fetchall()


async def test_runs_are_shared_out_while_workers_are_killed(crowd: Crowd, database: str):
    """L1, S2: three workers claim from the same queue; a run of one that dies is resumed by another."""
    chance = random.Random(7)
    await crowd.employ(3)
    audit = Audit(database)

    for _ in range(12):
        for _ in range(6):
            run = await crowd.durably.jobs.walk.trigger({"steps": 3, "pad": 0, "pause": 0.01})
            audit.acknowledged.add(run.id)
        await asyncio.sleep(chance.uniform(0.02, 0.1))
        await crowd.replace(chance.randrange(3))
    await crowd.finished()

    await audit.at_the_end(crowd.ledger_path, 3)
