"""The workloads, the same for every database: each takes the URL of a fresh database and returns a figure.

A step is an `async def` function that returns `{"i": n}`; each result is durably committed before the next
step of its run begins. Light to import: processes whose memory is measured use it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from durably import Durably, StepContext, create_durably, define_job


async def no_op(n: int) -> dict[str, int]:
    return {"i": n}


@define_job(name="steps")
async def steps_job(step: StepContext, input: int) -> float:
    """Do `input` steps and return how many seconds they took."""
    started = time.perf_counter()
    for n in range(input):
        await step.run(f"step-{n}", no_op, n)
    return time.perf_counter() - started


@define_job(name="moment")
async def moment_job(step: StepContext, input: int) -> float:
    """Return when the one step of this run started, on the clock that all processes share."""
    return await step.run("now", _now)


async def _now() -> float:
    return time.monotonic()


JOBS = {"steps": steps_job, "moment": moment_job}


def instance(database: str, *, max_concurrent_runs: int = 10) -> Durably:
    """Return an instance with default settings except for its number of slots."""
    return create_durably(database=database, jobs=JOBS, max_concurrent_runs=max_concurrent_runs)


@asynccontextmanager
async def without_worker(database: str, *, max_concurrent_runs: int = 10) -> AsyncIterator[Durably]:
    """Give a migrated instance whose worker was not started; stop and close it at the end."""
    durably = instance(database, max_concurrent_runs=max_concurrent_runs)
    await durably.migrate()
    try:
        yield durably
    finally:
        await durably.stop(0)
        await durably.close()


async def sequential_steps(database: str, steps: int) -> float:
    """W1: one run of many steps. Steps per second, from its first step to its last commit."""
    async with instance(database) as durably:
        seconds: float = (await durably.jobs.steps.trigger_and_wait(steps)).output
    return steps / seconds


async def parallel_runs(database: str, runs: int, steps: int, in_flight: int) -> float:
    """W2: runs of `steps` steps, queued first, then the worker starts. Steps per second."""
    return steps * await queued_runs(database, runs, in_flight, steps=steps)


async def queued_runs(database: str, runs: int, in_flight: int, *, steps: int = 1) -> float:
    """W3: runs queued first, then the worker starts. Runs per second until the end of the last is told."""
    async with without_worker(database, max_concurrent_runs=in_flight) as durably:
        await durably.jobs.steps.batch_trigger([steps] * runs)
        return runs / await drain(durably, runs)


async def drain(durably: Durably, runs: int) -> float:
    """Start the worker and return the seconds until `runs` runs have completed."""
    left, done = runs, asyncio.Event()

    def completed(_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()

    forget = durably.on("run:complete", completed)
    started = time.perf_counter()
    await durably.start()
    await done.wait()
    seconds = time.perf_counter() - started
    forget()
    return seconds


async def triggers(database: str, count: int) -> float:
    """W4: trigger one by one, each awaited, no worker. Triggers per second."""
    async with without_worker(database) as durably:
        started = time.perf_counter()
        for _ in range(count):
            await durably.jobs.steps.trigger(1)
        return count / (time.perf_counter() - started)


async def batch_triggers(database: str, batches: int, size: int) -> float:
    """W4: trigger in batches, no worker. Triggers per second."""
    async with without_worker(database) as durably:
        started = time.perf_counter()
        for _ in range(batches):
            await durably.jobs.steps.batch_trigger([1] * size)
        return batches * size / (time.perf_counter() - started)


async def latencies(durably: Durably, count: int, pause: float) -> list[tuple[float, float]]:
    """W5: trigger and wait, with pauses of `pause` seconds, more or less, in which the worker is idle.

    Pauses vary, so that they do not fall into step with whoever looks for work regularly. Returns pairs of
    seconds from the call of trigger: to the start of the step function, and to completion seen by the caller.
    """
    taken = []
    for _ in range(count):
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        called = time.monotonic()
        result = await durably.jobs.moment.trigger_and_wait(0)
        taken.append((result.output - called, time.monotonic() - called))
    return taken
