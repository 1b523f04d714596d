"""The process that triggers, deletes or cancels is killed: what it was told has happened has happened, wholly."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from durably import Run, StepContext, create_durably, define_job, with_log_persistence
from tests.conftest import until
from tests.crash.client import client
from tests.crash.ledger import read_ledger
from tests.crash.plan import Death, Plan
from tests.crash.processes import Processes
from tests.crash.sqlite_file import check_integrity
from tests.crash.worker import BATCH_SIZE

KILLED = -9


@pytest.fixture
async def plan(database: str, tmp_path: Path) -> Plan:
    """Return a plan for a migrated database."""
    async with client(database) as durably:
        await durably.migrate()
    return Plan(database=database, ledger=str(tmp_path / "ledger.txt"))


async def all_runs(database: str) -> list[Run]:
    check_integrity(database)
    async with client(database) as durably:
        return await durably.get_runs()


def acknowledged(plan: Plan) -> set[str]:
    return {words[1] for words in read_ledger(Path(plan.ledger)) if words[0] == "acknowledged"}


@pytest.mark.parametrize(("when", "unacknowledged"), [("before", 0), ("after", 1)])
async def test_a_kill_around_a_trigger_decides_whether_it_has_happened(
    processes: Processes, plan: Plan, when: Literal["before", "after"], unacknowledged: int
):
    """R3: killed before the store was told, nothing is stored; killed after it has answered, the run is there."""
    for number in range(1, 5):
        life = replace(plan, task="trigger", count=8, name=f"life-{number}", death=Death("enqueue", number, when))
        assert await processes.run(life) == KILLED, processes.told()

        stored = {run.id for run in await all_runs(plan.database)}
        assert acknowledged(plan) <= stored
        assert len(stored - acknowledged(plan)) == number * unacknowledged


async def test_no_acknowledged_trigger_is_lost(processes: Processes, plan: Plan):
    """R3: a trigger that has returned is stored; one that has not is stored wholly or not at all."""
    for number in range(1, 60):
        life = replace(plan, task="trigger", count=8, name=f"life-{number}", death=Death("statement", number))
        assert await processes.run(life) in (KILLED, 0), processes.told()

        runs = await all_runs(plan.database)
        assert acknowledged(plan) <= {run.id for run in runs}
        by_label = await runs_by_label(plan.database, [run.labels for run in runs])
        assert by_label == {run.id for run in runs}


async def runs_by_label(database: str, labels: list[dict[str, str]]) -> set[str]:
    """Return the runs that can be found by what they were labelled with."""
    async with client(database) as durably:
        return {run.id for each in labels for run in await durably.get_runs(labels=each)}


async def test_a_batch_is_stored_wholly_or_not_at_all(processes: Processes, plan: Plan):
    """R8."""
    complete = 0
    for number in range(1, 70):
        life = replace(plan, task="batch", count=3, name=f"life-{number}", death=Death("statement", number))
        assert await processes.run(life) in (KILLED, 0), processes.told()

        sizes = Counter(run.labels["batch"] for run in await all_runs(plan.database))
        assert set(sizes.values()) <= {BATCH_SIZE}
        assert acknowledged(plan) <= set(sizes)
        complete = len(sizes)

    assert complete > 0


async def test_a_process_killed_from_outside_while_it_triggers_keeps_its_word(processes: Processes, plan: Plan):
    """R3: killed at any moment, right after one of its triggers was acknowledged."""
    for number in range(20):
        before = len(acknowledged(plan))
        life = await processes.start(replace(plan, task="trigger", count=100_000, name=f"life-{number}"))
        await until(lambda before=before: enough(len(acknowledged(plan)) > before))
        assert await life.kill() == KILLED

        assert acknowledged(plan) <= {run.id for run in await all_runs(plan.database)}


async def enough(condition: bool) -> bool:
    return condition


async def test_deleting_purging_and_cancelling_happen_wholly_or_not_at_all(processes: Processes, plan: Plan):
    """R10: a run is there with its steps, labels and logs, or gone with all of them."""
    life = replace(plan, task="operate", count=100, clock_ahead=60.0)
    number, code = 0, KILLED
    while code == KILLED:
        number += 1
        made = await make_runs(plan.database)

        code = await processes.run(replace(life, death=Death("statement", number)))

        assert code in (KILLED, 0), processes.told()
        await check_whole(plan.database, made, acknowledged(plan))
        assert await processes.run(life) == 0, processes.told()
        assert {str(run.status) for run in await all_runs(plan.database)} <= {"cancelled"}
    assert number > 15


@define_job(name="leaves-traces")
async def leaves_traces(step: StepContext, input: None) -> None:
    await step.run("first", lambda: 1)
    await step.run("second", lambda: 2)
    step.log.info("a line")


async def make_runs(database: str) -> set[str]:
    """Make runs that can be deleted, purged and cancelled; those that have ended have two steps and a log line."""
    durably = create_durably(database=database, jobs={"leaves_traces": leaves_traces}, preserve_steps=True)
    durably.use(with_log_persistence())
    ended = [await durably.jobs.leaves_traces.trigger(None, labels={"to": to}) for to in ("delete", "purge")]
    await durably.process_until_idle()
    waiting = await durably.jobs.leaves_traces.trigger(None, labels={"to": "cancel"})
    await durably.stop()
    await durably.close()
    return {waiting.id, *(run.id for run in ended)}


async def check_whole(database: str, made: set[str], acknowledged: set[str]) -> None:
    """Check that every run is there or gone with all that belongs to it, and what was acknowledged has happened."""
    check_integrity(database)
    async with client(database) as durably:
        labelled = {run.id for to in ("delete", "purge", "cancel") for run in await durably.get_runs(labels={"to": to})}
        for run_id in made:
            run = await durably.get_run(run_id)
            status = "gone" if run is None else str(run.status)
            parts = len(await durably.get_steps(run_id)), len(await durably.get_logs(run_id)), run_id in labelled
            expected = {
                "completed": (2, 1, True),
                "pending": (0, 0, True),
                "cancelled": (0, 0, True),
                "gone": (0, 0, False),
            }
            assert parts == expected[status]
            assert status in ("gone", "cancelled") or run_id not in acknowledged
