"""W7 and idleness: resident memory of workers, and the processor time of programs that have nothing to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from benchmarks import workloads
from benchmarks.figures import Line, samples
from benchmarks.limits import fresh_file
from benchmarks.processes import ask


def resident_memory(directory: Path, repetitions: int, pending: int, seconds: float) -> Iterator[Line]:
    """Yield the lines of W7: peaks of fresh processes."""
    base = [_peak(directory, "idle_worker_memory") for _ in range(repetitions)]
    usual = samples(base).median
    yield Line("W7 memory, idle worker", samples(base).show("MiB"), target="<= 60 MiB", reached=usual <= 60)
    for in_flight in (10, 200):
        peaks = [_peak(directory, "parallel_memory", in_flight) for _ in range(repetitions)]
        yield _above_base(f"W7 memory, peak in W2 with {in_flight} in flight", peaks, usual, 15)
    with_backlog = [_backlog_peak(directory, pending, seconds) for _ in range(repetitions)]
    yield _above_base(f"W7 memory, peak with {pending:,} runs pending, 10 in flight", with_backlog, usual, 5)


def _above_base(what: str, peaks: list[float], base: float, allowed: float) -> Line:
    above = samples(peaks).median - base
    return Line(
        what,
        samples(peaks).show("MiB"),
        f"idle worker {base:.1f} MiB",
        f"{above:+.1f} MiB",
        f"<= +{allowed:g} MiB",
        above <= allowed,
    )


def _peak(directory: Path, role: str, number: float = 0) -> float:
    with fresh_file(directory) as url:
        peak: float = ask(role, url, number)["peak"]
        return peak


def _backlog_peak(directory: Path, pending: int, seconds: float) -> float:
    with fresh_file(directory) as url:
        asyncio.run(_queue(url, pending))
        peak: float = ask("backlog_memory", url, seconds)["peak"]
        return peak


async def _queue(url: str, count: int) -> None:
    async with workloads.without_worker(url) as durably:
        for _ in range(count // 500):
            await durably.jobs.steps.batch_trigger([1] * 500)


def idle_processor_time(directory: Path, seconds: float) -> Iterator[Line]:
    """Yield the share of one core that idle programs use."""
    for what, role in (
        ("an idle worker process", "idle_worker_time"),
        ("a process that watches a run", "watcher_time"),
    ):
        with fresh_file(directory) as url:
            share = 100 * ask(role, url, seconds)["share"]
        yield Line(
            f"Processor time of {what}",
            f"{share:.2f} % of a core in {seconds:g} s",
            target="< 1 %",
            reached=share < 1,
        )
