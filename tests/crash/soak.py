"""Thousands of kills: `python -m tests.crash.soak --kills 5000`.

Every round has a fresh database, one way of dying drawn by chance, and an audit after each death. Progress goes
to stderr, a table of what was done to stdout. A breach ends the soak with exit code 1 and names the directory that
holds the database and the ledger; `--seed` repeats the same rounds (what the operating system decides differs).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.crash.campaign import Campaign, random_deaths
from tests.crash.client import client
from tests.crash.crowd import Crowd
from tests.crash.plan import Death
from tests.crash.processes import Processes
from tests.crash.sqlite_file import watch_holders

KILLS_PER_ROUND: Final = 40
KILLS_IN_COMPETITION: Final = 12
JOBS: Final = ("walk", "walk_wide", "walk_plain")


@dataclass
class Tally:
    """What one way of dying came to."""

    rounds: int = 0
    kills: int = 0
    runs: int = 0
    executions: int = 0
    seconds: float = 0.0


async def at_boundaries(campaign: Campaign, chance: random.Random, kills: int) -> None:
    await campaign.die_of(random_deaths(chance.random(), kills), runs_per_life=3)


async def inside_statements(campaign: Campaign, chance: random.Random, kills: int) -> None:
    await campaign.die_of([Death("instruction", chance.randint(1, 250)) for _ in range(kills)], runs_per_life=2)


async def in_torn_writes(campaign: Campaign, chance: random.Random, kills: int) -> None:
    autocheckpoint = chance.choice([None, 1, 3])
    deaths = [Death("file-size", chance.randint(1, 60_000)) for _ in range(kills)]
    await campaign.die_of(deaths, runs_per_life=2, pad=3000, autocheckpoint=autocheckpoint)


async def from_outside(campaign: Campaign, chance: random.Random, kills: int) -> None:
    autocheckpoint = chance.choice([None, 1])
    for _ in range(kills):
        await campaign.trigger(4, pad=chance.choice([0, 4000]), pause=chance.choice([0, 0.002]))
        await campaign.live_until_killed(chance.uniform(0, 0.06), autocheckpoint=autocheckpoint)


WAYS: Final[dict[str, Callable[[Campaign, random.Random, int], Awaitable[None]]]] = {
    "at boundaries and statements": at_boundaries,
    "inside of statements": inside_statements,
    "in torn writes": in_torn_writes,
    "from outside, at any moment": from_outside,
}
CONTENTION: Final = "workers competing for keys"


async def die(processes: Processes, directory: Path, way: str, chance: random.Random, kills: int) -> Tally:
    """Do one round of one worker after the other."""
    campaign = Campaign(processes, f"sqlite:///{directory / 'crash.db'}", directory, chance.choice(JOBS))
    await WAYS[way](campaign, chance, kills)
    await campaign.conclude()
    return Tally(1, campaign.kills, len(campaign.audit.acknowledged), campaign.audit.executions)


async def compete(processes: Processes, directory: Path, chance: random.Random, kills: int) -> Tally:
    """Do one round of several workers at once."""
    database = f"sqlite:///{directory / 'crash.db'}"
    async with client(database) as durably:
        await durably.migrate()
        crowd = Crowd(processes, database, directory, durably)
        watch_holders(database)
        await crowd.employ(chance.choice([2, 3]))
        await crowd.compete(chance, kills=kills)
        await crowd.check_keys()
        await crowd.dismiss()
    ran = sum(1 for words in crowd.ledger if words[0] == "ran")
    return Tally(1, kills, len(crowd.triggered), ran)


class Soak:
    """Goes round by round until there were enough kills."""

    def __init__(self, kills: int, seed: int, directory: Path) -> None:
        self.tallies: dict[str, Tally] = defaultdict(Tally)
        self._wanted = kills
        self._seed = seed
        self._directory = directory
        self._started = time.monotonic()

    @property
    def kills(self) -> int:
        return sum(tally.kills for tally in self.tallies.values())

    async def run(self) -> None:
        """Raise what a breach raises, noted with its round."""
        async with Processes(self._directory / "stderr.txt") as processes:
            number = 0
            while self.kills < self._wanted:
                number += 1
                await self._round(processes, number, min(KILLS_PER_ROUND, self._wanted - self.kills))

    async def _round(self, processes: Processes, number: int, kills: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        way = chance.choice([*WAYS, CONTENTION])
        directory = self._directory / f"round-{number}"
        directory.mkdir()
        started = time.monotonic()
        try:
            if way == CONTENTION:
                done = await compete(processes, directory, chance, min(kills, KILLS_IN_COMPETITION))
            else:
                done = await die(processes, directory, way, chance, kills)
        except BaseException as error:
            error.add_note(f"round {number} ({way}), seed {self._seed}; see {directory}")
            raise
        tally, spent = self.tallies[way], time.monotonic() - started
        self.tallies[way] = Tally(
            tally.rounds + 1,
            tally.kills + done.kills,
            tally.runs + done.runs,
            tally.executions + done.executions,
            tally.seconds + spent,
        )
        rate = self.kills / (time.monotonic() - self._started)
        _progress(f"{self.kills:>6} of {self._wanted} kills, {rate:.1f} a second; round {number}: {way}")

    def table(self) -> str:
        """Return what was done as a table."""
        lines = [f"{'killed':<30}{'rounds':>8}{'kills':>8}{'runs':>8}{'steps executed':>16}{'seconds':>9}"]
        total = Tally()
        for way, tally in sorted(self.tallies.items()):
            lines.append(_row(way, tally))
            total = Tally(*[getattr(total, name) + getattr(tally, name) for name in Tally.__dataclass_fields__])
        return "\n".join([*lines, _row("all", total)])


def _row(name: str, tally: Tally) -> str:
    return f"{name:<30}{tally.rounds:>8}{tally.kills:>8}{tally.runs:>8}{tally.executions:>16}{tally.seconds:>9.1f}"


def _progress(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> None:
    """Soak, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=5000, help="how many processes to kill (5000)")
    parser.add_argument("--seed", type=int, default=1, help="what chance starts from (1)")
    parser.add_argument("--directory", type=Path, default=None, help="where the databases go (a temporary one)")
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="durably-soak-"))
    directory.mkdir(parents=True, exist_ok=True)
    soak = Soak(options.kills, options.seed, directory)
    try:
        asyncio.run(soak.run())
    finally:
        sys.stdout.write(soak.table() + "\n")
    sys.stdout.write("nothing acknowledged was lost, no completed step ran again, no run was stuck\n")


if __name__ == "__main__":
    main()
