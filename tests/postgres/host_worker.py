"""`python -m tests.postgres.host_worker URL NAME FOLDER`: a worker on a host of its own.

It says what happens on its standard output, and waits for files in FOLDER, which all hosts share.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from durably import StepContext, create_durably, define_job
from durably.core.events import WorkerErrorEvent

URL, NAME, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])


def say(word: str) -> None:
    """Tell the test."""
    print(word, flush=True)  # noqa: T201 - for whoever started this program


async def appears(name: str) -> None:
    """Return when there is a file of this name."""
    while not (FOLDER / name).exists():
        await asyncio.sleep(0.01)


@define_job(name="work")
async def work(step: StepContext, input: str) -> list[str]:
    """Wait for the file that `input` names between two steps, each of which says where it was performed."""

    async def here() -> str:
        return NAME

    first = await step.run("first", here)
    say("entered")
    await appears(input)
    return [first, await step.run("second", here)]


def _tell(event: WorkerErrorEvent) -> None:
    say(event.context)


async def main() -> None:
    durably = create_durably(
        database=URL,
        jobs={"work": work},
        lease_duration=1.5,
        lease_renew_interval=0.3,
        polling_interval=0.2,
        max_concurrent_runs=1,
        preserve_steps=True,
    )
    durably.on("worker:error", _tell)
    await durably.init()
    say("ready")
    await asyncio.Event().wait()


asyncio.run(main())
