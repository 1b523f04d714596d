"""Event loops of every make, and what one leaves behind on the server when it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from durably import StepContext, create_durably, define_job
from tests.conftest import PATIENCE_SECONDS
from tests.postgres.shared import shared_server

FORKING = """
import asyncio
import os
import sys

from durably import create_durably, define_job


@define_job(name="echo")
async def echo(step, input):
    return await step.run("echo", lambda: input)


async def use(durably):
    try:
        await durably.jobs.echo.trigger(1)
        print(await durably.process_until_idle(), "executed", flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)


def in_fork(durably):
    if (pid := os.fork()) == 0:
        asyncio.run(use(durably))
        os._exit(0)
    os.waitpid(pid, 0)


durably = create_durably(database=sys.argv[1], jobs={"echo": echo})
asyncio.run(durably.migrate())
in_fork(durably)
asyncio.run(use(durably))
in_fork(durably)
asyncio.run(use(durably))
"""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'loops'"


@define_job(name="echo")
async def echo(step: StepContext, input: int) -> int:
    return input


def test_a_loop_that_ends_keeps_no_session_on_the_server(database: str) -> None:
    """A program without a loop of its own makes one for each call; a server has a hundred connections."""
    durably = create_durably(database=f"{database}?application_name=loops", jobs={"echo": echo})

    asyncio.run(durably.migrate())
    for n in range(3):
        asyncio.run(durably.jobs.echo.trigger(n))
        asyncio.run(durably.get_runs())

    async def until_gone() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while shared_server().sql(SESSIONS) != ["0"]:
                await asyncio.sleep(0.01)

    asyncio.run(until_gone())
    asyncio.run(durably.close())


def test_an_instance_that_is_closed_at_once_leaves_nothing_behind(database: str) -> None:
    """W4: not even an error of a connection that was in the making, which Python would print."""
    left_behind: list[dict[str, Any]] = []

    async def open_and_close() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, left: left_behind.append(left))
        durably = create_durably(database=database, jobs={"echo": echo})
        await durably.init()
        await durably.close()

    for _ in range(3):
        asyncio.run(open_and_close())
        gc.collect()

    assert left_behind == []


class LoopWithPlainHandles(asyncio.SelectorEventLoop):
    """As uvloop does: what is due already is called soon, and its handle knows no time."""

    def call_at(self, when: float, *call: Any, **options: Any) -> Any:  # type: ignore[override]
        return super().call_at(when, *call, **options) if when > self.time() else self.call_soon(*call, **options)


def loops() -> list[Any]:
    """Return what makes event loops: uvloop too, where it is installed."""
    return [LoopWithPlainHandles] if find_spec("uvloop") is None else [LoopWithPlainHandles, new_uvloop]


def new_uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = import_module("uvloop").new_event_loop()
    return loop


@pytest.mark.parametrize("new_loop", loops())
def test_runs_are_executed_on_a_loop_whose_handles_know_no_time(
    new_loop: Callable[[], asyncio.AbstractEventLoop], database: str
) -> None:
    """W1: uvicorn runs applications on uvloop where it is installed."""

    async def use() -> None:
        async with create_durably(database=database, jobs={"echo": echo}) as durably:
            trigger = durably.jobs.echo.trigger_and_wait
            for n in range(10):
                results = await asyncio.gather(*(trigger(i, idempotency_key=f"{n}-{i}") for i in range(5)))
                assert [result.output for result in results] == list(range(5))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(use(), PATIENCE_SECONDS))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_instance_goes_on_in_a_process_that_was_forked(database: str) -> None:
    """W5: a server that loads the application before it forks; a fork inherits no threads."""
    ended = subprocess.run(
        [sys.executable, "-c", FORKING, database], capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )

    assert ended.stdout.splitlines() == 4 * ["1 executed"], ended.stderr
