"""A million runs that were really executed: what they leave in the tables of PostgreSQL, and how fast they go away."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg
from tests.postgres.server import PostgresServer

from benchmarks import workloads
from benchmarks.figures import Line, number, samples
from benchmarks.scaling_workers import several
from durably import BatchItem, Durably

HEADER: Final = ("what", "measured", "at the start, or beside it")
_BATCH: Final = 500
_AHEAD: Final = 20_000
_SLOTS: Final = 100
_LOOK_SECONDS: Final = 1.0
_PROBES: Final = 100
_TABLES: Final = ("durably_runs", "durably_run_labels", "durably_steps", "durably_events")
_INDEXES: Final = ("idx_durably_runs_pending", "idx_durably_runs_status_created", "durably_runs_pkey")

Say = Callable[[str], None]


def measure(server: PostgresServer, runs: int, processes: int, say: Say) -> Iterator[Line]:
    """Yield what was found."""
    url = server.create_database()
    return asyncio.run(_collect(url, runs, processes, say))


async def _collect(url: str, runs: int, processes: int, say: Say) -> Iterator[Line]:
    connection = await asyncpg.connect(url)
    try:
        async with workloads.without_worker(url) as durably:
            return iter([line async for line in _lines(connection, durably, url, runs, processes, say)])
    finally:
        await connection.close()


async def _lines(
    connection: asyncpg.Connection, durably: Durably, url: str, runs: int, processes: int, say: Say
) -> AsyncIterator[Line]:
    early = await _probe(durably)
    wal = await _wal(connection)
    rates = await _execute(connection, durably, url, runs, processes, say)
    yield Line(
        f"{runs:,} runs executed, runs per second",
        samples(rates).show("/s"),
        f"the first tenth {number(rates[0], '/s')}, the last {number(rates[-1], '/s')} /s",
    )
    yield Line("WAL per run", f"{(await _wal(connection) - wal) / runs:,.0f} bytes", "trigger, claim, step and end")
    async for line in _sizes(connection, runs):
        yield line
    late = await _probe(durably)
    for what, durations in late.items():
        yield Line(f"{what}, one at a time", durations.show("ms"), f"with no stored runs {early[what].show('ms')}")
    yield await _purge(connection, durably, runs // 5)


async def _probe(durably: Durably) -> dict[str, Any]:
    """Return how long single operations take: as many samples of each, in turns."""
    taken: dict[str, list[float]] = {}
    store = durably.storage
    for _ in range(_PROBES):
        run = await _timed(taken, "trigger", durably.jobs.moment.trigger(0, labels={"tenant": "probe"}))
        await _timed(taken, "claim", store.claim("probe", ["moment"], 1, 3600))
        await _timed(taken, "newest 20 of a job", durably.get_runs(job_name="moment", limit=20))
        await _timed(taken, "newest 20 of a label", durably.get_runs(labels={"tenant": "probe"}, limit=20))
        await durably.cancel(run.id)
    return {what: samples(durations) for what, durations in taken.items()}


async def _timed(taken: dict[str, list[float]], what: str, work: Any) -> Any:
    began = time.perf_counter()
    result = await work
    taken.setdefault(what, []).append(time.perf_counter() - began)
    return result


async def _execute(
    connection: asyncpg.Connection, durably: Durably, url: str, runs: int, processes: int, say: Say
) -> list[float]:
    """Trigger and execute; return the rate of each tenth."""
    rates: list[float] = []
    with several(url, processes, "busy_worker", _SLOTS):
        for _ in range(10):
            began = time.perf_counter()
            await _execute_some(connection, durably, runs // 10)
            rates.append(runs / 10 / (time.perf_counter() - began))
            say(f"{rates[-1]:,.0f} runs/s; {await _dead(connection):,} dead rows in durably_runs")
    return rates


async def _execute_some(connection: asyncpg.Connection, durably: Durably, runs: int) -> None:
    triggered, waiting = 0, 0
    while triggered < runs or waiting:
        while triggered < runs and waiting < _AHEAD:
            items = [BatchItem(1, labels={"tenant": f"t{random.randrange(500)}"}) for _ in range(_BATCH)]
            await durably.jobs.steps.batch_trigger(items)
            triggered += _BATCH
            waiting += _BATCH
        await asyncio.sleep(_LOOK_SECONDS)
        waiting = await _waiting(connection)


async def _waiting(connection: asyncpg.Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM durably_runs WHERE status IN ('pending', 'leased')")
    return count


async def _dead(connection: asyncpg.Connection) -> int:
    count: int = await connection.fetchval("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'durably_runs'")
    return count


async def _wal(connection: asyncpg.Connection) -> int:
    position: int = await connection.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
    return position


@dataclass(frozen=True)
class _Size:
    table: int
    indexes: int


async def _size(connection: asyncpg.Connection, table: str) -> _Size:
    query = "SELECT pg_table_size($1::text::regclass) AS t, pg_indexes_size($1::text::regclass) AS i"
    row = await connection.fetchrow(query, table)
    assert row is not None
    return _Size(row["t"], row["i"])


async def _sizes(connection: asyncpg.Connection, runs: int) -> AsyncIterator[Line]:
    for table in _TABLES:
        size = await _size(connection, table)
        vacuums = await connection.fetchval(
            "SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = $1", table
        )
        beside = f"{(size.table + size.indexes) / runs:,.0f} bytes per run; autovacuum came {vacuums} times"
        yield Line(f"{table} with its indexes", _mebibytes(size.table, size.indexes), beside)
    before = {name: await _index_size(connection, name) for name in _INDEXES}
    all_before = (await _size(connection, "durably_runs")).indexes
    await connection.execute("REINDEX TABLE durably_runs", timeout=600)
    all_after = (await _size(connection, "durably_runs")).indexes
    yield Line("all indexes of durably_runs", _mebibytes(all_before), f"after REINDEX {_mebibytes(all_after)}")
    for name in _INDEXES:
        yield Line(name, _mebibytes(before[name]), f"after REINDEX {_mebibytes(await _index_size(connection, name))}")


async def _index_size(connection: asyncpg.Connection, name: str) -> int:
    size: int = await connection.fetchval("SELECT pg_relation_size($1::text::regclass)", name)
    return size


def _mebibytes(*sizes: int) -> str:
    return " + ".join(f"{size / 2**20:,.1f}" for size in sizes) + " MiB"


async def _purge(connection: asyncpg.Connection, durably: Durably, runs: int) -> Line:
    began, purged, wal = time.perf_counter(), 0, await _wal(connection)
    while purged < runs:
        portion = await durably.purge_runs(older_than=timedelta(0), limit=_BATCH)
        if portion == 0:
            break
        purged += portion
    seconds = time.perf_counter() - began
    beside = f"{(await _wal(connection) - wal) / purged:,.0f} bytes of WAL per run"
    return Line(f"purging {purged:,} runs, runs per second", f"{number(purged / seconds, '/s')} /s", beside)
