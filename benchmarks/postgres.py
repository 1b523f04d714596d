"""`python -m benchmarks.postgres`: W1 to W6 on PostgreSQL beside raw asyncpg; rewrites its section of RESULTS.md.

The server is started by this program, with its default durability: every commit is flushed to disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg
from tests.postgres.server import PostgresServer, postgres_server

from benchmarks import report, workloads
from benchmarks.figures import HEADER, Line, Paired, Samples, in_turns, number, paired_line, samples, table
from benchmarks.latency import _PAUSE, _from_outside
from benchmarks.processes import ask, running
from benchmarks.resume import _resume
from durably.cli.worker_command import spare_the_collector
from durably.core.ulid import new_ulid

TITLE: Final = "PostgreSQL"
_NAMES: Final = ("W1", "W2", "W3", "W4", "W5", "W6", "processes")
_NOW: Final = "2026-01-01T00:00:00.000Z"

_INTRODUCTION: Final = """
`P1` and `P16` are bare loops of asyncpg over 1 and 16 connections: one prepared statement per step, a CTE
that updates the run and inserts the step, in the same tables with all their indexes, each its own commit
(`synchronous_commit = on`). The workloads are those of the SQLite core; each of their commits stores its
events too. Server and benchmark share the machine. Garbage collection passes over what was loaded before, as in
a process of `durably worker`.
"""

_RAW_STEP: Final = """
WITH held AS (
  UPDATE durably_runs SET current_step_index = $2, completed_step_count = completed_step_count + 1, updated_at = $3
  WHERE id = $1 AND status = 'leased' AND lease_generation = 1 RETURNING id)
INSERT INTO durably_steps (id, run_id, name, "index", status, output, error, started_at, completed_at)
SELECT $4, held.id, $5, $2, 'completed', $6, NULL, $3, $3 FROM held
"""
_RAW_RUN: Final = """
INSERT INTO durably_runs (id, job_name, input, status, lease_generation, created_at, updated_at)
VALUES ($1, 'raw', '1', 'leased', 1, $2, $2)
"""
_RAW_RUNS: Final = """
INSERT INTO durably_runs (id, job_name, input, labels, created_at, updated_at, status)
SELECT new.*, new.created_at, 'pending'
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) AS new(id, job_name, input, labels, created_at)
"""

Workload = Callable[[str], Coroutine[Any, Any, float]]


async def raw_steps(url: str, connections: int, steps: int) -> float:
    """Return how many steps per second bare connections record."""
    async with workloads.without_worker(url):
        pass
    opened = [await asyncpg.connect(url) for _ in range(connections)]
    try:
        loops = [await _prepared(connection, steps // connections) for connection in opened]
        started = time.perf_counter()
        await asyncio.gather(*(loop() for loop in loops))
        return steps / (time.perf_counter() - started)
    finally:
        for connection in opened:
            await connection.close()


async def raw_runs(url: str, batches: int, size: int) -> float:
    """Return how many pending runs per second a bare connection inserts, one statement and commit per batch."""
    async with workloads.without_worker(url):
        pass
    connection = await asyncpg.connect(url)
    try:
        statement = await connection.prepare(_RAW_RUNS)
        ids = [[new_ulid(number) for number in range(size)] for _ in range(batches)]
        started = time.perf_counter()
        for batch in ids:
            await statement.fetch(batch, ["steps"] * size, ["1"] * size, ["{}"] * size, [_NOW] * size)
        return batches * size / (time.perf_counter() - started)
    finally:
        await connection.close()


async def _prepared(connection: asyncpg.Connection, steps: int) -> Callable[[], Coroutine[Any, Any, None]]:
    run_id = new_ulid(0)
    await connection.execute(_RAW_RUN, run_id, _NOW)
    statement = await connection.prepare(_RAW_STEP)
    rows = [(run_id, n, _NOW, new_ulid(0), f"step-{n}", f'{{"i":{n}}}') for n in range(steps)]

    async def record() -> None:
        for row in rows:
            await statement.fetch(*row)

    return record


class Benchmarks:
    """The workloads on one server."""

    def __init__(self, server: PostgresServer, repetitions: int, *, quick: bool) -> None:
        self._server = server
        self._repetitions = repetitions
        self._share = 10 if quick else 1
        self._p1 = self._measure(partial(raw_steps, connections=1, steps=1000 // self._share))
        self._p16 = self._measure(partial(raw_steps, connections=16, steps=6400 // self._share))

    def sequential(self) -> Iterator[Line]:
        """W1."""
        steps = 1000 // self._share
        paired = self._paired(self._p1, partial(workloads.sequential_steps, steps=steps))
        yield paired_line(f"W1 {steps} steps in sequence", paired, "/s", "P1", 0.7)

    def parallel(self) -> Iterator[Line]:
        """W2, at several concurrencies; the best one has to reach its target."""
        runs, found = 200 // self._share, dict[int, Paired]()
        for in_flight in (10, 50, 100, 200):
            workload = partial(workloads.parallel_runs, runs=runs, steps=20, in_flight=in_flight)
            found[in_flight] = self._paired(self._p16, workload)
        best = max(found, key=lambda in_flight: found[in_flight].ratio.median)
        for in_flight, paired in found.items():
            mark, target = (" (best)", 2.5) if in_flight == best else ("", None)
            yield paired_line(f"W2 {runs} runs x 20 steps, {in_flight} in flight{mark}", paired, "/s", "P16", target)

    def single_step_runs(self) -> Iterator[Line]:
        """W3."""
        runs = 2000 // self._share
        paired = self._paired(self._p16, partial(workloads.queued_runs, runs=runs, in_flight=100))
        yield paired_line(f"W3 {runs} runs of one step, 100 in flight", paired, "/s", "P16", 1.2)

    def triggering(self) -> Iterator[Line]:
        """W4."""
        count = 500 // self._share
        single = self._paired(self._p1, partial(workloads.triggers, count=count))
        yield paired_line(f"W4 {count} triggers one by one", single, "/s", "P1", 0.6)
        batch = self._paired(self._p16, partial(workloads.batch_triggers, batches=10, size=count))
        yield paired_line(f"W4 triggers in batches of {count}", batch, "/s", "P16", 10)
        bare = self._paired(self._p16, partial(raw_runs, batches=10, size=count))
        yield paired_line(f"W4 bare insert of {count} runs a statement, the same indexes", bare, "/s", "P16", None)

    def latencies(self) -> Iterator[Line]:
        """W5, with a worker in another process, everything at its default."""
        starts, ends, commits, idle_commits = [], [], [], []
        for _ in range(self._repetitions):
            commits.append(1 / self._p1())
            idle_commits.append(asyncio.run(_raw_commits(self._server.create_database(), 200 // self._share)).median)
            url = self._server.create_database()
            asyncio.run(_migrate(url))
            with running("worker", url):
                taken = asyncio.run(_from_outside(url, 200 // self._share))
            starts.append(samples([start for start, _ in taken]))
            ends.append(samples([end for _, end in taken]))
        for what, found, target in (("start of the step", starts, 5), ("completion seen", ends, None)):
            paired = Paired(samples([each.median for each in found]), samples(commits))
            line = paired_line(f"W5 worker in another process: {what}, p50", paired, "ms", "commit", target, "lower")
            worst = number(samples([each.quantile(0.99) for each in found]).median, "ms")
            idle = f"after the same pause of {number(_PAUSE, 'ms')} ms {number(samples(idle_commits).median, 'ms')} ms"
            yield replace(line, measured=f"{line.measured}; p99 {worst} ms", limit=f"{line.limit}; {idle}")

    def resume(self) -> Iterator[Line]:
        """W6."""
        steps = 5000 // self._share
        crashed = self._server.create_database()
        ask("crash", crashed, steps)
        self._server.sql("UPDATE durably_runs SET lease_expires_at = '2000-01-01T00:00:00.000Z'", _name_of(crashed))

        def resumed() -> float:
            copy = f"copy_{new_ulid(0).lower()}"
            self._server.sql(f"CREATE DATABASE {copy} TEMPLATE {_name_of(crashed)}")
            return asyncio.run(_resume(self._server.url(copy), steps))

        paired = in_turns(lambda: asyncio.run(_read_raw(crashed)), resumed, self._repetitions)
        yield paired_line(f"W6 resume after {steps} steps", paired, "ms", "read and decode raw", 3, "lower")

    def processes(self) -> Iterator[Line]:
        """Runs of W2 by 1, 2 and 4 worker processes: more of them never make it slower."""
        runs, found = 400 // self._share, dict[int, list[float]]()
        for _ in range(self._repetitions):
            for workers in (1, 2, 4):
                rate = asyncio.run(_by_processes(self._server.create_database(), workers, runs))
                found.setdefault(workers, []).append(rate)
        one = samples(found[1])
        for workers, rates in found.items():
            paired = Paired(samples(rates), one)
            target = None if workers == 1 else 1.0
            yield paired_line(f"{runs} runs x 20 steps, {workers} processes", paired, "/s", "one", target)

    def _measure(self, workload: Workload) -> Callable[[], float]:
        return lambda: asyncio.run(workload(self._server.create_database()))

    def _paired(self, limit: Callable[[], float], workload: Workload) -> Paired:
        return in_turns(limit, self._measure(workload), self._repetitions)


async def _migrate(url: str) -> None:
    async with workloads.without_worker(url):
        pass


async def _raw_commits(url: str, count: int) -> Samples:
    """Return the seconds that single steps take with a pause before each, as an idle program has them."""
    await _migrate(url)
    connection = await asyncpg.connect(url)
    try:
        taken = []
        for _ in range(count):
            record = await _prepared(connection, 1)
            await asyncio.sleep(_PAUSE)
            started = time.perf_counter()
            await record()
            taken.append(time.perf_counter() - started)
        return samples(taken)
    finally:
        await connection.close()


async def _read_raw(url: str) -> float:
    started = time.perf_counter()
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT name, output FROM durably_steps WHERE status = 'completed'")
    checkpoints = {name: json.loads(output) for name, output in rows}
    await connection.close()
    if not checkpoints:
        raise RuntimeError(f"{url} holds no finished steps")
    return time.perf_counter() - started


async def _by_processes(url: str, workers: int, runs: int) -> float:
    async with workloads.without_worker(url) as durably:
        # The workers are there, idle, before the clock starts: otherwise the first would work alone.
        with _several(workers, url):
            started = time.perf_counter()
            for run in await durably.jobs.steps.batch_trigger([20] * runs):
                await durably.wait_for_run(run.id)
            return 20 * runs / (time.perf_counter() - started)


def _several(workers: int, url: str) -> Any:
    from contextlib import ExitStack  # noqa: PLC0415

    stack = ExitStack()
    for _ in range(workers):
        stack.enter_context(running("worker", url))
    return stack


def _name_of(url: str) -> str:
    return url.rpartition("/")[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was chosen; write the results when it was everything, at full size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.postgres", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(_NAMES))
    parser.add_argument("--repetitions", type=int, default=5, help="pairs of limit and workload (default 5)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything works")
    options = parser.parse_args(arguments)
    if unknown := set(options.workloads) - set(_NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(_NAMES)}")
    chosen = tuple(options.workloads) or _NAMES
    lines: list[Line] = []
    spare_the_collector()
    with postgres_server(is_safe=True) as server:
        version = server.sql("SHOW server_version")[0]
        benchmarks = Benchmarks(server, options.repetitions, quick=options.quick)
        groups: dict[str, Callable[[], Iterator[Line]]] = {
            "W1": benchmarks.sequential,
            "W2": benchmarks.parallel,
            "W3": benchmarks.single_step_runs,
            "W4": benchmarks.triggering,
            "W5": benchmarks.latencies,
            "W6": benchmarks.resume,
            "processes": benchmarks.processes,
        }
        for name in chosen:
            for line in groups[name]():
                lines.append(line)
                print(" | ".join(cell for cell in line.cells if cell), file=sys.stderr, flush=True)
    if chosen == _NAMES and not options.quick:
        setting = report.setting(
            "python -m benchmarks.postgres",
            Path.cwd(),
            more=f", asyncpg {asyncpg.__version__}, PostgreSQL {version}",
        )
        body = "\n\n".join([setting, _INTRODUCTION.strip(), table(HEADER, [line.cells for line in lines])])
        report.write_section(TITLE, body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
