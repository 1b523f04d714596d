"""A process is suspended until its lease has gone to another, and then goes on: it must write nothing more."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable
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
from tests.crash.sqlite_file import is_locked

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

    def __init__(self, processes: Processes, database: str, ledger: Path, suspension: Death) -> None:
        self.database = database
        self.ledger = ledger
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

    async def start_heir(self) -> Process:
        return await self._processes.start(replace(self._plan, name="heir", task="serve", lease=30.0))

    async def completed(self) -> None:
        """Return when the run is completed, by whoever."""
        async with client(self.database) as durably:
            await durably.wait_for_run(self.run_id, timeout=60)

    async def check(self) -> None:
        await self.audit.at_the_end(self.ledger, STEPS)

    async def stored(self) -> tuple[Any, ...]:
        """Return the run and what belongs to it; not the events, where the zombie says that it lost its lease."""
        async with client(self.database) as durably:
            run, steps = await durably.get_run(self.run_id), await durably.get_steps(self.run_id)
            return run, steps, await durably.get_logs(self.run_id)

    def functions_run(self) -> list[list[str]]:
        return [words for words in read_ledger(self.ledger) if words[0] == "ran"]

    async def complaints(self) -> list[str]:
        """Return what the processes said of leases that were lost."""
        async with client(self.database) as durably:
            page = await durably.storage.events_after(Position(0), 10_000)
        return [each.event.context for each in page.events if each.event.type == "worker:error"]


NewHaunting = Callable[[Death], Haunting]


@pytest.fixture
def new_haunting(processes: Processes, new_database: Callable[[], str], tmp_path: Path) -> NewHaunting:
    """Give what makes a haunted database."""
    numbers = itertools.count(1)
    return lambda suspension: Haunting(processes, new_database(), tmp_path / f"ledger-{next(numbers)}.txt", suspension)


@pytest.mark.parametrize("job", ["walk", "walk_wide", "walk_plain"])
async def test_a_zombie_writes_nothing_after_another_has_taken_its_run(
    job: str, processes: Processes, new_haunting: NewHaunting
):
    """L2, L4: the writes of a lease that is gone do not hold, the execution ends, and it says so."""

    async def haunt(suspension: Death) -> None:
        haunting = new_haunting(suspension)
        zombie = await haunting.begin(job)
        if is_locked(haunting.database):
            # Another thread of it was about to commit, and nobody can take anything over: that is the next test.
            await zombie.kill()
            await haunt(suspension)
            return
        heir = await haunting.start_heir()
        await haunting.completed()
        await heir.kill()
        before, ran_before = await haunting.stored(), haunting.functions_run()

        zombie.signal(signal.SIGCONT)

        assert await zombie.ended() == 0, processes.told()
        assert await haunting.stored() == before
        assert set(await haunting.complaints()) == {"lease-lost"}
        # Of steps side by side several functions may have begun before the suspension; they come to their end.
        assert job == "walk_wide" or haunting.functions_run() == ran_before
        await haunting.check()

    async with asyncio.TaskGroup() as group:
        for suspension in SUSPENSIONS:
            group.create_task(haunt(suspension))


async def test_a_process_suspended_in_a_transaction_loses_nothing_and_repeats_nothing(
    processes: Processes, new_haunting: NewHaunting
):
    """S2, L2: even one that holds the lock of the database, whom nobody can overtake before it goes on."""

    async def haunt(number: int) -> None:
        haunting = new_haunting(Death("statement", number, stop=True))
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


async def test_a_suspension_shorter_than_the_lease_changes_nothing(processes: Processes, new_haunting: NewHaunting):
    """L2: the lease is renewed on, and the same execution goes on."""
    haunting = new_haunting(Death("in-step", 2, stop=True))
    zombie = await haunting.begin("walk")

    zombie.signal(signal.SIGCONT)

    assert await zombie.ended() == 0, processes.told()
    await haunting.check()
    async with client(haunting.database) as durably:
        run = await durably.get_run(haunting.run_id)
    assert run is not None
    assert (run.lease_generation, haunting.audit.executions) == (1, STEPS)
