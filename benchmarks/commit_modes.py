"""`python -m benchmarks.commit_modes`: where to commit, on the event loop or on a thread.

Compares `?commit=in-place`, `?commit=thread` and `?commit=auto` on the disk as it is and on disks whose flushes
take some milliseconds, and rewrites its section of RESULTS.md. docs/adr/0002-where-to-commit.md rests on it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import report, workloads
from benchmarks.figures import Samples, number, samples, table
from benchmarks.limits import fresh_file
from benchmarks.slow_disk import NoCompilerError, build_shim, slow

TITLE: Final = "Where to commit (SQLite)"
MODES: Final = ("in-place", "thread", "auto")

_TICK: Final = 0.001
_HEADER: Final = (
    "disk",
    "commit",
    "W1 steps/s",
    "its ticker stood still, p99",
    "W2 steps/s, 50 in flight",
    "its ticker stood still, p99",
    "W5 start of the step, p50",
    "W5 completion, p50",
)

_INTRODUCTION: Final = """
Each row is {repetitions} fresh processes with default settings (`synchronous=FULL` unless it says otherwise), the modes
in turns. "Stood still" is how late a task that sleeps 1 ms again and again was woken while the workload ran, at
its 99th percentile: what another request of the same program would have waited. A slow disk is simulated: each
`fsync` and `fdatasync` sleeps first. "Slow at first" is a disk of which the first 40 flushes take 10 ms.
"""


@dataclass(frozen=True)
class Effort:
    """How much one process does: less on slow disks, so that none takes minutes."""

    steps: int
    runs: int
    samples: int


@dataclass(frozen=True)
class Disk:
    """A disk to measure on."""

    name: str
    query: str
    environment: dict[str, str]
    effort: Effort


_FAST: Final = Effort(1000, 100, 100)
_SLOW: Final = Effort(300, 20, 40)


# --- in a process of its own ---------------------------------------------------------------------


async def measure(directory: Path, query: str, effort: Effort) -> dict[str, float]:
    """Return the figures of one commit mode."""
    sequential, sequential_still = await _beside_ticker(
        lambda: _on_fresh_file(directory, query, lambda url: workloads.sequential_steps(url, effort.steps))
    )
    parallel, parallel_still = await _beside_ticker(
        lambda: _on_fresh_file(directory, query, lambda url: workloads.parallel_runs(url, effort.runs, 20, 50))
    )
    with fresh_file(directory, query) as url:
        async with workloads.instance(url) as durably:
            taken = await workloads.latencies(durably, effort.samples, 0.01)
    return {
        "sequential": sequential,
        "sequential_still": sequential_still,
        "parallel": parallel,
        "parallel_still": parallel_still,
        "start": samples([start for start, _ in taken]).median,
        "done": samples([done for _, done in taken]).median,
    }


async def _on_fresh_file(directory: Path, query: str, workload: Callable[[str], Awaitable[float]]) -> float:
    with fresh_file(directory, query) as url:
        return await workload(url)


async def _beside_ticker(workload: Callable[[], Awaitable[float]]) -> tuple[float, float]:
    """Return what a workload returns, and by how much the 99th percentile of 1 ms sleeps beside it was late."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(_TICK)
            late.append(time.perf_counter() - started - _TICK)

    ticker = asyncio.create_task(tick())
    try:
        result = await workload()
    finally:
        ticker.cancel()
    return result, samples(late).quantile(0.99)


# --- the comparison ------------------------------------------------------------------------------


def compare(directory: Path, disks: list[Disk], repetitions: int) -> list[tuple[str, ...]]:
    """Return the rows of the table."""
    rows = []
    for disk in disks:
        found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
        for _ in range(repetitions):
            for mode in MODES:
                found[mode].append(_in_child(directory, disk, mode))
        for mode in MODES:
            row = _row(disk, mode, found[mode])
            print(" | ".join(row), file=sys.stderr, flush=True)
            rows.append(row)
    return rows


def _in_child(directory: Path, disk: Disk, mode: str) -> dict[str, float]:
    query = f"commit={mode}" + (f"&{disk.query}" if disk.query else "")
    command = [sys.executable, "-m", "benchmarks.commit_modes", "--directory", str(directory), "--child", query]
    finished = subprocess.run(
        [*command, str(disk.effort.steps), str(disk.effort.runs), str(disk.effort.samples)],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, **disk.environment},
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    )
    figures: dict[str, float] = json.loads(finished.stdout)
    return figures


def _row(disk: Disk, mode: str, found: list[dict[str, float]]) -> tuple[str, ...]:
    def over(name: str) -> Samples:
        return samples([each[name] for each in found])

    return (
        disk.name,
        mode,
        over("sequential").show("/s"),
        f"{number(over('sequential_still').median, 'ms')} ms",
        over("parallel").show("/s"),
        f"{number(over('parallel_still').median, 'ms')} ms",
        over("start").show("ms"),
        over("done").show("ms"),
    )


def _disks(shim: Path | None) -> list[Disk]:
    disks = [Disk("as it is", "", {}, _FAST), Disk("as it is, NORMAL", "synchronous=normal", {}, _FAST)]
    if shim is not None:
        disks += [Disk(f"+{delay} ms a flush", "", slow(shim, delay), _SLOW) for delay in (1, 2, 5, 10)]
        disks.append(Disk("+10 ms a flush, NORMAL", "synchronous=normal", slow(shim, 10), _FAST))
        disks.append(Disk("slow at first", "", slow(shim, 10, flushes=40), _FAST))
    return disks


def main() -> int:
    """Measure and rewrite the section."""
    options = _parser().parse_args()
    directory = options.directory
    if options.child:
        query, *sizes = options.child
        print(json.dumps(asyncio.run(measure(directory, query, Effort(*map(int, sizes))))))
        return 0
    with TemporaryDirectory() as folder:
        try:
            shim, remark = build_shim(Path(folder)), ""
        except NoCompilerError as error:
            shim, remark = None, f"Without slow disks: {error}."
        rows = compare(directory, _disks(shim), options.repetitions)
    body = [
        report.setting("python -m benchmarks.commit_modes", directory),
        _INTRODUCTION.strip().format(repetitions=options.repetitions),
        table(_HEADER, rows),
        remark,
    ]
    report.write_section(TITLE, "\n\n".join(body))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commit_modes", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3, help="processes per mode and disk (default 3)")
    parser.add_argument(
        "--directory", type=report.directory, default=report.default_directory(), help="where database files are made"
    )
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
