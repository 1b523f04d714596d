"""The program that the tests' workers run."""

import asyncio
import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor
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


def terminated_child(*, at_once: bool) -> int | None:
    """Fork a process that never ends by itself, terminate it, and return its exit code, or None if it lives on."""
    fork = multiprocessing.get_context("fork")
    lives = fork.Event()

    def live() -> None:
        lives.set()
        threading.Event().wait()

    child = fork.Process(target=live)
    child.start()
    if not at_once:
        lives.wait()
    child.terminate()
    child.join(timeout=5)
    exit_code = child.exitcode
    child.kill()
    child.join()
    return exit_code


@define_job(name="terminating")
async def terminating(step: StepContext, input: bool) -> int | None:
    return await step.run("fork", terminated_child, at_once=input)


def wait_in_child(begun: Path, gate: Path) -> None:
    begun.touch()
    while not gate.exists():
        time.sleep(0.01)


async def wait_in_pool(folder: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        calls = [pool.submit(wait_in_child, folder / f"begun-{child}", folder / "gate") for child in (1, 2)]
        await asyncio.gather(*map(asyncio.wrap_future, calls))


@define_job(name="sharing")
async def sharing(step: StepContext, input: Path) -> None:
    """Execute in two processes until there is a gate in the folder that the input names."""
    await step.run("wait", wait_in_pool, input)


@define_job(name="broken")
async def broken(step: StepContext, input: None) -> None:
    raise LookupError("nothing there")


JOBS = {
    "quick": quick,
    "held": held,
    "stuck": stuck,
    "terminating": terminating,
    "sharing": sharing,
    "broken": broken,
}
durably = create_durably(jobs=JOBS)
jobless = create_durably()


async def no_answer(*_: object) -> None:
    """Stand for a database that takes a question and says nothing."""
    await asyncio.Event().wait()


unanswered = create_durably(jobs=JOBS)
unanswered.storage.claim = no_answer  # type: ignore[method-assign,assignment]
