"""D2, D3, L2: several processes on one file, stopped and continued ones, blocked loops, jumping clocks."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import CancelledError, RunStatus, StepContext, define_job
from durably.testing import FakeClock
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably, until

Spawn = Callable[..., subprocess.Popen[str]]

WORKER = """
import asyncio, logging, sys, time
from durably import create_durably, define_job

logging.basicConfig(stream=sys.stderr, format="%(message)s")

@define_job(name="echo")
async def echo(step, input):
    step.progress(1, 2)
    step.log.info("here", {"n": 1})
    return await step.run("one", lambda: input)

@define_job(name="sleepy")
async def sleepy(step, input):
    await step.run("before", lambda: 1)
    print("asleep", flush=True)
    if step.attempt == 1:
        while True:
            time.sleep(0.05)
            if sys.argv[2] == "once":
                break
    await step.run("after", lambda: step.attempt)
    return step.attempt

async def main():
    durably = create_durably(
        database=sys.argv[1], jobs={"echo": echo, "sleepy": sleepy},
        polling_interval=1000, lease_duration=1, lease_renew_interval=0.2,
    )
    durably.on("worker:error", lambda event: print("error", event.context, flush=True), scope="process")
    async with durably:
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""

MIGRATE = """
import asyncio, sys
from durably import create_durably

async def main():
    durably = create_durably(database=sys.argv[1])
    sys.stdin.readline()
    await durably.migrate()
    await durably.get_runs()
    await durably.close()
    print("migrated", flush=True)

asyncio.run(main())
"""


def must_say(process: subprocess.Popen[str], *words: str) -> str:
    """Return the next line that a process prints; it must begin with one of these words."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line.startswith(words):
        process.kill()
        _, errors = process.communicate()
        pytest.fail(f"expected {words}, got {line!r}: {errors}")
    return line


async def said(process: subprocess.Popen[str], *words: str) -> str:
    """Wait for a line of a process off the event loop."""
    return await asyncio.to_thread(must_say, process, *words)


@define_job(name="echo")
async def echo(step: StepContext, input: Any) -> Any: ...


@define_job(name="sleepy")
async def sleepy(step: StepContext, input: Any) -> Any:
    await step.run("before", lambda: "not again")
    return await step.run("after", lambda: step.attempt)


class TestTwoProcesses:
    async def test_triggered_here_executed_there(self, open_durably: OpenDurably, spawn: Spawn, database: str) -> None:
        """W1, E4, R11: the worker process wakes, its events and the end of its runs come back."""
        durably = await open_durably(echo, polling_interval=1000)
        worker = spawn(WORKER, database, "-")
        await said(worker, "ready")
        events = Events(durably)

        for n in range(5):
            run = await durably.jobs.echo.trigger(n)
            told = [event.type async for event in durably.subscribe(run.id)]
            assert told[-1] == "run:complete"
            assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == n
        result = await durably.jobs.echo.trigger_and_wait("last", timeout=PATIENCE_SECONDS)

        assert result.output == "last"
        one_run = [event.type for event in events.seen if getattr(event, "run_id", None) == result.id]
        assert one_run == [
            "run:trigger", "run:leased", "run:progress", "log:write", "step:start", "step:complete", "run:complete",
        ]  # fmt: skip

    def test_eight_processes_migrate_at_once(self, spawn: Spawn, database: str, path: Path) -> None:
        """D2: one migrates, the others wait for it, nobody fails."""
        processes = [spawn(MIGRATE, database) for _ in range(8)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

        for process in processes:
            must_say(process, "migrated")
        connection = sqlite3.connect(path)
        versions = connection.execute("SELECT version FROM durably_schema_versions ORDER BY version").fetchall()
        connection.close()
        assert versions == [(n + 1,) for n in range(len(versions))]

    async def test_a_stopped_process_that_comes_back_writes_nothing(
        self, open_durably: OpenDurably, spawn: Spawn, database: str
    ) -> None:
        """L1, L2: after SIGSTOP, the end of its lease and SIGCONT the old holder finds out, and says so."""
        durably = await open_durably(sleepy, preserve_steps=True)
        worker = spawn(WORKER, database, "once")
        await said(worker, "ready")
        run = await durably.jobs.sleepy.trigger(None)
        await said(worker, "asleep")
        worker.send_signal(signal.SIGSTOP)

        await until(durably.process_one)
        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.output, found.lease_generation) == (RunStatus.COMPLETED, 2, 2)
        worker.send_signal(signal.SIGCONT)

        await said(worker, "error")
        assert await durably.get_run(run.id) == found
        assert [(step.name, step.output) for step in await durably.get_steps(run.id)] == [("before", 1), ("after", 2)]

    async def test_a_job_that_blocks_the_loop_keeps_its_lease(
        self, open_durably: OpenDurably, spawn: Spawn, database: str
    ) -> None:
        """L2: renewal has a thread and a connection of its own; the watchdog names run and step."""
        durably = await open_durably(sleepy)
        worker = spawn(WORKER, database, "for ever")
        await said(worker, "ready")
        run = await durably.jobs.sleepy.trigger(None)
        await said(worker, "asleep")
        claimed = await durably.get_run(run.id)
        assert claimed is not None
        assert claimed.lease_expires_at is not None
        over = claimed.lease_expires_at + timedelta(seconds=1)

        async def would_be_over() -> bool:
            assert not await durably.process_one(), "the lease was lost"
            found = await durably.get_run(run.id)
            return found is not None and found.lease_expires_at is not None and found.lease_expires_at > over

        await until(would_be_over)
        assert worker.stderr is not None
        log = await asyncio.to_thread(worker.stderr.readline)
        assert "blocked for" in log
        assert f"by run {run.id} of job 'sleepy', its code between steps" in log
        worker.kill()

        # Once it is dead, its lease ends and the run goes on from its checkpoint.
        await until(durably.process_one)
        ended = await durably.get_run(run.id)
        assert ended is not None
        assert (ended.output, ended.lease_generation) == (2, 2)


class TestABlockedLoop:
    async def test_the_step_that_blocks_is_named(
        self, open_durably: OpenDurably, caplog: pytest.LogCaptureFixture
    ) -> None:
        """L2: once per blockage, with the place in the code."""
        attempts: list[int] = []

        async def block() -> None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while "blocked for" not in caplog.text and time.monotonic() < deadline:
                time.sleep(0.01)  # noqa: ASYNC251 - blocking the loop is what the test is about

        @define_job(name="blocking")
        async def blocking(step: StepContext, input: Any) -> None:
            attempts.append(step.attempt)
            await step.run("block it", block)

        durably = await open_durably(blocking, start=True, lease_duration=0.5, lease_renew_interval=0.1)
        result = await durably.jobs.blocking.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        assert f"run {result.id} of job 'blocking', step 'block it'" in caplog.text
        assert "in block" in caplog.text
        assert attempts == [1]


class TestJumpingClocks:
    @pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1)], ids=["forward", "back"])
    async def test_two_holders_never_both_write(
        self, open_durably: OpenDurably, clock: FakeClock, jump: timedelta
    ) -> None:
        """L6: the wall clock may make a lease end early or late, never let two write."""
        gate = Gate()
        seen: list[Any] = []

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> int:
            if step.attempt == 1:
                try:
                    await step.run("slow", gate.pass_through)
                except BaseException as error:
                    seen.append(type(error))
                    raise
            await step.run("after", lambda: step.attempt)
            return step.attempt

        holder = await open_durably(held, clock=clock, preserve_steps=True)
        run = await holder.jobs.held.trigger(None)
        holding = asyncio.create_task(holder.process_one())
        await gate.reached()
        clock.set_wall_clock(clock.now() + jump)
        other = await open_durably(held, clock=clock, preserve_steps=True)
        taken = await other.process_one()
        gate.open()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await holding
        ended = await other.wait_for_run(run.id, timeout=PATIENCE_SECONDS)

        # Forward: the lease is over for everybody; back: it holds for its holder.
        assert taken is (jump > timedelta(0))
        assert ended.output == (2 if taken else 1)
        names = [step.name for step in await other.get_steps(run.id)]
        assert names == (["after"] if taken else ["slow", "after"])
        assert not (seen and issubclass(seen[0], CancelledError))

    async def test_ids_and_order_survive_a_clock_that_goes_back(
        self, open_durably: OpenDurably, clock: FakeClock
    ) -> None:
        """R2: ids still increase."""
        durably = await open_durably(echo, clock=clock)
        first = await durably.jobs.echo.trigger(1)
        clock.set_wall_clock(clock.now() - timedelta(hours=1))
        second = await durably.jobs.echo.trigger(2)

        assert second.id > first.id
