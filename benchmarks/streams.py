"""`python -m benchmarks.streams`: events between processes; rewrites its section of RESULTS.md.

What the log of events costs on the path of a step on PostgreSQL, and a burst of 10,000 events per second that another
process follows, on both databases.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import asyncpg
from tests.postgres.server import PostgresServer, postgres_server

from benchmarks import report, workloads
from benchmarks.figures import HEADER, Line, in_turns, number, samples, table
from benchmarks.limits import fresh_file
from benchmarks.processes import memory
from durably.core.events import RunProgressEvent
from durably.stores.postgres import batch

TITLE: Final = "Events between processes"
_ALLOWED: Final = 0.15
_RATE: Final = 10_000
_ROOT: Final = Path(__file__).parent.parent

_ABOUT: Final = f"""
The cost of the log on PostgreSQL: the same workload with its rows and without; without them a position is taken from
the sequence and the events are delivered in this process all the same. The burst: one step reports progress
{_RATE:,} times a second; another process follows the run by `subscribe`. Told and heard are counted, order and
duplicates checked. "Late" is the worst delay of a timer in the process of the step, beyond the 10 ms it asked for; the
delay is that from the report to the reader; memory is what each process grew by at its peak.
"""

Workload = Callable[[str], Coroutine[Any, Any, float]]


# --- the cost on the path of a step ---------------------------------------------------------------


def cost(server: PostgresServer, repetitions: int, share: int) -> Iterator[Line]:
    """Yield the share of the rate that storing events takes away."""
    workloads_of: dict[str, Workload] = {
        "W1": partial(workloads.sequential_steps, steps=1000 // share),
        "W2, 100 in flight": partial(workloads.parallel_runs, runs=200 // share, steps=20, in_flight=100),
    }
    for what, workload in workloads_of.items():
        paired = in_turns(partial(_without_rows, server, workload), partial(_once, server, workload), repetitions)
        share_of_rate = 1 - paired.ratio.median
        yield Line(
            f"Event log on PostgreSQL in {what}",
            paired.measured.show("/s"),
            f"without its rows {paired.limit.show('/s')}",
            f"costs {100 * share_of_rate:.0f} %",
            f"< {100 * _ALLOWED:.0f} %",
            share_of_rate < _ALLOWED,
        )


def _once(server: PostgresServer, workload: Workload) -> float:
    return asyncio.run(workload(server.create_database()))


def _without_rows(server: PostgresServer, workload: Workload) -> float:
    with _rows_left_out():
        return _once(server, workload)


@contextmanager
def _rows_left_out() -> Iterator[None]:
    """Number the rows of the log without encoding or storing them."""

    def number_only(text: Any, *, has_hint: bool) -> tuple[str, str]:
        mark = ", ".join(text._value(name) for name in ("text", "bigint", "text"))
        position = "nextval('durably_events_position_seq') AS position"
        notify = f", pg_notify({text._value('text')}, {text._value('text')})" if has_hint else ""
        return f"told AS (SELECT {position} FROM (VALUES ({mark})) AS mark)", f"position{notify}"

    with (
        patch.object(batch._Text, "_telling", number_only),
        patch.object(batch, "encode_events", lambda _: "[]"),
        # Texts that were made before have the rows in them.
        patch.dict(batch._Statement._texts, clear=True),
    ):
        yield


# --- a burst --------------------------------------------------------------------------------------


def bursts(server: PostgresServer, directory: Path, seconds: float) -> Iterator[Line]:
    """Yield what became of a burst on each database."""
    yield _burst_line("PostgreSQL", asyncio.run(_follow(server.create_database(), seconds)))
    with fresh_file(directory, "") as url:
        yield _burst_line("SQLite", asyncio.run(_follow(url, seconds)))


def _burst_line(name: str, found: dict[str, Any]) -> Line:
    # Who subscribes to a run that executes already hears of what comes from then on.
    is_whole = found["is_gapless"] and found["last"] == found["told"]
    return Line(
        f"Burst on {name}, {number(found['rate'], '/s')} events/s",
        f"told {found['told']:,.0f}, heard {found['heard']:,} in another process, "
        f"{'from the first one on each once and in order' if is_whole else 'NOT IN ORDER'}",
        f"late at worst {number(found['late'], 'ms')} ms; delay {samples(found['delays']).show('ms')}",
        f"memory +{number(found['grown'], 'MiB')} MiB, reader +{number(found['reader_grown'], 'MiB')} MiB",
        "no gap, no duplicate",
        is_whole,
    )


async def _follow(url: str, seconds: float) -> dict[str, Any]:
    async with workloads.without_worker(url) as durably:
        command = [sys.executable, "-m", "benchmarks.burst", url, str(_RATE), str(seconds)]
        process = await asyncio.create_subprocess_exec(*command, cwd=_ROOT, stdout=asyncio.subprocess.PIPE)
        if process.stdout is None:
            raise RuntimeError("the burst has no output")
        run_id = json.loads(await process.stdout.readline())["run"]
        before, heard, delays = memory()["now"], [], []
        async for event in durably.subscribe(run_id):
            if isinstance(event, RunProgressEvent):
                heard.append(event.progress.current)
                delays.append(time.monotonic() - float(event.progress.message or 0))
        found: dict[str, Any] = json.loads(await process.stdout.readline())
        await process.wait()
    is_gapless = all(after == earlier + 1 for earlier, after in itertools.pairwise(heard))
    grown = memory()["peak"] - before
    return {
        **found,
        "heard": len(heard),
        "last": heard[-1],
        "delays": delays,
        "is_gapless": is_gapless,
        "reader_grown": grown,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the section when it was done at full size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="pairs of with and without (default 5)")
    parser.add_argument("--directory", type=report.directory, default=report.default_directory())
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; writes nothing")
    options = parser.parse_args(arguments)
    repetitions, share, seconds = (1, 10, 2.0) if options.quick else (options.repetitions, 1, 10.0)
    lines = []
    with postgres_server(is_safe=True) as server:
        version = server.sql("SHOW server_version")[0]
        for found in (cost(server, repetitions, share), bursts(server, options.directory, seconds)):
            for line in found:
                lines.append(line)
                print(" | ".join(cell for cell in line.cells if cell), file=sys.stderr, flush=True)
    if not options.quick:
        more = f", asyncpg {asyncpg.__version__}, PostgreSQL {version}"
        setting = report.setting("python -m benchmarks.streams", options.directory, more=more)
        body = "\n\n".join([setting, _ABOUT.strip(), table(HEADER, [line.cells for line in lines])])
        report.write_section(TITLE, body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
