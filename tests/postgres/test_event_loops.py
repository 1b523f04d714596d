"""What an event loop leaves behind on the server when it ends."""

from __future__ import annotations

import asyncio

from durably import StepContext, create_durably, define_job
from tests.conftest import PATIENCE_SECONDS
from tests.postgres.shared import shared_server

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
