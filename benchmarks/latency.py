"""W5: how long a trigger takes to a worker that is idle, in the same process and in another one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks import workloads
from benchmarks.figures import Line, Samples, number, samples
from benchmarks.limits import fresh_file, raw_commits, raw_steps
from benchmarks.processes import running

_PAUSE: Final = 0.01
_OTHER_START: Final = 0.456
_OTHER_DONE: Final = 0.986

Latencies = list[tuple[float, float]]


def same_process(directory: Path, count: int, repetitions: int) -> Iterator[Line]:
    """Yield the lines of a worker in the process that triggers; a commit is one step of F1."""
    starts, ends, commits, idle_commits = [], [], [], []
    for _ in range(repetitions):
        commits.append(1 / raw_steps(directory, "FULL", per_commit=1, steps=max(count, 300)))
        with fresh_file(directory) as url:
            taken = asyncio.run(_with_own_worker(url, count))
        idle_commits.append(samples(raw_commits(directory, count, _PAUSE)).median)
        starts.append(samples([start for start, _ in taken]))
        ends.append(samples([end for _, end in taken]))
    commit, idle_commit = samples(commits), samples(idle_commits)
    for what, found, target in (("start of the step", starts, 5), ("completion seen", ends, 9)):
        medians = samples([each.median for each in found])
        ratios = samples([each.median / one for each, one in zip(found, commits, strict=True)])
        worst = samples([each.quantile(0.99) for each in found])
        yield Line(
            f"W5 idle worker, same process: {what}, p50",
            f"{medians.show('ms')}; p99 {worst.show('ms')}",
            f"one commit {commit.show('ms')}; after the same pause of {number(_PAUSE, 'ms')} ms "
            f"{number(idle_commit.median, 'ms')} ms",
            ratios.show("x"),
            f"<= {target} commits",
            ratios.median <= target,
        )


async def _with_own_worker(url: str, count: int) -> Latencies:
    async with workloads.instance(url) as durably:
        await workloads.latencies(durably, count // 10 + 1, _PAUSE)
        return await workloads.latencies(durably, count, _PAUSE)


def other_process(directory: Path, count: int) -> Iterator[Line]:
    """Yield the lines of a worker in another process on the same file, everything at its default."""
    with fresh_file(directory) as url:
        asyncio.run(_migrate(url))
        with running("worker", url):
            taken = asyncio.run(_from_outside(url, count))
    for what, found in (
        ("start of the step", samples([start for start, _ in taken])),
        ("completion seen", samples([end for _, end in taken])),
    ):
        yield from _other_lines(what, found)


def _other_lines(what: str, found: Samples) -> Iterator[Line]:
    for name, share, peer in (("p50", 0.5, _OTHER_START), ("p99", 0.99, _OTHER_DONE)):
        value, target = found.quantile(share), peer / 20
        is_start = what.startswith("start")
        yield Line(
            f"W5 idle worker, another process: {what}, {name} of {len(found.values)}",
            f"{number(value, 'ms')} ms",
            f"{number(peer, 'ms')} ms of the TypeScript library" if is_start else "",
            number(value / peer, "x") + " x" if is_start else "",
            f"<= {number(target, 'ms')} ms" if is_start else "",
            value <= target if is_start else None,
        )


async def _migrate(url: str) -> None:
    async with workloads.without_worker(url):
        pass


async def _from_outside(url: str, count: int) -> Latencies:
    async with workloads.without_worker(url) as durably:
        await workloads.latencies(durably, count // 10 + 1, _PAUSE)
        return await workloads.latencies(durably, count, _PAUSE)
