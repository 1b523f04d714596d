"""A series of lives and deaths on one database, audited after each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.crash.audit import Audit
from tests.crash.client import client
from tests.crash.plan import Death, Plan
from tests.crash.processes import Processes

STEPS: Final = 4
LEASE_SECONDS: Final = 2.0
_BETWEEN_LIVES_SECONDS: Final = 2.5
_KILLED: Final = -9
_KILLED_BY_FILE_SIZE: Final = -25


class Campaign:
    """Triggers runs, lets processes die over them, and checks that nothing is lost.

    Each life's clock is ahead of the one before it by more than a lease, so that nobody has to wait for the
    leases of the dead.
    """

    def __init__(self, processes: Processes, database: str, directory: Path, job: str = "walk") -> None:
        self.audit = Audit(database)
        self.kills = 0
        self._processes = processes
        self._ledger = directory / "ledger.txt"
        self._life = 0
        self._job = job
        self._plan = Plan(database=database, ledger=str(self._ledger), lease=LEASE_SECONDS, renew=0.5)

    async def trigger(self, count: int, *, pad: int = 0, pause: float = 0.0) -> None:
        """Trigger runs from this process and note that they were acknowledged."""
        async with client(self.audit.database) as durably:
            await durably.migrate()
            job = durably.jobs[self._job]
            for _ in range(count):
                run = await job.trigger({"steps": STEPS, "pad": pad, "pause": pause})
                self.audit.acknowledged.add(run.id)

    async def live(self, death: Death | None, **changes: Any) -> int:
        """Let one process live by the plan; return its exit code, after the audit."""
        code = await self._processes.run(self._next_plan(death, **changes))
        allowed = {0} if death is None else {0, _KILLED, _KILLED_BY_FILE_SIZE}
        assert code in allowed, f"life {self._life} ({death}) ended with {code}:\n{self._processes.told()}"
        self.kills += code != 0
        await self.audit.after_death(self._ledger)
        return code

    async def live_until_killed(self, seconds: float, **changes: Any) -> None:
        """Kill a process from outside, that many seconds after it was born."""
        process = await self._processes.start(self._next_plan(None, task="serve", **changes))
        await asyncio.sleep(seconds)
        code = await process.kill()
        assert code == _KILLED, f"life {self._life} ended with {code}:\n{self._processes.told()}"
        self.kills += 1
        await self.audit.after_death(self._ledger)

    async def die_of(self, deaths: Iterable[Death], *, runs_per_life: int, pad: int = 0, **changes: Any) -> None:
        """Die of each, with new runs before every life."""
        for death in deaths:
            await self.trigger(runs_per_life, pad=pad)
            await self.live(death, **changes)

    async def conclude(self) -> None:
        """Let everything be completed undisturbed, and check the whole."""
        await self.live(None)
        await self.audit.at_the_end(self._ledger, STEPS)

    def _next_plan(self, death: Death | None, **changes: Any) -> Plan:
        self._life += 1
        ahead = self._life * _BETWEEN_LIVES_SECONDS
        return replace(self._plan, death=death, clock_ahead=ahead, name=f"life-{self._life}", **changes)


def random_deaths(seed: float, count: int) -> list[Death]:
    """Return deaths at places drawn by chance, the same for the same seed."""
    chance = random.Random(seed)
    reach = {
        "in-step": 12,
        "record_step": 12,
        "next-line": 12,
        "finish": 4,
        "claim": 3,
        "statement": 60,
        "instruction": 300,
    }
    deaths = []
    for _ in range(count):
        at = chance.choice(list(reach))
        when = chance.choice(["before", "after"]) if at in ("record_step", "finish", "claim") else "before"
        deaths.append(Death(at, chance.randint(1, reach[at]), when))  # type: ignore[arg-type] # of the table above
    return deaths
