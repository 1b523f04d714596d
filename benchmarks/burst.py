"""`python -m benchmarks.burst URL RATE SECONDS`: a worker whose one step reports progress so many times a second.

When the run has ended it prints one line of JSON: what rate it reached, how late the event loop was at the worst, and
how much memory the process took.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

from benchmarks.processes import memory
from durably import StepContext, create_durably, define_job

_TICK_SECONDS = 0.01


@define_job(name="burst")
async def burst(step: StepContext, input: tuple[int, float]) -> dict[str, float]:
    """Report progress `rate` times a second for some seconds."""

    async def report() -> dict[str, float]:
        rate, seconds = input
        began, told, latest = time.perf_counter(), 0, 0.0
        while (now := time.perf_counter() - began) < seconds:
            for n in range(told + 1, round(now * rate) + 1):
                step.progress(n, None, str(time.monotonic()))
                told = n
            await asyncio.sleep(_TICK_SECONDS)
            latest = max(latest, time.perf_counter() - began - now - _TICK_SECONDS)
        return {"told": told, "rate": told / seconds, "late": latest}

    return await step.run("report", report)


async def main(url: str, rate: int, seconds: float) -> None:
    """Work until one run has ended."""
    async with create_durably(database=url, jobs={"burst": burst}) as durably:
        before = memory()["now"]
        run = await durably.jobs.burst.trigger((rate, seconds))
        sys.stdout.write(json.dumps({"run": run.id}) + "\n")
        sys.stdout.flush()
        ended = await durably.wait_for_run(run.id)
        found: dict[str, Any] = ended.output or {}
        sys.stdout.write(json.dumps({**found, "grown": memory()["peak"] - before}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.burst",
        description="A worker whose one step reports progress so many times a second.",
    )
    parser.add_argument("url", help="of the database")
    parser.add_argument("rate", type=int, help="reports per second")
    parser.add_argument("seconds", type=float, help="how long")
    options = parser.parse_args()
    asyncio.run(main(options.url, options.rate, options.seconds))
