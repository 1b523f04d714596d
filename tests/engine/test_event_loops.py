"""W1, L2: an instance on one event loop after the other, and what is left when one is gone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durably import (
    Durably,
    DurablyError,
    LeaseLostError,
    Run,
    StepContext,
    SyncStepContext,
    create_durably,
    define_job,
    with_log_persistence,
)
from durably.core.leases import Claim
from durably.core.store import LeaseRenewer
from tests.conftest import PATIENCE_SECONDS, Gate, until


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    return await step.run("one", lambda: input)


def run_and_leave_all(work: Coroutine[Any, Any, Any]) -> Any:
    """Close an event loop without ending what still runs there."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


class SlowlyClosing:
    """A renewer whose `close` takes until it is told."""

    def __init__(self, renewer: LeaseRenewer) -> None:
        self.renewals = 0
        self.is_closing = threading.Event()
        self.may_close = threading.Event()
        self.was_used_while_closing = False
        self._renewer = renewer

    def renew(self, claims: Sequence[Claim], lease_seconds: float) -> dict[str, Claim]:
        self.was_used_while_closing |= self.is_closing.is_set()
        self.renewals += 1
        return self._renewer.renew(claims, lease_seconds)

    def close(self) -> None:
        self.is_closing.set()
        self.may_close.wait(PATIENCE_SECONDS)
        self._renewer.close()


def test_a_program_that_just_ends_leaves_its_runs_to_others(database: str) -> None:
    """L2: no thread of it keeps a lease alive, and a plain job's thread ends at its next step."""
    entered, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    seen: list[Any] = []

    @define_job(name="plain")
    def plain(step: SyncStepContext, input: Any) -> None:
        entered.set()
        assert go_on.wait(PATIENCE_SECONDS)
        step.log.info("nobody is left to tell")
        try:
            step.run("one", lambda: seen.append("executed"))
        except DurablyError as error:
            seen.append(type(error))
        finally:
            ended.set()

    async def begin_and_leave() -> str:
        durably = create_durably(
            database=database, jobs={"plain": plain}, lease_duration=0.3, lease_renew_interval=0.05
        )
        await durably.init()
        instances.append(durably)
        run = await durably.jobs.plain.trigger(None)
        await asyncio.to_thread(entered.wait, PATIENCE_SECONDS)
        return run.id

    async def claim_what_is_left(run_id: str) -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (claimed := await instances[0].storage.claim("heir", ["plain"], 1, 60)):
                await asyncio.sleep(0.01)
        await instances[0].close()
        return claimed[0].run.id

    instances: list[Any] = []
    run_id = asyncio.run(begin_and_leave())
    go_on.set()
    assert ended.wait(PATIENCE_SECONDS)
    assert seen == [LeaseLostError]
    assert asyncio.run(claim_what_is_left(run_id)) == run_id


@pytest.mark.parametrize("runs", [asyncio.run, run_and_leave_all], ids=["asyncio.run", "closed loop"])
def test_a_worker_goes_on_where_the_instance_is_used_next(
    database: str, runs: Callable[[Coroutine[Any, Any, Any]], Any]
) -> None:
    """W1: as in a script that calls `asyncio.run` for each of its commands; what was executing is resumed."""
    gate = Gate()

    @define_job(name="held")
    async def held(step: StepContext, input: Any) -> int:
        if step.attempt == 1:
            await gate.pass_through()
        return step.attempt

    durably = create_durably(
        database=database,
        jobs={"held": held, "job": job},
        lease_duration=1,
        lease_renew_interval=0.2,
        max_concurrent_runs=1,
    )

    async def begin() -> str:
        await durably.init()
        run = await durably.jobs.held.trigger(None)
        await gate.reached()
        return run.id

    async def go_on(run_id: str) -> tuple[Any, Any]:
        try:
            finished = await durably.jobs.job.trigger_and_wait(7, timeout=PATIENCE_SECONDS)
            return finished.output, (await durably.wait_for_run(run_id, timeout=PATIENCE_SECONDS)).output
        finally:
            await durably.close()

    assert asyncio.run(go_on(runs(begin()))) == (7, 2)


def test_leases_are_renewed_while_the_renewer_of_the_loop_before_is_being_closed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L2: to close a connection may take a while, and nobody may use it meanwhile."""
    renewers: list[SlowlyClosing] = []

    @define_job(name="renewed")
    async def renewed(step: StepContext, input: Any) -> None:
        before = sum(renewer.renewals for renewer in renewers)
        while sum(renewer.renewals for renewer in renewers) == before:
            await asyncio.sleep(0.005)

    durably = create_durably(database=database, jobs={"renewed": renewed}, lease_duration=1, lease_renew_interval=0.05)
    make = durably.storage.lease_renewer

    def make_slow() -> SlowlyClosing:
        renewers.append(SlowlyClosing(make()))
        return renewers[-1]

    async def execute() -> bool:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await durably.jobs.renewed.trigger(None)
            return await durably.process_one()

    monkeypatch.setattr(durably.storage, "lease_renewer", make_slow)
    asyncio.run(durably.migrate())
    assert asyncio.run(execute())
    assert renewers[0].is_closing.wait(PATIENCE_SECONDS)
    try:
        assert asyncio.run(execute())
    finally:
        for renewer in renewers:
            renewer.may_close.set()
        asyncio.run(durably.close())

    assert not renewers[0].was_used_while_closing


def test_a_worker_that_was_stopped_stays_so(database: str) -> None:
    """W4: only what was started goes on."""
    durably = create_durably(database=database, jobs={"job": job})

    async def begin_and_stop() -> None:
        await durably.init()
        await durably.stop()

    async def trigger() -> Any:
        await durably.jobs.job.trigger(1)
        assert await durably.process_one()
        await durably.close()

    asyncio.run(begin_and_stop())
    asyncio.run(trigger())


@pytest.mark.parametrize("cancels", [True, False], ids=["cancelled", "closed"])
def test_a_plain_job_whose_event_loop_ends_is_told_so(
    database: str, monkeypatch: pytest.MonkeyPatch, *, cancels: bool
) -> None:
    """L2: its thread would wait for an answer for ever, and Python for the thread; it is no error of the step."""
    monkeypatch.setattr("durably.engine.step_context._LOOK_AT_LOOP_SECONDS", 0.05)
    asked, answered = threading.Event(), threading.Event()
    told: list[BaseException] = []

    async def never_end() -> None:
        asked.set()
        await asyncio.Event().wait()

    @define_job(name="plain")
    def plain(step: SyncStepContext, input: None) -> None:
        try:
            step.run("last", never_end)
        except BaseException as error:
            told.append(error)
            raise
        finally:
            answered.set()

    durably = create_durably(database=database, jobs={"plain": plain})

    async def leave_in_the_middle() -> None:
        await durably.init()
        await durably.jobs.plain.trigger(None)
        await asyncio.to_thread(asked.wait, PATIENCE_SECONDS)

    if cancels:
        asyncio.run(leave_in_the_middle())
    else:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave_in_the_middle())
        loop.close()
    assert answered.wait(PATIENCE_SECONDS)
    assert [type(error) for error in told] == [LeaseLostError]
    asyncio.run(durably.close())


def test_a_loop_that_is_closed_in_the_midst_of_a_run_leaves_the_instance_usable(database: str) -> None:
    """L2: also one that never had a worker; the run is resumed when its lease has ended."""
    begun: list[int] = []

    @define_job(name="held")
    async def held(step: StepContext, input: int) -> None:
        begun.append(input)
        if begun == [1]:
            await asyncio.Event().wait()

    durably = create_durably(database=database, jobs={"held": held}, lease_duration=1)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        await durably.migrate()
        await durably.jobs.held.trigger(1)
        processing = asyncio.create_task(durably.process_one())
        while not begun:
            await asyncio.sleep(0.001)
        processing.cancel()

    loop.run_until_complete(begin())
    loop.close()

    async def go_on() -> None:
        await durably.jobs.held.trigger(2)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(begun) < 3:
                await durably.process_until_idle()
                await asyncio.sleep(0.05)
        await durably.close()

    asyncio.run(go_on())
    assert begun == [1, 2, 1]


def test_what_a_job_makes_of_the_end_of_the_program_is_no_failure_of_it(database: str) -> None:
    """W4: the end of `asyncio.run` cancels its tasks; the next process resumes the run, whatever its code raised."""
    begun: list[int] = []

    @define_job(name="converts")
    async def converts(step: StepContext, input: None) -> None:
        begun.append(step.attempt)
        if step.attempt > 1:
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("connection lost") from None

    left = create_durably(database=database, jobs={"converts": converts}, lease_duration=1)

    async def leave_in_the_midst() -> str:
        await left.init()
        run = await left.jobs.converts.trigger(None)
        while not begun:
            await asyncio.sleep(0.001)
        return run.id

    run_id = asyncio.run(leave_in_the_midst())

    async def go_on() -> Run[Any]:
        async with create_durably(database=database, jobs={"converts": converts}) as durably:
            return await durably.wait_for_run(run_id, timeout=PATIENCE_SECONDS)

    assert asyncio.run(go_on()).status == "completed"
    assert begun == [1, 2]
    asyncio.run(left.close())


def test_log_lines_are_stored_on_a_loop_that_follows_one_that_was_closed(database: str) -> None:
    """P1: also where the first one did not cancel what was under way, and again at the close."""

    @define_job(name="logs")
    async def logs(step: StepContext, input: int) -> None:
        step.log.info(str(input))

    durably = create_durably(database=database, jobs={"logs": logs}).use(with_log_persistence())
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        await durably.migrate()
        await durably.jobs.logs.trigger(1)
        await durably.process_one()

    loop.run_until_complete(begin())
    loop.close()

    async def go_on() -> list[str]:
        run = await durably.jobs.logs.trigger(2)
        await durably.process_one()

        async def is_stored() -> bool:
            return bool(await durably.storage.get_logs(run.id))

        await until(is_stored)
        lines = await durably.get_logs(run.id)
        await durably.close()
        return [line.message for line in lines]

    assert asyncio.run(go_on()) == ["2"]


def test_a_claim_that_is_committed_when_its_loop_ends_is_given_back(tmp_path: Path) -> None:
    """W4, L2: nobody would execute the run until its lease ends."""
    path = tmp_path / "jobs.db"

    async def trigger() -> str:
        durably = create_durably(database=path, jobs={"job": job})
        await durably.migrate()
        run = await durably.jobs.job.trigger(1)
        await durably.close()
        return run.id

    async def begin_to_claim() -> Durably:
        durably = create_durably(database=path, jobs={"job": job})
        await durably.migrate()
        await durably.start()
        await asyncio.sleep(0.1)
        return durably

    run_id = asyncio.run(trigger())
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = threading.Timer(0.3, other.execute, ["ROLLBACK"])
        waiting.start()
        asyncio.run(begin_to_claim())
        waiting.join()
        deadline = time.monotonic() + PATIENCE_SECONDS
        # Claimed and given back: both are done by the thread that waited for the lock.
        while (row := _run_of(other, run_id)) != ("pending", 1):
            assert time.monotonic() < deadline, row
            time.sleep(0.01)


def _run_of(connection: sqlite3.Connection, run_id: str) -> tuple[str, int]:
    row: tuple[str, int] = connection.execute(
        "SELECT status, lease_generation FROM durably_runs WHERE id = ?", (run_id,)
    ).fetchone()
    return row
