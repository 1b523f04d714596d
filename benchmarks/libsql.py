"""`python -m benchmarks.libsql`: the libSQL store beside the bare round trip of the same server.

Starts `tursodb --sync-server` (npm brings it), measures in turns, and rewrites its section of RESULTS.md. The
server answers on this machine and closes every connection, so what is measured is the cost of the store and of
HTTP, not of a network: there a step costs one round trip more or less whatever the store does.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.libsql.server import running_server

from benchmarks import report, workloads
from benchmarks.figures import HEADER, Line, Paired, in_turns, paired_line, table
from durably.stores.libsql.address import Address
from durably.stores.libsql.client import Client, Server
from durably.stores.libsql.hrana import Statement

TITLE: Final = "libSQL over HTTP"
_TARGET: Final = 0.5

_INTRODUCTION: Final = """
R1 is one step in the fewest statements, an INSERT and an UPDATE between BEGIN and COMMIT, sent as one request by
the same HTTP client, one request after the other; R1 x 50 sends 50 such steps in each request. A step of the store
is one request as well, of five statements: the events announced since, the step's own event, the run, the step, and
what other processes have told. This server closes every connection and looks for a new one every 10 ms: a bare
request that comes right after the last answer takes one such look, and one that is a little later or a little longer
takes two. So W1 says little about a server on a network, where the round trip itself is what takes long.
"""

_INSERT: Final = "INSERT INTO steps (id, run_id, name, output) VALUES (?, ?, ?, ?)"
_UPDATE: Final = "UPDATE runs SET steps = steps + 1 WHERE id = ?"


@contextmanager
def fresh_server(directory: Path) -> Iterator[str]:
    """Yield the URL of a server on an empty database."""
    with TemporaryDirectory(dir=directory) as empty, running_server(Path(empty)) as server:
        yield server.url


async def bare_round_trips(url: str, steps: int, in_flight: int) -> float:
    """Return how many steps per second go through when each request carries `in_flight` of them."""
    client = Client(Server(Address.parse(url)))
    try:
        await client.query(Statement("CREATE TABLE steps (id text PRIMARY KEY, run_id text, name text, output text)"))
        await client.query(Statement("CREATE TABLE runs (id text PRIMARY KEY, steps integer)"))
        for run in range(in_flight):
            await client.query(Statement("INSERT INTO runs VALUES (?, 0)", (f"run-{run}",)))
        started = time.perf_counter()
        for n in range(steps // in_flight):
            await client.transact([each for run in range(in_flight) for each in _step(f"run-{run}", n)])
        return steps / (time.perf_counter() - started)
    finally:
        await client.close()


def _step(run_id: str, n: int) -> tuple[Statement, Statement]:
    return (
        Statement(_INSERT, (f"{run_id}-{n}", run_id, f"step-{n}", f'{{"i":{n}}}')),
        Statement(_UPDATE, (run_id,)),
    )


def measure(directory: Path, repetitions: int, steps: int) -> Iterator[Line]:
    """Yield the lines of the table."""

    def on_fresh(workload: Callable[[str], Coroutine[Any, Any, float]]) -> Callable[[], float]:
        def once() -> float:
            with fresh_server(directory) as url:
                return asyncio.run(workload(url))

        return once

    def pair(limit_in_flight: int, workload: Callable[[str], Coroutine[Any, Any, float]]) -> Paired:
        limit = on_fresh(lambda url: bare_round_trips(url, steps, limit_in_flight))
        return in_turns(limit, on_fresh(workload), repetitions)

    yield paired_line("W1, steps", pair(1, lambda url: workloads.sequential_steps(url, steps)), "/s", "R1", _TARGET)
    runs = max(steps // 20, 50)
    yield paired_line(
        "W2, 50 in flight, steps",
        pair(50, lambda url: workloads.parallel_runs(url, runs, 20, 50)),
        "/s",
        "R1 x 50",
        None,
    )
    yield paired_line(
        "W3, 50 in flight, runs", pair(50, lambda url: workloads.queued_runs(url, steps, 50)), "/s", "R1 x 50", None
    )
    yield paired_line("W4, one by one", pair(1, lambda url: workloads.triggers(url, steps)), "/s", "R1", None)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.libsql")
    parser.add_argument("--directory", type=report.directory, default=report.default_directory())
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; writes nothing")
    options = parser.parse_args()
    repetitions, steps = (1, 50) if options.quick else (5, 300)
    rows = [line.cells for line in measure(options.directory, repetitions, steps)]
    results = table(HEADER, rows)
    print(results)
    if not options.quick:
        where = report.setting("python -m benchmarks.libsql", options.directory, more=f", httpx {version('httpx')}")
        report.write_section(TITLE, f"{where}\n{_INTRODUCTION}\n{results}")


if __name__ == "__main__":
    main()
