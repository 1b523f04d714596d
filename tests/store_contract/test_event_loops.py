"""An instance belongs to one event loop, and may be used on the next when that one is closed."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime
from typing import Any

import pytest

from durably import Durably, StepContext, SyncStepContext, WorkerErrorEvent, create_durably, define_job
from durably.core.errors import StoreError
from durably.core.store import Position
from tests.conftest import Gate

# The end of a loop may meet a client in the midst of connecting.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .*connect_tcp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*coroutine object connect_tcp:pytest.PytestUnraisableExceptionWarning"),
]

TIMEOUT = 20
EAGER_TASKS: Any = getattr(asyncio, "eager_task_factory", None)


@define_job(name="echo")
async def echo(step: StepContext, input: int) -> int:
    return await step.run("echo", lambda: input)


def test_one_instance_serves_one_event_loop_after_the_other(database: str) -> None:
    """As a script does that calls `asyncio.run` again and again."""
    durably = create_durably(database=database, jobs={"echo": echo})

    async def work_and_leave() -> int:
        async with asyncio.timeout(TIMEOUT):
            await durably.start()
            result = await durably.jobs.echo.trigger_and_wait(2)
            await durably.stop()
            return result.output

    asyncio.run(durably.migrate())
    triggered = asyncio.run(durably.jobs.echo.trigger(1))
    gc.collect()
    assert asyncio.run(durably.process_until_idle()) == 1
    assert asyncio.run(durably.get_run(triggered.id)).output == 1
    assert [asyncio.run(work_and_leave()) for _ in range(2)] == [2, 2]
    asyncio.run(durably.close())


async def test_another_event_loop_is_refused_while_the_first_one_is_open(database: str) -> None:
    """Whoever tries it from a thread learns why, and harms nobody."""

    @define_job(name="astray")
    def astray(step: SyncStepContext, input: None) -> str:
        with pytest.raises(StoreError) as refused:
            asyncio.run(durably.jobs.echo.trigger(1))
        return str(refused.value)

    durably = create_durably(database=database, jobs={"echo": echo, "astray": astray})
    async with durably, asyncio.timeout(TIMEOUT):
        said = (await durably.jobs.astray.trigger_and_wait(None)).output
        assert "is in use on another event loop: an instance belongs to one loop, make one for each" in said

        results = await asyncio.gather(*(durably.jobs.echo.trigger_and_wait(n) for n in range(10)))

    assert [result.output for result in results] == list(range(10))


@pytest.mark.skipif(EAGER_TASKS is None, reason="Python 3.12 and later have it")
async def test_a_program_whose_tasks_begin_at_once_is_served_as_any_other(database: str) -> None:
    """`asyncio.eager_task_factory` runs a task up to its first pause before whoever makes it goes on."""
    gate = Gate()

    @define_job(name="side by side")
    async def side_by_side(step: StepContext, input: int) -> list[int]:
        return await asyncio.gather(*(step.run(f"step {n}", lambda n=n: n) for n in range(input)))

    @define_job(name="held")
    async def held(step: StepContext, input: None) -> None:
        await step.run("wait", gate.pass_through)

    asyncio.get_running_loop().set_task_factory(EAGER_TASKS)
    durably = create_durably(database=database, jobs={"echo": echo, "side_by_side": side_by_side, "held": held})
    async with durably, asyncio.timeout(TIMEOUT):
        results = await asyncio.gather(*(durably.jobs.echo.trigger_and_wait(n) for n in range(10)))
        assert [result.output for result in results] == list(range(10))
        assert (await durably.jobs.side_by_side.trigger_and_wait(5)).output == list(range(5))

        run = await durably.jobs.held.trigger(None)
        feed = durably.subscribe(run.id)
        await gate.reached()
        await durably.cancel(run.id)
        assert [event.type async for event in feed][-1] == "run:cancel"


def test_what_was_announced_when_a_loop_ended_goes_into_the_log_with_the_next(database: str) -> None:
    """E4: other processes hear of it all the same."""
    durably = create_durably(database=database, jobs={"echo": echo})
    told = WorkerErrorEvent(timestamp=datetime.now(UTC), error="at the last moment", context="test")

    async def announce_and_leave() -> None:
        durably.storage.announce(told)

    asyncio.run(durably.migrate())
    asyncio.run(announce_and_leave())
    assert "at the last moment" in asyncio.run(_errors_after_a_write(durably))
    asyncio.run(durably.close())


async def _errors_after_a_write(durably: Durably) -> list[Any]:
    await durably.jobs.echo.trigger(1)
    async with asyncio.timeout(TIMEOUT):
        while not (page := await durably.storage.events_after(Position(0), 100)).events:
            await asyncio.sleep(0.005)
    return [recorded.event.error for recorded in page.events if isinstance(recorded.event, WorkerErrorEvent)]
