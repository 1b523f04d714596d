"""Several workers on one database, some of them killed, that compete for concurrency keys."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import replace
from pathlib import Path

from durably import Durably
from tests.conftest import until
from tests.crash.audit import Audit
from tests.crash.ledger import read_ledger
from tests.crash.plan import Plan
from tests.crash.processes import Process, Processes
from tests.crash.sqlite_file import two_holders

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

    async def compete(self, chance: random.Random, *, kills: int) -> None:
        """Kill workers while all keys are wanted, then let the rest be finished."""
        for _ in range(kills):
            await self._want_every_key()
            await asyncio.sleep(chance.uniform(0.05, 0.3))
            await self._want_every_key()
            await self.replace(chance.randrange(len(self._workers)))
        await self.finished()

    async def dismiss(self) -> None:
        """Kill all workers."""
        for worker in self._workers.values():
            await worker.kill()

    async def finished(self) -> None:
        """Return when no run is left that could execute."""
        await until(self._is_idle)

    async def check_keys(self) -> None:
        """Check that no key had two holders, and that every run has ended as the rules allow."""
        assert unexplained_overlaps(self.ledger) == []
        assert two_holders(self._plan.database) == []
        endings = {(str(run.status), run.error) for run in await self.durably.get_runs()}
        assert endings <= {("completed", None), ("failed", REPLACED)}
        audit = Audit(self._plan.database)
        audit.acknowledged = self.triggered
        await audit.after_death(self.ledger_path)

    async def _want_every_key(self) -> None:
        for job, key in itertools.product(JOBS, KEYS):
            place = str(self._directory / key)
            run = await self.durably.jobs[job].trigger(place, concurrency_key=key, coalesce="skip")
            self.triggered.add(run.id)

    async def _is_idle(self) -> bool:
        return not await self.durably.get_runs(status=["pending", "leased"], limit=1)


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
