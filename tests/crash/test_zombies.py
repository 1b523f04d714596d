"""A process is suspended until its lease has gone to another, and then goes on: it must write nothing more."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durably.core.store import Position
from tests.crash.audit import Audit
from tests.crash.client import client
from tests.crash.ledger import read_ledger
from tests.crash.plan import Death, Plan
from tests.crash.processes import Process, Processes

STEPS = 3
LEASE_SECONDS = 1.0
SUSPENSIONS = [
    Death("in-step", 2, stop=True),
    Death("record_step", 2, "before", stop=True),
    Death("record_step", 2, "after", stop=True),
    Death("next-line", 2, stop=True),
    Death("finish", 1, "before", stop=True),
]


class Haunting:
    """A database with one run, a zombie that has begun it, and an heir that takes it over."""

    def __init__(self, processes: Processes, directory: Path, suspension: Death) -> None:
        directory.mkdir()
        self.database = f"sqlite:///{directory / 'crash.db'}"
        self.ledger = directory / "ledger.txt"
        self.audit = Audit(self.database)
        self.run_id = ""
        self._processes = processes
        self._plan = Plan(self.database, str(self.ledger), lease=LEASE_SECONDS, renew=LEASE_SECONDS / 2)
        self._suspension = suspension

    async def begin(self, job: str) -> Process:
        """Trigger the run and return the process that is suspended in the middle of it."""
        async with client(self.database) as durably:
            await durably.migrate()
            self.run_id = (await durably.jobs[job].trigger({"steps": STEPS, "pad": 0, "pause": 0})).id
        self.audit.acknowledged.add(self.run_id)
        zombie = await self._processes.start(replace(self._plan, name="zombie", death=self._suspension))
        await zombie.suspended()
        return zombie

    def is_locked(self) -> bool:
        """Tell whether the zombie, in one of its other threads, was about to write and holds the database."""
        with closing(sqlite3.connect(self.database.removeprefix("sqlite:///"), timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False

    async def start_heir(self) -> Process:
        return await self._processes.start(replace(self._plan, name="heir", task="serve", lease=30.0))

    async def completed(self) -> None:
        """Return when the run is completed, by whoever."""
        async with client(self.database) as durably:
            await durably.wait_for_run(self.run_id, timeout=60)

    async def check(self) -> None:
        await self.audit.at_the_end(self.ledger, STEPS)

    def rows(self) -> list[Sequence[Any]]:
        """Return everything stored but the event log, where the zombie may say that it lost its lease."""
        with closing(sqlite3.connect(self.database.removeprefix("sqlite:///"))) as connection:
            tables = ("durably_runs", "durably_steps", "durably_logs", "durably_run_labels")
            return [row for table in tables for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1")]

    def functions_run(self) -> list[list[str]]:
        return [words for words in read_ledger(self.ledger) if words[0] == "ran"]

    async def complaints(self) -> list[str]:
        """Return what the processes said of leases that were lost."""
        async with client(self.database) as durably:
            page = await durably.storage.events_after(Position(0), 10_000)
        return [each.event.context for each in page.events if each.event.type == "worker:error"]


@pytest.mark.parametrize("job", ["walk", "walk_wide", "walk_plain"])
async def test_a_zombie_writes_nothing_after_another_has_taken_its_run(job: str, processes: Processes, tmp_path: Path):
    """L2, L4: the writes of a lease that is gone do not hold, the execution ends, and it says so."""

    async def haunt(directory: Path, suspension: Death) -> None:
        haunting = Haunting(processes, directory, suspension)
        zombie = await haunting.begin(job)
        if haunting.is_locked():
            # Nobody can take anything over then: that is the next test. Here another attempt is needed.
            await zombie.kill()
            await haunt(directory / "again", suspension)
            return
        heir = await haunting.start_heir()
        await haunting.completed()
        await heir.kill()
        before, ran_before = haunting.rows(), haunting.functions_run()

        zombie.signal(signal.SIGCONT)

        assert await zombie.ended() == 0, processes.told()
        assert haunting.rows() == before
        assert set(await haunting.complaints()) == {"lease-lost"}
        # Of steps side by side several functions may have begun before the suspension; they come to their end.
        assert job == "walk_wide" or haunting.functions_run() == ran_before
        await haunting.check()

    async with asyncio.TaskGroup() as group:
        for number, suspension in enumerate(SUSPENSIONS):
            group.create_task(haunt(tmp_path / str(number), suspension))


async def test_a_process_suspended_in_a_transaction_loses_nothing_and_repeats_nothing(
    processes: Processes, tmp_path: Path
):
    """S2, L2: even one that holds the lock of the database, whom nobody can overtake before it goes on."""

    async def haunt(number: int) -> None:
        haunting = Haunting(processes, tmp_path / str(number), Death("statement", number, stop=True))
        zombie = await haunting.begin("walk")
        heir = await haunting.start_heir()
        # Its lease runs out; whether the heir can take the run depends on the statement.
        await asyncio.sleep(LEASE_SECONDS)

        zombie.signal(signal.SIGCONT)

        await haunting.completed()
        assert await zombie.ended() == 0, processes.told()
        await heir.kill()
        await haunting.check()

    async with asyncio.TaskGroup() as group:
        for number in range(2, 26, 2):
            group.create_task(haunt(number))


async def test_a_suspension_shorter_than_the_lease_changes_nothing(processes: Processes, tmp_path: Path):
    """L2: the lease is renewed on, and the same execution goes on."""
    haunting = Haunting(processes, tmp_path / "run", Death("in-step", 2, stop=True))
    zombie = await haunting.begin("walk")

    zombie.signal(signal.SIGCONT)

    assert await zombie.ended() == 0, processes.told()
    await haunting.check()
    async with client(haunting.database) as durably:
        run = await durably.get_run(haunting.run_id)
    assert run is not None
    assert (run.lease_generation, haunting.audit.executions) == (1, STEPS)
