"""`python -m benchmarks.scaling`: more worker processes, and a million runs; rewrites its sections of RESULTS.md.

Two parts, each with a section of its own: `workers` puts 1 to 8 processes on one database and lets 8 fight for a
few keys; `million` executes a million runs on PostgreSQL with autovacuum at its defaults and looks at what became
of the tables, then purges. The server is started by this program, with its default durability.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg
from tests.postgres.server import PostgresServer, postgres_server

from benchmarks import report, scaling_million
from benchmarks.figures import HEADER, Line, Paired, paired_line, samples, table
from benchmarks.limits import fresh_file
from benchmarks.scaling_workers import HotKeys, by_processes, hot_keys

WORKERS: Final = "Worker processes"
MILLION: Final = "A million runs on PostgreSQL"
_PROCESSES: Final = (1, 2, 4, 8)
# As on a server that is there for this; the defaults are meant for a small machine.
_SETTINGS: Final = {"shared_buffers": "1GB", "max_wal_size": "4GB"}

_ABOUT_WORKERS: Final = f"""
Runs of 20 steps that do nothing, executed by 1, 2, 4 and 8 worker processes with default settings, all of them there
before the clock starts; the ratio is that to one process in the same turn. This machine has {os.cpu_count()} processors
for workers, client and server together: 4 and 8 processes can only show that the rate does not fall, not what more
processors would give. Every process hears of every event, which is what costs more with each of them.

Hot keys: 8 worker processes execute runs of one step under 4 concurrency keys, so that half of the workers have
nothing to do at any time; a feeder per key triggers the next run when the one before has ended. Collisions are
transactions that the server rolled back, by deadlock, serialization or a unique index.
"""

_ABOUT_MILLION: Final = """
Runs of one step with a label, triggered in batches of 500 and executed by two worker processes with 100 slots each
while the triggering goes on; nothing is purged meanwhile, autovacuum has its default settings (the server has
`shared_buffers` of 1 GB and a `max_wal_size` of 4 GB). Sizes are those of a
table and of its indexes. The purge is `purge_runs`, 500 at a time, one process, nothing else going on.
"""


def workers(server: PostgresServer, directory: Path, repetitions: int, share: int) -> Iterator[Line]:
    """Yield the rates by number of processes, on both databases, and the hot keys."""
    for name, fresh in (("PostgreSQL", server.create_database), ("SQLite", None)):
        runs = 400 // share
        found: dict[int, list[float]] = {}
        for _ in range(repetitions):
            for processes in _PROCESSES:
                if fresh is not None:
                    rate = asyncio.run(by_processes(fresh(), processes, runs))
                else:
                    with fresh_file(directory, "") as url:
                        rate = asyncio.run(by_processes(url, processes, runs))
                found.setdefault(processes, []).append(rate)
        for processes, rates in found.items():
            paired = Paired(samples(rates), samples(found[1]))
            target = 1.0 if processes in (2, 4) and fresh is not None else None
            yield paired_line(f"{name}, {runs} runs x 20 steps, {processes} processes", paired, "/s", "one", target)
    yield _hot_line([asyncio.run(hot_keys(server, 8, 4, 200 // share)) for _ in range(repetitions)])


def _hot_line(found: list[HotKeys]) -> Line:
    collisions = sum(each.rolled_back for each in found) / sum(each.runs for each in found)
    deadlocks = sum(each.deadlocks for each in found)
    transactions = samples([each.transactions / each.runs for each in found]).show("x").replace(" x", "")
    return Line(
        "PostgreSQL, 8 processes on 4 hot keys, runs",
        samples([each.rate for each in found]).show("/s"),
        f"{transactions} transactions per run",
        f"{collisions:.3f} collisions per run, {deadlocks} deadlocks",
        "no deadlock",
        deadlocks == 0,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was chosen; each part writes its section when it was measured at full size."""
    parts = ("workers", "million")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--repetitions", type=int, default=3, help="turns of the part `workers` (default 3)")
    parser.add_argument("--runs", type=int, default=1_000_000, help="runs of the part `million` (default 1,000,000)")
    parser.add_argument("--processes", type=int, default=2, help="workers of the part `million` (default 2)")
    parser.add_argument("--directory", type=report.directory, default=report.default_directory())
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; writes nothing")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(parts):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    for part in options.parts or parts:
        with postgres_server(is_safe=True, settings=_SETTINGS) as server:
            _measure(part, server, options)
    return 0


def _measure(part: str, server: PostgresServer, options: argparse.Namespace) -> None:
    say: Callable[[str], None] = partial(print, file=sys.stderr, flush=True)
    lines: list[Line] = []
    header: tuple[str, ...]
    if part == "workers":
        title, about, header = WORKERS, _ABOUT_WORKERS, HEADER
        found = workers(server, options.directory, options.repetitions, 10 if options.quick else 1)
    else:
        title, about, header = MILLION, _ABOUT_MILLION, scaling_million.HEADER
        found = scaling_million.measure(server, 20_000 if options.quick else options.runs, options.processes, say)
    for line in found:
        lines.append(line)
        say(" | ".join(cell for cell in line.cells if cell))
    if not options.quick:
        version = server.sql("SHOW server_version")[0]
        setting = report.setting(
            f"python -m benchmarks.scaling {part}",
            Path.cwd(),
            more=f", asyncpg {asyncpg.__version__}, PostgreSQL {version}",
        )
        rows = [line.cells[: len(header)] for line in lines]
        report.write_section(title, "\n\n".join([setting, about.strip(), table(header, rows)]))


if __name__ == "__main__":
    sys.exit(main())
