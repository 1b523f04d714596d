"""Several worker processes on one database: their rate together, and what a few hot keys do to them."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tests.postgres.server import PostgresServer

from benchmarks import workloads
from benchmarks.processes import running
from durably import Durably

_STATISTICS: Final = (
    "SELECT xact_commit + xact_rollback, xact_rollback, deadlocks FROM pg_stat_database WHERE datname = '{}'"
)
_SETTLE_SECONDS: Final = 1.2


async def by_processes(url: str, processes: int, runs: int) -> float:
    """Return how many steps per second worker processes do; they are there, idle, before the clock starts."""
    async with workloads.without_worker(url) as durably:
        with several(url, processes):
            started = time.perf_counter()
            for run in await durably.jobs.steps.batch_trigger([20] * runs):
                await durably.wait_for_run(run.id)
            return 20 * runs / (time.perf_counter() - started)


def several(url: str, processes: int, role: str = "worker", number: float = 0) -> ExitStack:
    """Return a context in which worker processes are at work."""
    stack = ExitStack()
    for _ in range(processes):
        stack.enter_context(running(role, url, number))
    return stack


@dataclass(frozen=True)
class HotKeys:
    """What happened while workers fought for keys."""

    runs: int
    rate: float
    transactions: int
    rolled_back: int
    deadlocks: int


async def hot_keys(server: PostgresServer, processes: int, keys: int, runs_per_key: int) -> HotKeys:
    """Let worker processes execute runs of a few concurrency keys."""
    url = server.create_database()
    async with workloads.without_worker(url) as durably:
        with several(url, processes):
            before = await _statistics(server, url)
            started = time.perf_counter()
            await asyncio.gather(*(_feed(durably, f"key-{n}", runs_per_key) for n in range(keys)))
            seconds = time.perf_counter() - started
            after = await _statistics(server, url)
    transactions, rolled_back, deadlocks = (now - then for now, then in zip(after, before, strict=True))
    runs = keys * runs_per_key
    return HotKeys(runs, runs / seconds, transactions, rolled_back, deadlocks)


async def _feed(durably: Durably, key: str, runs: int) -> None:
    for _ in range(runs):
        await durably.jobs.steps.trigger_and_wait(1, concurrency_key=key)


async def _statistics(server: PostgresServer, url: str) -> list[int]:
    # A session reports now and then only.
    await asyncio.sleep(_SETTLE_SECONDS)
    (row,) = await asyncio.to_thread(server.sql, _STATISTICS.format(url.rpartition("/")[2]))
    return [int(cell) for cell in row.split("|")]
