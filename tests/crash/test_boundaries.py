"""A process is killed at every checkpoint boundary, at every statement, in the middle of writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.campaign import STEPS, Campaign, random_deaths
from tests.crash.plan import Death, Plan
from tests.crash.processes import Processes
from tests.crash.sqlite_file import check_integrity

BOUNDARIES = [
    *[Death("claim", 1, when) for when in ("before", "after")],
    *[Death("in-step", n) for n in range(1, STEPS + 1)],
    *[Death("record_step", n, when) for n in range(1, STEPS + 1) for when in ("before", "after")],
    *[Death("next-line", n) for n in range(1, STEPS + 1)],
    *[Death("finish", 1, when) for when in ("before", "after")],
]


@pytest.mark.parametrize("job", ["walk", "walk_wide", "walk_plain"])
async def test_a_kill_at_every_checkpoint_boundary_of_a_run(
    job: str, processes: Processes, database: str, tmp_path: Path
):
    """S1, S2: whatever boundary the process dies at, the run resumes and each completed step ran once."""
    campaign = Campaign(processes, database, tmp_path, job)

    for boundary in BOUNDARIES:
        await campaign.trigger(1)
        assert await campaign.live(boundary) != 0
        assert await campaign.live(None) == 0

    assert campaign.kills == len(BOUNDARIES)
    await campaign.conclude()


async def test_a_run_advances_by_one_step_a_life(campaign: Campaign):
    """S2: a process that dies after each commit still brings the run to its end."""
    await campaign.trigger(1)

    codes = [await campaign.live(Death("record_step", 1, "after")) for _ in range(STEPS)]

    assert codes == [-9] * STEPS
    assert campaign.audit.executions == STEPS
    await campaign.conclude()
    assert campaign.audit.executions == STEPS


async def test_a_kill_before_every_statement_of_a_life(campaign: Campaign):
    """Every method of the store happens wholly or not at all: a life dies before its 1st, its 2nd, ... statement."""
    number = 0
    while True:
        number += 1
        await campaign.trigger(1)
        if await campaign.live(Death("statement", number)) == 0:
            break

    assert campaign.kills > 20
    await campaign.conclude()


async def test_kills_inside_of_statements(campaign: Campaign):
    """The virtual machine of SQLite is stopped in the middle of changing pages."""
    await campaign.die_of([Death("instruction", n) for n in range(1, 250, 5)], runs_per_life=1)

    assert campaign.kills > 20
    await campaign.conclude()


@pytest.mark.parametrize("autocheckpoint", [None, 2], ids=["log", "checkpoint"])
async def test_kills_in_the_middle_of_a_write_to_the_files(campaign: Campaign, autocheckpoint: int | None):
    """A write of the WAL, or of the database while the WAL is copied into it, is torn at any byte."""
    for number in range(60):
        await campaign.trigger(2, pad=3000)
        await campaign.live(Death("file-size", 1 + 977 * number), autocheckpoint=autocheckpoint)

    assert campaign.kills > 20
    await campaign.conclude()


async def test_kills_while_the_log_is_copied_into_the_database(campaign: Campaign):
    """D3: with a checkpoint after almost every commit, the process is killed from outside at any moment of it."""
    for number in range(40):
        await campaign.trigger(3, pad=6000)
        await campaign.live_until_killed(0.001 * number, autocheckpoint=1)

    await campaign.conclude()


@pytest.mark.parametrize("job", ["walk", "walk_wide", "walk_plain"])
async def test_kills_from_outside_at_any_moment(job: str, processes: Processes, database: str, tmp_path: Path):
    """No acknowledged trigger, no result is lost and no completed step runs again, whenever the kill comes."""
    campaign = Campaign(processes, database, tmp_path, job)

    for number in range(30):
        await campaign.trigger(4, pause=0.002)
        await campaign.live_until_killed(0.002 * number)

    await campaign.conclude()


@pytest.mark.parametrize("seed", [1, 2])
async def test_kills_at_places_drawn_by_chance(seed: int, campaign: Campaign):
    await campaign.die_of(random_deaths(seed, 40), runs_per_life=3)

    assert campaign.kills > 20
    await campaign.conclude()


async def test_a_migration_that_is_killed_at_any_statement_can_be_done_again(
    processes: Processes, database: str, tmp_path: Path
):
    """D2."""
    plan = Plan(database=database, ledger=str(tmp_path / "ledger.txt"), task="migrate")

    number = 1
    while await processes.run(replace(plan, death=Death("statement", number))) != 0:
        check_integrity(database)
        number += 1

    assert number > 10
    campaign = Campaign(processes, database, tmp_path)
    await campaign.trigger(1)
    await campaign.conclude()
