"""The program that the tests' workers run."""

import asyncio
import threading
from pathlib import Path

from durably import StepContext, SyncStepContext, create_durably, define_job


@define_job(name="quick")
async def quick(step: StepContext, input: int) -> int:
    return await step.run("add", lambda: input + 1)


async def until_there(gate: str) -> None:
    while not Path(gate).exists():  # noqa: ASYNC240 - the gate is how a test of another process holds the step
        await asyncio.sleep(0.01)


@define_job(name="held")
async def held(step: StepContext, input: str) -> None:
    """Execute until the file that the input names is there."""
    await step.run("wait", until_there, input)


@define_job(name="stuck")
def stuck(step: SyncStepContext, input: None) -> None:
    """Never look at the signal, and never end."""
    step.run("wait", threading.Event().wait)


@define_job(name="broken")
async def broken(step: StepContext, input: None) -> None:
    raise LookupError("nothing there")


JOBS = {"quick": quick, "held": held, "stuck": stuck, "broken": broken}
durably = create_durably(jobs=JOBS)
jobless = create_durably()


async def no_answer(*_: object) -> None:
    """Stand for a database that takes a question and says nothing."""
    await asyncio.Event().wait()


unanswered = create_durably(jobs=JOBS)
unanswered.storage.claim = no_answer  # type: ignore[method-assign,assignment]
