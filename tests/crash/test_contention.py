"""Several worker processes on one database, some of them killed: a concurrency key has one holder at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.crash.audit import Audit
from tests.crash.client import client
from tests.crash.crowd import Crowd
from tests.crash.processes import Processes
from tests.crash.sqlite_file import watch_holders


@pytest.fixture
async def crowd(processes: Processes, database: str, tmp_path: Path) -> AsyncIterator[Crowd]:
    """Give a crowd without workers yet."""
    async with client(database) as durably:
        await durably.migrate()
        yield Crowd(processes, database, tmp_path, durably)


@pytest.mark.parametrize("workers", [2, 3])
async def test_a_key_has_one_holder_at_a_time_while_workers_are_killed(crowd: Crowd, database: str, workers: int):
    """R7, L1, L4: no two executions of a key overlap, in whichever processes, and no run is stuck or lost."""
    chance = random.Random(workers)
    watch_holders(database)
    await crowd.employ(workers)

    await crowd.compete(chance, kills=12)

    await crowd.check_keys()
    assert len(crowd.triggered) > 12


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
